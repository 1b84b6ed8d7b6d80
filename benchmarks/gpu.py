"""Training and sampling on the device at hand, on the clock of the wall: `python -m benchmarks.gpu --help`.

The other benchmarks compare with TRL on one thread of a CPU. This one says what a GPU does: real tokens a second, the
share of its peak that the model's own matrix products take (model FLOPs utilisation), and memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.clock import Clock, free
from benchmarks.generators import sample
from benchmarks.ppo import worker
from benchmarks.ppo.cases import CASES as PPO_CASES
from benchmarks.processes import CACHE, ROOT
from benchmarks.trainers.cases import CASES, TASKS
from rlhf_lib.common import environment
from rlhf_lib.common.files import write_json

OUTPUT = ROOT / "benchmarks" / "results" / "gpu.json"
PPO_OUTPUT = ROOT / "benchmarks" / "results" / "gpu_ppo.json"
STAGES = (*TASKS, "ppo")
# bf16 peaks of dense products in 10^12 operations a second, from the makers' data sheets
PEAKS = {
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "L4": 121.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
}


def known_peak(name: str) -> float | None:
    """The bf16 peak (TFLOP/s) of a GPU of that name; None where it is not in the table."""
    return next((peak for known, peak in PEAKS.items() if re.search(rf"\b{known}\b", name)), None)


def training_flops(parameters: int, tokens: int) -> int:
    """6 N a token: forward 2 N, backward 4 N [Kaplan 2020, arXiv:2001.08361, section 2.1]; attention is left out."""
    return 6 * parameters * tokens


def utilisation(flops: float, seconds: float, peak_tflops: float | None) -> float | None:
    """The share of the peak; None without one."""
    return None if peak_tflops is None else flops / seconds / (peak_tflops * 1e12)


def train_stage(stage: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A warm-up pass, and then a measured one, of a stage's trainer as the stage builds it."""
    trainer, tokens, passes = (_ppo if stage == "ppo" else _trainer)(stage, arguments, folder)
    from transformers import TrainerCallback

    marks: list[float] = []
    clock: list[Clock] = []

    class Marks(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.append(Clock())

        def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            if state.global_step % passes == 0:
                marks.append(clock[0].now())
                if len(marks) == 2:
                    raise worker.Finished

    trainer.add_callback(Marks())
    worker.train(trainer.train)
    seconds, parameters = marks[1] - marks[0], sum(p.numel() for p in trainer.model.parameters())
    flops = training_flops(parameters, tokens())
    return {
        "seconds": seconds,
        "tokens_per_second": tokens() / seconds,
        "mfu": utilisation(flops, seconds, arguments.peak_tflops),
        "peak_mb": clock[0].peak_mb(),
        "parameters": parameters,
    }


def _trainer(stage: str, arguments: argparse.Namespace, folder: Path) -> tuple[Any, Callable[[], int], int]:
    """The trainer, the real tokens of a pass over its rows, and the steps of a pass."""
    from benchmarks.trainers import ours as our_trainer
    from benchmarks.trainers import preferences
    from benchmarks.trainers.worker import TrainerTask

    case = dataclasses.replace(CASES[arguments.size], batch=arguments.batch, steps=arguments.steps)
    case = case.quick() if arguments.quick else case
    task = TrainerTask(stage, case, 2, folder)
    preferences.write(case, stage, folder, CACHE)
    if stage == "dpo":
        our_trainer.measure_reference(task)
    trainer = our_trainer.build(task)
    return trainer, lambda: sum(_lengths(row) for row in trainer.train_dataset), case.steps


def _lengths(row: dict[str, Any]) -> int:
    """The real tokens that a row's forward passes see."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return 2 * len(row.get("prompt_ids", ())) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def _ppo(stage: str, arguments: argparse.Namespace, folder: Path) -> tuple[Any, Callable[[], int], int]:
    """PPO's trainer, the tokens that its updates see in a rollout, and the optimizer steps of a rollout."""
    from benchmarks.ppo import ours as our_ppo
    from benchmarks.ppo import workload

    case = PPO_CASES["gpt2_bf16" if arguments.size == "gpt2" else "bf16"]
    case = case.quick() if arguments.quick else dataclasses.replace(case, batch=arguments.rollout_batch)
    workload.write(case, folder, CACHE)
    params = our_ppo.ppo_params({**case.ours, **case.work(2)})
    trainer = our_ppo.build(params, folder)
    lengths: list[int] = []
    score = trainer.score

    def counted(rollout: Any, split: Any) -> None:
        lengths.append(sum(rollout.lengths))
        score(rollout, split)

    trainer.score = counted  # type: ignore[method-assign]
    return trainer, lambda: lengths[-1] * params.num_ppo_epochs, params.steps_per_rollout


def train(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each stage's name and numbers, as soon as they are there."""
    for stage in arguments.stages:
        free()
        yield stage, train_stage(stage, arguments, folder / stage)


def table(measured: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = ["| | seconds | tokens/s | MFU | peak MB |", "|---|---|---|---|---|"]
    for name, row in measured.items():
        mfu = "–" if row.get("mfu") is None else f"{row['mfu']:.1%}"
        lines.append(
            f"| {name} | {row['seconds']:.3g} | {row['tokens_per_second']:,.0f} | {mfu} | {row['peak_mb']:,.0f} |"
        )
    return "\n".join(lines)


def device_name() -> str:
    import torch

    from rlhf_lib.models import hardware

    return torch.cuda.get_device_name() if hardware.device().type == "cuda" else results.cpu_model()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=("train", "rollouts", "ppo"))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--size", choices=("tiny", "gpt2"), default="gpt2")
    parser.add_argument("--batch", type=int, default=32, help="rows or pairs per step (default: 32)")
    parser.add_argument("--steps", type=int, default=20, help="steps that are measured (default: 20)")
    parser.add_argument("--rollout-batch", type=int, default=256, help="responses per rollout (default: 256)")
    parser.add_argument("--peak-tflops", type=float, help="the device's bf16 peak, for the utilisation")
    parser.add_argument("--quick", action="store_true", help="toy sizes: shows that it runs, writes no results")
    return parser.parse_args()


def against_trl(quick: bool) -> None:
    """`benchmarks.ppo` on the GPU, by the wall's clock: our PPO and TRL 1.12's in turn, GPT-2 in bf16."""
    from rlhf_lib.models import hardware

    if hardware.device().type != "cuda":
        raise SystemExit("benchmarks.gpu ppo: needs a CUDA GPU; on a CPU it is python -m benchmarks.ppo")
    command = [sys.executable, "-m", "benchmarks.ppo", "--cases", "gpt2_bf16", "--output", str(PPO_OUTPUT)]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])], env={**os.environ, "BENCHMARK_ON_GPU": "1"}, check=False
    )
    raise SystemExit(done.returncode)


def keep(output: Path, machine: dict[str, Any], what: str, measured: dict[str, dict[str, Any]]) -> None:
    """Write numbers of `what` into the results, beside those that the same machine has; another's go."""
    old = results.read(output)
    if old.get("machine") != machine:
        old = {}
    kept = old.get("cases", {}).get(what, {})  # of other --stages
    write_json(output, results.merge(old, machine, {what: {**kept, **measured}}))


def main() -> None:
    arguments = parse()
    environment.prepare()
    from rlhf_lib.models import hardware
    from rlhf_lib.models.params import AUTO

    hardware.use(AUTO)
    if arguments.what == "ppo":
        return against_trl(arguments.quick)
    device = device_name()
    arguments.peak_tflops = arguments.peak_tflops or known_peak(device)
    machine = {**results.machine(worker.THREADS, results.version("trl")), "device": device}
    CACHE.mkdir(exist_ok=True)
    measured = {}
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="gpu-") as scratch:
        for name, numbers in (sample if arguments.what == "rollouts" else train)(arguments, Path(scratch)):
            measured[name] = numbers
            if not arguments.quick:  # at once: what comes next may not fit, or not be done in time
                keep(OUTPUT, machine, arguments.what, measured)
    print(f"{device}, {hardware.precision()}", table(measured), sep="\n\n")


if __name__ == "__main__":
    main()
