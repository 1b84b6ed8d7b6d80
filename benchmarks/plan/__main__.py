"""The plan's memory against measured peaks: `python -m benchmarks.plan`. What is compared: benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks import results
from benchmarks.plan.case import CASES, SIZES, Case
from benchmarks.ppo.worker import THREADS
from benchmarks.processes import ROOT
from rlhf_lib.common import environment
from rlhf_lib.common.files import write_json
from rlhf_lib.common.yaml import ParamsError

if TYPE_CHECKING:
    from rlhf_lib.plan.phases import Phase

OUTPUT = ROOT / "benchmarks" / "results" / "plan.json"


def phases_of(case: Case) -> tuple[Phase, ...]:
    """What the plan counts of the case's shape and batches, less what a process holds besides."""
    from transformers import GPT2Config

    from rlhf_lib.plan import estimate, memory, phases, shapes
    from rlhf_lib.training.memory import Compute, ForwardPass, ModelShape

    params = case.params()
    compute = Compute(4 if case.precision == "fp32" else 2, case.checkpointing)
    width = case.prompt + case.answer

    def shape(kind: shapes.Kind, trained: Any) -> ModelShape:
        config = GPT2Config(**SIZES[case.size], bos_token_id=0, eos_token_id=0)
        return shapes.shape(case.stage, config, kind, trained)

    if case.stage == "reference":
        return phases.of_reference(params, shape("policy", None), None, width, case.answer, compute)
    if case.stage == "evaluate":
        scorers = dict.fromkeys(("reward", "judge"), shape("reward", None))
        sections = {name: SimpleNamespace(per_device_eval_batch_size=case.eval_rows) for name in scorers}
        return phases.of_evaluate(
            {**sections, "evaluate": params}, shape("policy", None), scorers, case.prompt, compute
        )
    if case.stage == "ppo":
        critic = shape("trunk", estimate.critic_params(params)) if params.has_own_critic else None
        reward, policy = shape("reward", None), shape("policy", params)
        frozen = [reward, *([] if params.lora_r else [shape("policy", None)])]
        always = memory.ppo_holds(policy, critic, frozen)
        return phases.of_ppo(params, always, (policy, critic, [reward]), case.prompt, compute)
    sides = 1 if case.stage == "sft" else 2
    of = shape("reward" if case.stage == "reward" else "policy", params)
    batch = ForwardPass(case.rows * sides, width, case.rows * sides * case.answer)
    found = phases.of_trainer(case.stage, params, of, batch, compute, sides)
    return found if case.eval_rows else found[:1]


def predict(case: Case) -> dict[str, float]:
    """MiB by part, as the plan counts them, of the phase that holds most."""
    from rlhf_lib.plan import memory

    steps = case.answer if case.stage in ("ppo", "evaluate") else 0
    held = [memory.in_process(phase.parts, "cpu", steps) for phase in phases_of(case)]
    parts = max(held, key=lambda parts: parts.total)
    return {**{name: size / memory.MIB for name, size in vars(parts).items()}, "total": parts.total / memory.MIB}


def measure(name: str) -> float:
    """The peak in MiB of the case, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.plan.case", name]
    variables = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise ParamsError(f"{name}: failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return float(json.loads(done.stdout)["peak_mb"])


def compared(case: Case, measured_mb: float) -> dict[str, Any]:
    """A case's line of the results: MiB that the plan says, MiB measured, and the first over the second."""
    parts = predict(case)
    return {
        "about": case.about,
        "predicted_mb": parts["total"],
        "measured_mb": measured_mb,
        "ratio": parts["total"] / measured_mb,
        "parts_mb": parts,
    }


def table(cases: dict[str, dict[str, Any]]) -> str:
    """The cases as a Markdown table."""
    lines = ["| case | | predicted MB | measured MB | ratio |", "|---|---|---|---|---|"]
    for name, case in cases.items():
        numbers = f"{case['predicted_mb']:.0f} | {case['measured_mb']:.0f} | {case['ratio']:.2f}"
        lines.append(f"| {name} | {case['about']} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="results file; other cases in it are kept")
    arguments = parser.parse_args()
    environment.prepare()
    machine, old = results.machine(THREADS, version("trl")), results.read(arguments.output)
    results.check_mergeable(old, machine, arguments.cases)
    for name in arguments.cases:
        measured = {name: compared(CASES[name], measure(name))}
        old = results.merge(old, machine, measured)
        write_json(arguments.output, old)
        print(table(measured).splitlines()[-1], file=sys.stderr)
    print(table(old["cases"]))


if __name__ == "__main__":
    main()
