"""The plan's memory against measured peaks: `python -m benchmarks.plan`. What is compared: benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.plan.case import CASES, Case
from benchmarks.ppo.cases import SIZES
from benchmarks.ppo.worker import THREADS
from benchmarks.processes import ROOT
from rlhf_lib.common import environment
from rlhf_lib.common.files import write_json
from rlhf_lib.common.yaml import ParamsError

OUTPUT = ROOT / "benchmarks" / "results" / "plan.json"


def predict(case: Case) -> dict[str, float]:
    """MiB by part, as the plan counts them, of the case's shape and batch."""
    from transformers import GPT2Config

    from rlhf_lib.plan import estimate, memory, shapes
    from rlhf_lib.training.memory import Compute, ForwardPass, ModelShape

    params = case.params()
    compute = Compute(4 if case.precision == "fp32" else 2, case.checkpointing)

    def shape(kind: shapes.Kind, trained: Any) -> ModelShape:
        config = GPT2Config(**SIZES[case.size], bos_token_id=0, eos_token_id=0)
        return shapes.shape(case.stage, config, kind, trained)

    if case.stage == "ppo":
        critic = None if params.critic == "shared" else shape("trunk", estimate.critic_params(params))
        frozen = [shape("reward", None), *([] if params.lora_r else [shape("policy", None)])]
        batch, rollout = estimate.ppo_batch(params, case.prompt)
        parts = memory.ppo_peak(shape("policy", params), critic, frozen, batch, rollout, compute, case.accumulation)
    else:
        rows = case.rows * (1 if case.stage == "sft" else 2)
        of = shape("reward" if case.stage == "reward" else "policy", params)
        batch = ForwardPass(rows, case.prompt + case.answer, rows * case.answer)
        parts = memory.training_peak(of, batch, compute, case.accumulation)
    parts = memory.in_process(parts, "cpu", case.answer if case.stage == "ppo" else 0)
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
