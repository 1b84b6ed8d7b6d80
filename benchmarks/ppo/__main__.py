"""Our PPO against TRL's: `python -m benchmarks.ppo`. What is compared, and how: benchmarks/README.md."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import command, results
from benchmarks.ppo import peer as peer_ppo
from benchmarks.ppo.cases import CASES
from benchmarks.ppo.worker import THREADS
from benchmarks.processes import CACHE, ROOT, Worker, WorkerFailed, take_turns, worker_env
from rlhf_lib.common import environment
from rlhf_lib.common.files import write_json

PEER = CACHE / f"trl-{peer_ppo.VERSION}"
OUTPUT = ROOT / "benchmarks" / "results" / "ppo.json"
QUICK_OUTPUT = CACHE / "quick.json"


def run(name: str, pairs: int, quick: bool) -> dict[str, Any]:
    """The results of one case."""
    from benchmarks.ppo import workload

    case = CASES[name].quick() if quick else CASES[name]
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{name}-") as folder, ExitStack() as stack:
        workload.write(case, Path(folder), CACHE)
        arguments = ["--case", name, "--updates", str(1 + pairs), "--models", folder, *(["--quick"] if quick else [])]

        def start(module: str, path: list[Path]) -> Worker:
            log = CACHE / f"{name}-{module.rpartition('.')[2]}.log"
            return stack.enter_context(Worker(module, arguments, worker_env(path), log))

        peer = start("benchmarks.ppo.peer", [PEER])
        peer_start = peer.answer()
        ours = start("benchmarks.ppo.ours", [])
        our_start = ours.answer()
        turns = take_turns(f"{name}: {case.about}", peer, ours, pairs)
    gflop = turns[1][0]["gflop"]
    peer_updates, our_updates = (side[1:] for side in turns)  # the warm-up's time counts for nothing
    return {
        "about": case.about,
        **results.compare(peer_updates, our_updates),
        **results.arithmetic(gflop, peer_updates, our_updates),
        "peer": results.side(peer_start, peer_updates),
        "ours": results.side(our_start, our_updates),
    }


def install_peer() -> None:
    """Install the peer into a folder of its own, once: the project's environment has a later TRL."""
    if PEER.exists():
        return
    print(f"installing trl {peer_ppo.VERSION} into {PEER.relative_to(ROOT)}, once", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="install-") as folder:
        target = Path(folder) / "trl"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(target), f"trl=={peer_ppo.VERSION}"], check=True)
        shutil.move(target, PEER)


def main() -> None:
    parser = command.parser("benchmarks.ppo", "Our PPO against TRL's, on one thread.", CASES, "updates", "results file")
    arguments = command.parse(parser)
    environment.prepare()
    output = arguments.output or (QUICK_OUTPUT if arguments.quick else OUTPUT)
    machine = results.machine(THREADS, peer_ppo.VERSION)
    names = arguments.cases or command.suitable_cases(CASES, machine["bf16_instructions"] or arguments.quick)
    results.check_mergeable(results.read(output), machine, names)
    CACHE.mkdir(exist_ok=True)
    install_peer()
    failures = []
    for name in names:
        try:
            case = run(name, arguments.pairs, arguments.quick)
        except WorkerFailed as error:
            failures.append(f"{name}: {error}")
            print(failures[-1], file=sys.stderr)
            continue
        write_json(output, results.merge(results.read(output), machine, {name: case}))
    if output.exists():
        print(results.table(results.read(output)))
    if failures:
        raise SystemExit(f"{len(failures)} of {len(names)} cases failed; see above")


if __name__ == "__main__":
    main()
