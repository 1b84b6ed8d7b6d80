"""Training and sampling on the device at hand, on the clock of the wall: `python -m benchmarks.gpu --help`.

The other benchmarks compare with TRL on one thread of a CPU. This one says what a GPU does: real tokens a second, the
share of its peak that the model's own matrix products take (model FLOPs utilisation), and memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import results
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
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L4": 121.0, "L40S": 362.0, "RTX 4090": 165.0}


def known_peak(name: str) -> float | None:
    """The bf16 peak (TFLOP/s) of a GPU of that name; None where it is not in the table."""
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def training_flops(parameters: int, tokens: int) -> int:
    """6 N a token: forward 2 N, backward 4 N [Kaplan 2020, arXiv:2001.08361, section 2.1]; attention is left out."""
    return 6 * parameters * tokens


def utilisation(flops: float, seconds: float, peak_tflops: float | None) -> float | None:
    """The share of the peak; None without one."""
    return None if peak_tflops is None else flops / seconds / (peak_tflops * 1e12)


class Clock:
    """Seconds on the wall, with the device's work waited for."""

    def __init__(self) -> None:
        import torch

        from rlhf_lib.models import hardware

        self.cuda = torch.cuda if hardware.device().type == "cuda" else None
        worker.reset_peak()
        if self.cuda:
            self.cuda.reset_peak_memory_stats()
        self.start = self.now()

    def now(self) -> float:
        if self.cuda:
            self.cuda.synchronize()
        return time.perf_counter()

    def peak_mb(self) -> float:
        """The most memory in MiB: the GPU's, or without one the process's."""
        return self.cuda.max_memory_allocated() / 2**20 if self.cuda else worker.peak_mb()


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


def sample(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """New tokens per second of each generator, for the same prompts and as many new tokens each."""
    from benchmarks.ppo import workload
    from rlhf_lib.generation.sampling import encode_prompts
    from rlhf_lib.models import loading as models

    case = dataclasses.replace(PPO_CASES["gpt2_bf16"], batch=arguments.rollout_batch, eos_probability=None)
    case = case.quick() if arguments.quick else case
    workload.write(case, folder, CACHE)
    tokenizer = models.load_tokenizer(folder / workload.POLICY)
    texts = workload.read_prompts(folder)[: case.batch]
    prompts = encode_prompts(tokenizer, texts, case.response_length, None, "response_length")
    measured = {}
    for name, respond in {"ours": _ours, "continuous_batching": _continuous, "vllm": _vllm}.items():
        try:
            clock, tokens = respond(folder / workload.POLICY, tokenizer, prompts, case.response_length)
        except ImportError as error:
            print(f"{name}: left out: {error}")
            continue
        seconds = clock.now() - clock.start
        measured[name] = {"seconds": seconds, "tokens_per_second": tokens / seconds, "peak_mb": clock.peak_mb()}
    return measured


def _ours(path: Path, tokenizer: Any, prompts: list[list[int]], length: int) -> tuple[Clock, int]:
    from rlhf_lib.generation.decoding import generate
    from rlhf_lib.generation.sampling import Sampling, random_numbers
    from rlhf_lib.models import hardware
    from rlhf_lib.models import loading as models

    policy, sampling = models.load_policy(path), Sampling(length, min_new_tokens=length - 1)
    noise = random_numbers(len(prompts), sampling, 0)
    with hardware.autocast():
        generate(policy, tokenizer, prompts[:1], sampling, noise[:1], 1)  # warm-up
        clock = Clock()
        responses = generate(policy, tokenizer, prompts, sampling, noise, len(prompts))
    return clock, sum(len(response.ids) for response in responses)


def _continuous(path: Path, tokenizer: Any, prompts: list[list[int]], length: int) -> tuple[Clock, int]:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from rlhf_lib.models import hardware
    from rlhf_lib.models.stops import stop_ids

    dtype = torch.bfloat16 if hardware.precision() == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa").to(hardware.device())
    options = {"max_new_tokens": length, "min_new_tokens": length - 1, "do_sample": True, "top_k": 0}
    config = GenerationConfig(**options, eos_token_id=list(stop_ids(model)), pad_token_id=tokenizer.pad_token_id)
    model.generate_batch(inputs=prompts[:1], generation_config=config)  # warm-up
    clock = Clock()
    outputs = model.generate_batch(inputs=prompts, generation_config=config)
    return clock, sum(len(output.generated_tokens) for output in outputs.values())


def _vllm(path: Path, tokenizer: Any, prompts: list[list[int]], length: int) -> tuple[Clock, int]:
    from vllm import LLM, SamplingParams

    engine = LLM(model=str(path), dtype="bfloat16", enforce_eager=False)
    params = SamplingParams(max_tokens=length, min_tokens=length - 1, temperature=1.0)
    inputs = [{"prompt_token_ids": ids} for ids in prompts]
    engine.generate(inputs[:1], params)  # warm-up
    clock = Clock()
    outputs = engine.generate(inputs, params)
    return clock, sum(len(output.outputs[0].token_ids) for output in outputs)


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
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="gpu-") as scratch:
        if arguments.what == "rollouts":
            measured = sample(arguments, Path(scratch))
        else:
            measured = {stage: train_stage(stage, arguments, Path(scratch) / stage) for stage in arguments.stages}
    print(f"{device}, {hardware.precision()}", table(measured), sep="\n\n")
    if not arguments.quick:
        machine = {**results.machine(worker.THREADS, results.version("trl")), "device": device}
        old = results.read(OUTPUT)
        kept = old["cases"].get(arguments.what, {}) if old.get("machine") == machine else {}  # of other --stages
        write_json(OUTPUT, results.merge(old, machine, {arguments.what: {**kept, **measured}}))


if __name__ == "__main__":
    main()
