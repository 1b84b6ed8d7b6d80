"""Several processes at one stage: how they come together; on several machines, each shows the others that it is alive,
and all see one folder.

A machine whose processes end closes its connections, and the others' next collective call says so. One that loses its
power or its network closes nothing: the others would wait for it until the collective call's timeout, 30 minutes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from rlhf_lib.common.launching import is_main, num_processes
from rlhf_lib.common.start import GO_ON
from rlhf_lib.common.yaml import ParamsError

BEAT = 5.0  # seconds between two signs of life
PATIENCE = 24  # beats without a sign, after which a machine is lost
# How long a process waits in a collective call for the others, one of which may write a large model or encode all rows.
# Trainer's ddp_timeout, by default; NCCL's own is 10 minutes.
WAITS = timedelta(minutes=30)
_DONE = 1 << 40  # more signs of life than there are in a run


def count() -> int:
    """On how many machines `accelerate launch` started this stage."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))  # torchrun's, as are the others here


def join(on_cpu: bool) -> None:
    """Make the group in which the processes of this stage compute together, where there are several.

    Trainer would make one too, and so would the first that is gathered: not all of them for this device, and with this
    patience.
    """
    if num_processes() > 1:
        from accelerate import PartialState

        PartialState(cpu=on_cpu, timeout=WAITS)


def watch() -> None:
    """Look after the other machines from now on, where there are some, and end this process when one is lost.

    One process of each machine does so; the launcher ends those beside it. It talks to the store by which the
    launchers found one another: machine 0's holds it.
    """
    if count() > 1 and os.environ["LOCAL_RANK"] == "0":
        _Watch(int(os.environ["GROUP_RANK"]), count())


class _Watch:
    """Signs of life are counted in the store, a count for each machine; two threads, for the store may not answer.

    Time is counted in beats of this process, so that one which had no processor for a while finds nobody lost.
    """

    def __init__(self, own: int, machines: int) -> None:
        from torch.distributed import TCPStore

        self.own, self.counts = own, [0] * machines
        self.silent = [0] * machines  # beats since a machine's last sign
        self.store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        atexit.register(self._show, _DONE)
        for work in (self._listen, self._judge):
            threading.Thread(target=work, daemon=True).start()

    def _show(self, signs: int) -> None:
        with suppress(RuntimeError):  # the store is gone, and `_judge` says so
            self.store.add(f"machine/{self.own}", signs)

    def _listen(self) -> None:
        while True:
            self._show(1)
            for machine, before in enumerate(self.counts):
                try:
                    self.counts[machine] = self.store.add(f"machine/{machine}", 0)
                except RuntimeError:
                    return
                if self.counts[machine] != before:
                    self.silent[machine] = 0
            time.sleep(BEAT)

    def _judge(self) -> None:
        """A machine that is still starting has given no sign, and one that has ended gives no more: neither is lost.

        Where the store does not answer, no machine is heard, and it is the first that is lost.
        """
        while True:
            time.sleep(BEAT)
            self.silent = [beats + 1 for beats in self.silent]
            lost = [m for m, beats in enumerate(self.silent) if beats > PATIENCE and 0 < self.counts[m] < _DONE]
            if lost and self.counts[0] < _DONE:
                _end(0 if self.own in lost else lost[0])


def _end(machine: int) -> NoReturn:
    print(
        f"\nmachine {machine} has given no sign of life for {BEAT * PATIENCE:.0f} s, and this ends with it; {GO_ON}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def check_folder(folder: Path) -> None:
    """A `ParamsError` where a machine does not see what the first one writes into `folder`. All processes call this.

    Each machine would go on from checkpoints of its own, and so in another step.
    """
    if count() == 1:
        return
    from accelerate.utils import broadcast_object_list, gather_object

    (name,) = broadcast_object_list([f".seen-{uuid.uuid4().hex}"])
    if is_main():
        (folder / name).touch()
    broadcast_object_list([None])  # it is written
    seen = gather_object([(folder / name).exists()])
    if is_main():
        (folder / name).unlink()
    if not all(seen):
        machine = seen.index(False) // int(os.environ["LOCAL_WORLD_SIZE"])
        raise ParamsError(
            f"{folder}: machine {machine} does not see what machine 0 writes there; start the stage on all machines in "
            "one folder that they share"
        )
