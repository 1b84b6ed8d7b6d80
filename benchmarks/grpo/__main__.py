"""Our PPO without a critic against TRL's GRPOTrainer and RLOOTrainer: `python -m benchmarks.grpo`. What is compared,
and how: benchmarks/README.md."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from benchmarks import command, results
from benchmarks.grpo.cases import CASES, COPIES
from benchmarks.ppo import pairs
from benchmarks.ppo.worker import THREADS
from benchmarks.processes import CACHE, ROOT
from rlhf_lib.common import environment

OUTPUT = ROOT / "benchmarks" / "results" / "grpo.json"
QUICK_OUTPUT = CACHE / "quick-grpo.json"


def main() -> None:
    about = "Our PPO without a critic against TRL's GRPO and RLOO, on one thread."
    arguments = command.parse(command.parser("benchmarks.grpo", about, CASES, "updates", "results file"))
    environment.prepare()
    output = arguments.output or (QUICK_OUTPUT if arguments.quick else OUTPUT)
    machine, names = results.machine(THREADS, version("trl")), arguments.cases or list(CASES)
    results.check_mergeable(results.read(output), machine, names)
    CACHE.mkdir(exist_ok=True)

    def run(name: str) -> dict[str, Any]:
        case = CASES[name].quick() if arguments.quick else CASES[name]
        prompts = case.batch // COPIES
        return pairs.measured("benchmarks.grpo", name, case, prompts, arguments.pairs, arguments.quick)

    pairs.measure(names, run, machine, output)


if __name__ == "__main__":
    main()
