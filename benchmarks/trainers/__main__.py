"""Our SFT, reward and DPO trainers against TRL's: `python -m benchmarks.trainers`. What is compared, and how:
benchmarks/README.md."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import command, results
from benchmarks.ppo.worker import THREADS
from benchmarks.processes import CACHE, ROOT, Worker, WorkerFailed, take_turns, updates_of, worker_env
from benchmarks.trainers.cases import CASES, TASKS, TrainerCase
from benchmarks.trainers.worker import name_of
from rlhf_lib.common import environment
from rlhf_lib.common.files import write_json

OUTPUT = ROOT / "benchmarks" / "results"
QUICK_OUTPUT = CACHE / "quick"

Turn = Mapping[str, Any]  # what a worker reports of one block


def run(task: str, name: str, pairs: int, quick: bool) -> dict[str, Any]:
    """The results of one case of one task."""
    from benchmarks.trainers import preferences

    case = CASES[name].quick() if quick else CASES[name]
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{task}-{name}-") as folder, ExitStack() as stack:
        preferences.write(case, task, Path(folder), CACHE)
        tokens = preferences.block_tokens(Path(folder), task)
        arguments = ["--case", name_of(task, name), "--updates", str(updates_of(pairs)), "--models", folder]

        def start(module: str) -> Worker:
            log = CACHE / f"{task}-{name}-{module.rpartition('.')[2]}.log"
            quickly = ["--quick"] if quick else []
            return stack.enter_context(Worker(module, [*arguments, *quickly], worker_env([]), log))

        peer = start("benchmarks.trainers.peer")
        peer_start = peer.answer()
        ours = start("benchmarks.trainers.ours")
        our_start = ours.answer()
        peer_turns, our_turns, gflop = take_turns(f"{task} {name}: {case.about}", peer, ours, pairs)
    return summary(case, tokens, gflop, (peer_start, peer_turns), (our_start, our_turns))


def summary(
    case: TrainerCase, tokens: int, gflop: float, peer: tuple[Turn, Sequence[Turn]], ours: tuple[Turn, Sequence[Turn]]
) -> dict[str, Any]:
    """A case's results, from each side's first message and its blocks, the warm-up first.

    The warm-up's losses are part of the curves; its time counts for nothing.
    """
    (_, peer_turns), (our_start, our_turns) = peer, ours
    of_reference = {}
    if "reference_seconds" in our_start:
        extra = our_start["reference_seconds"]
        charged = [{**turn, "cpu_seconds": turn["cpu_seconds"] + extra} for turn in our_turns[1:]]
        of_reference = {"ratio_with_reference": results.compare(peer_turns[1:], charged)["ratio"]}
    return {
        "about": case.about,
        **results.compare(peer_turns[1:], our_turns[1:]),
        **results.arithmetic(gflop, peer_turns[1:], our_turns[1:]),
        **of_reference,
        **(loss_differences(losses(peer_turns), losses(our_turns)) if case.same_order else {}),
        "peer": side(*peer, tokens),
        "ours": side(*ours, tokens),
    }


def side(start: Turn, turns: Sequence[Turn], tokens: int) -> dict[str, Any]:
    """One side of a case; `tokens`: the real tokens of a block."""
    timed = results.timed_side(start, turns[1:])
    return {**timed, "tokens": tokens, "tokens_per_second": tokens / timed["seconds"], "losses": losses(turns)}


def losses(turns: Sequence[Turn]) -> list[float]:
    """A side's loss curve, a value an optimizer step."""
    return [loss for turn in turns for loss in turn["losses"]]


def loss_differences(peer: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """How far two loss curves of the same steps lie apart, beside how far the peer's moved."""
    apart = [abs(p - o) for p, o in zip(peer, ours, strict=True)]
    return {
        "loss_difference_largest": max(apart),
        "loss_difference_mean": fmean(apart),
        "loss_range": max(peer) - min(peer),
    }


def main() -> None:
    about = "Our SFT, reward and DPO trainers against TRL's."
    parser = command.parser("benchmarks.trainers", about, CASES, "blocks", "folder of the results")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    arguments = command.parse(parser)
    environment.prepare()
    folder = arguments.output or (QUICK_OUTPUT if arguments.quick else OUTPUT)
    machine = results.machine(THREADS, version("trl"))
    names = arguments.cases or command.suitable_cases(CASES, machine["bf16_instructions"] or arguments.quick)
    outputs = {task: folder / f"{task}.json" for task in arguments.tasks}
    for output in outputs.values():
        results.check_mergeable(results.read(output), machine, names)
    CACHE.mkdir(exist_ok=True)
    failures = 0
    for task, output in outputs.items():
        for name in names:
            try:
                case = run(task, name, arguments.pairs, arguments.quick)
            except WorkerFailed as error:
                failures += 1
                print(f"{task} {name}: {error}", file=sys.stderr)
                continue
            write_json(output, results.merge(results.read(output), machine, {name: case}))
        if output.exists():
            print(f"\n{task}\n\n{results.table(results.read(output), 'tokens_per_second')}")
    if failures:
        raise SystemExit(f"{failures} of {len(names) * len(outputs)} cases failed; see above")


if __name__ == "__main__":
    main()
