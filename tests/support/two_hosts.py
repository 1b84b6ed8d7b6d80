"""Two machines on one: network namespaces with a cable between them. They share the file system.

Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from copied_project import ENV

ADDRESSES = ("10.77.0.1", "10.77.0.2")
CARD = "card"  # the network interface, in either namespace
PORT = "29500"


def hindrance() -> str | None:
    """Why there can be no two hosts here; None where there can."""
    if not shutil.which("ip"):
        return "no command ip (Debian: apt-get install iproute2)"
    name = f"try{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces: {made.stderr.strip()}"
    ip("netns", "delete", name)
    return None


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    names = tuple(f"host{rank}-{os.getpid()}" for rank in (0, 1))
    hosts = Hosts(names)
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", CARD, "netns", names[0], "type", "veth", "peer", "name", CARD, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", CARD)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", CARD, "up")
        yield hosts
    finally:
        hosts.end()
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


class Hosts:
    """The two, and what runs on them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, folders: Sequence[Path], module: str, around: Sequence[str] = ()) -> None:
        """Start a stage as docs/scaling.md says, each host in its folder; `around`: what the second is started by."""
        self.logs = []
        for rank, (name, folder) in enumerate(zip(self.names, folders, strict=True)):
            numbers = ["--num_processes", "2", "--machine_rank", str(rank)]
            address = ["--main_process_ip", ADDRESSES[0], "--main_process_port", PORT]
            launch = ["accelerate", "launch", "--config_file", "launch/nodes.yaml", *numbers, *address, "-m", module]
            self.logs.append(folder.parent / f"{rank}.log")
            with open(self.logs[-1], "w", encoding="utf-8") as log:
                process = subprocess.Popen(
                    ["ip", "netns", "exec", name, *(around if rank == 1 else ()), *launch],
                    cwd=folder,
                    env={**ENV, "GLOO_SOCKET_IFNAME": CARD},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.processes.append(process)

    def wait(self, seconds: float = 300.0) -> list[int]:
        """The exit codes, once both have ended."""
        end = time.monotonic() + seconds
        codes = [process.wait(timeout=max(end - time.monotonic(), 0.0)) for process in self.processes]
        self.processes.clear()
        return codes

    def run(self, folder: Path, module: str, around: Sequence[str] = ()) -> str:
        """Run a stage to its end, which must be good, in a folder that both share; what the first has printed."""
        self.start((folder, folder), module, around)
        assert self.wait() == [0, 0], self.said(0)[-3000:] + self.said(1)[-3000:]
        return self.said(0)

    def until(self, holds: Callable[[], object], seconds: float = 180.0) -> None:
        """Wait for what must come while both run."""
        end = time.monotonic() + seconds
        while not holds():
            assert all(process.poll() is None for process in self.processes), self.said(0)[-3000:]
            assert time.monotonic() < end
            time.sleep(0.05)

    def kill(self, rank: int) -> None:
        """Take all processes of a host, as its system does where it is shut down: their connections are closed."""
        pids = subprocess.run(["ip", "netns", "pids", self.names[rank]], capture_output=True, text=True).stdout
        for pid in pids.split():
            os.kill(int(pid), signal.SIGKILL)

    def pull_the_cable(self) -> None:
        """Lose the connection without a word."""
        ip("-n", self.names[1], "link", "set", CARD, "down")

    def said(self, rank: int) -> str:
        """What a host's launcher and processes have printed."""
        return self.logs[rank].read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        for rank in range(len(self.names)):
            self.kill(rank)
        for process in self.processes:
            process.wait()
