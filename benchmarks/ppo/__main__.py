"""Our PPO against TRL's: `python -m benchmarks.ppo`. What is compared, and how: benchmarks/README.md."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import command, results
from benchmarks.ppo import pairs
from benchmarks.ppo import peer as peer_ppo
from benchmarks.ppo.cases import CASES
from benchmarks.ppo.worker import THREADS
from benchmarks.processes import CACHE, ROOT
from rlhf_lib.common import environment

PEER = CACHE / f"trl-{peer_ppo.VERSION}"
OUTPUT = ROOT / "benchmarks" / "results" / "ppo.json"
QUICK_OUTPUT = CACHE / "quick.json"


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

    def run(name: str) -> dict[str, Any]:
        case = CASES[name].quick() if arguments.quick else CASES[name]
        return pairs.measured(
            "benchmarks.ppo", name, case, case.batch, arguments.pairs, arguments.quick, peer_path=[PEER]
        )

    pairs.measure(names, run, machine, output)


if __name__ == "__main__":
    main()
