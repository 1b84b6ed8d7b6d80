"""How a stage's process begins and ends: alone at its work, with its DVC, and in one line whatever ends it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import psutil

from rlhf_lib.common import edited
from rlhf_lib.common.dvc_project import cache_fault
from rlhf_lib.common.launching import is_main, num_processes
from rlhf_lib.common.start import FULL, GO_ON, barred

LOCKS = Path(".dvc/tmp/stages")  # in the workspace, as the outs are; a lock holds the id of the process
# Clones in which experiments run: those of DVC's queue, of `dvc exp run --temp`, and of a study.
CLONES = (".dvc/tmp/exps/tmp*", ".dvc/tmp/exps/standalone/tmp*", ".dvc/tmp/study/worker-*")
PATIENCE = 15.0  # seconds: an orphan needs one to see that its DVC is gone, and more on a busy machine
LOOK = 0.5  # seconds between two looks at DVC
GRACE = 5.0  # seconds in which one of several processes ends after a signal; their launcher gives them 30
ENDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
# What ends a stage for a reason that is none of its own.
_FULL_IN_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded")  # of libraries that have no errno
# of PyTorch; the last where cuBLAS and cuDNN find no room for their own work on a GPU
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "STATUS_ALLOC_FAILED",
)
# what PyTorch says where a process that this one computes with has gone; gloo's is on CPUs, NCCL's on GPUs
_ALONE = ("gloo/transport", "ncclRemoteError")
# what PyTorch says where a file could not be written whole
_CUT_OFF = ("PytorchStreamWriter", "unexpected pos", "iostream error")


class Terminated(BaseException):
    """SIGTERM came."""


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`, and end the process.

    Exit code 130 after Ctrl-C, 143 after SIGTERM, 1 where the disk is full or may not be written, each with one line.
    Only one process at a time runs a stage in a workspace; where DVC is killed, the stages that it started end too; one
    whose params or code were edited while it ran fails.
    """
    name, lock, start = _name(), None, time.monotonic()
    try:
        signal.signal(signal.SIGTERM, _terminate)
        if num_processes() > 1:
            _end_in_a_wait(name)
        if "DVC_STAGE" in os.environ:
            if name != "inputs" and (told := cache_fault()):  # that always runs, and seldom makes anew
                raise SystemExit(f"{name}: {told}")
            edited.begin(os.environ["DVC_STAGE"])
            threading.Thread(target=_end_with, args=(_up_to_dvc(), name), daemon=True).start()
        lock = _alone(name)
        main()
        edited.tell()
    except KeyboardInterrupt:
        _end(_ended_by(name, signal.SIGINT), 128 + signal.SIGINT)
    except Terminated:
        _end(_ended_by(name, signal.SIGTERM), 128 + signal.SIGTERM)
    except Exception as error:
        if (told := outer_fault(error)) is None:
            raise
        _end(f"{name}: {told}", 1)
    finally:
        if lock is not None:
            _note_end(lock, time.monotonic() - start, sys.exception())
        # the interpreter's own end has nothing to lose, and would tell of a signal in a traceback: the launcher of
        # several processes sends it to those that end by themselves
        signal.signal(signal.SIGTERM, signal.SIG_DFL if sys.exception() else signal.SIG_IGN)


def outer_fault(error: BaseException) -> str | None:
    """What to say of an error that comes from the disk and not from the code; None for any other."""
    seen: BaseException | None = error
    while seen is not None:
        number, text = getattr(seen, "errno", None), str(seen)
        is_cut_off = any(words in text for words in _CUT_OFF)
        if isinstance(seen, MemoryError) or any(words in text for words in _NO_MEMORY):
            return (
                "not enough memory; lower a batch size (per_device_...), a length or the size of the model: make plan "
                f"says what a stage needs. If other programs have it, end them: {GO_ON}"
            )
        has_no_room = is_cut_off and shutil.disk_usage(".").free < 1 << 20
        if number in FULL or has_no_room or any(words in text for words in _FULL_IN_WORDS):
            return f"the disk is full; free some space: {GO_ON}"
        if number == errno.EFBIG or is_cut_off:
            return f"a file could not be written whole; look at the disk, your quota and ulimit -f: {GO_ON}"
        if any(words in text for words in _ALONE):
            return f"another process of this run has ended, and this ends with it; see what it said: {GO_ON}"
        if line := barred(seen):
            return line
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _name() -> str:
    """Such as sft, or evaluate@ppo: as DVC calls the stage, by the command that runs here."""
    module = sys.modules["__main__"].__spec__
    stage = module.name.rpartition(".")[2] if module else Path(sys.argv[0]).stem
    return "@".join([stage, *(word for word in sys.argv[1:] if not word.startswith("-"))])


def _alone(name: str) -> IO[str] | None:
    """A lock that this process holds for its life, by the first of several processes for all; a `SystemExit` where
    another process has it. None outside a DVC project."""
    if not Path(".dvc").is_dir() or not is_main():
        return None
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = open(LOCKS / f"{name.replace('/', '_')}.lock", "a+", encoding="utf-8")  # noqa: SIM115 -- held open
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                lock.seek(0)
                pid = lock.read().strip()
                raise SystemExit(
                    f"{name}: process {pid}, of an earlier run, is still at work here; wait for it, or kill {pid}"
                ) from None
            time.sleep(0.1)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _note_end(lock: IO[str], seconds: float, error: BaseException | None) -> None:
    """Write into the lock, behind the process's id, how the stage ended and after how long, for `make watch`; let it
    go, whether or not the disk has taken that."""
    code = error.code if isinstance(error, SystemExit) else error and 1
    how = "stopped" if code in (130, 143) else "failed" if code else "done"
    with suppress(OSError), lock:
        lock.write(f"{how} {seconds:.1f}\n")


def _up_to_dvc() -> list[psutil.Process]:
    """The processes from this one's parent up to DVC; none where no DVC is above."""
    above = psutil.Process().parents()
    for place, process in enumerate(above):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(Path(word).name == "dvc" for word in words):
            return above[: place + 1]
    return []


def _end_with(processes: Sequence[psutil.Process], name: str) -> None:
    """End this process as soon as one of those is gone: what it would write, nobody waits for any more."""
    while processes:
        if not all(_lives(process) for process in processes):
            print(f"{name}: DVC was killed, and this ends with it; {GO_ON}", file=sys.stderr, flush=True)
            os._exit(128 + signal.SIGTERM)
        time.sleep(LOOK)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end_in_a_wait(name: str) -> None:
    """End this process by a signal also where it waits for others in a library: Python hears of the signal only once
    that returns, and the others may never come."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        while (number := os.read(reading, 1)[0]) not in ENDS:
            pass
        time.sleep(GRACE)
        print(f"\n{_ended_by(name, number)}", file=sys.stderr, flush=True)
        os._exit(128 + number)

    threading.Thread(target=listen, daemon=True).start()


def _ended_by(name: str, number: int) -> str:
    return f"{name}: {ENDS[signal.Signals(number)]}; {GO_ON}"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _end(line: str, code: int) -> NoReturn:
    """Say a line, behind whatever progress bar stands there, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would be told in a traceback
    with suppress(OSError):
        print(f"\n{line}", file=sys.stderr, flush=True)
    raise SystemExit(code)
