"""Cases of a benchmark beside a trainer of TRL's that samples: each measured in pairs of turns, the results kept."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.ppo.cases import Case
from benchmarks.processes import CACHE, Worker, WorkerFailed, take_turns, updates_of, worker_env
from rlhf_lib.common.files import write_json


def measured(
    package: str, name: str, case: Case, prompts: int, pairs: int, quick: bool, peer_path: Sequence[Path] = ()
) -> dict[str, Any]:
    """The results of one case, whose sides are the modules `peer` and `ours` of a package.

    prompts: how many both sides have, all of which each update takes. peer_path: where the peer's TRL is, if it is
    another than the project's.
    """
    from benchmarks.ppo import workload

    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{name}-") as folder, ExitStack() as stack:
        workload.write(case, Path(folder), CACHE, prompts)
        arguments = ["--case", name, "--updates", str(updates_of(pairs)), "--models", folder]
        arguments += ["--quick"] if quick else []

        def start(side: str, path: Sequence[Path]) -> Worker:
            log = CACHE / f"{name}-{side}.log"
            return stack.enter_context(Worker(f"{package}.{side}", arguments, worker_env(path), log))

        peer = start("peer", peer_path)
        peer_start = peer.answer()
        ours = start("ours", [])
        our_start = ours.answer()
        *turns, gflop = take_turns(f"{name}: {case.about}", peer, ours, pairs)
    peer_updates, our_updates = (side[1:] for side in turns)  # the warm-up counts for nothing
    return {
        "about": case.about,
        **results.compare(peer_updates, our_updates),
        **results.arithmetic(gflop, peer_updates, our_updates),
        "peer": results.side(peer_start, peer_updates),
        "ours": results.side(our_start, our_updates),
    }


def measure(
    names: Sequence[str], run: Callable[[str], dict[str, Any]], machine: Mapping[str, Any], output: Path
) -> None:
    """Keep what `run` gives of each case in the results file as soon as it is there, and print the table."""
    failures = []
    for name in names:
        try:
            case = run(name)
        except WorkerFailed as error:
            failures.append(f"{name}: {error}")
            print(failures[-1], file=sys.stderr)
            continue
        write_json(output, results.merge(results.read(output), machine, {name: case}))
    if output.exists():
        print(results.table(results.read(output)))
    if failures:
        raise SystemExit(f"{len(failures)} of {len(names)} cases failed; see above")
