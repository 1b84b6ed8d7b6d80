"""Work on a stream in several processes, in order and with flat memory."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING = 3  # items a process, done or to do, that are in memory at once


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], num_proc: int | None = None
) -> Iterator[Result]:
    """`function` of each item, in the order of the items, in `num_proc` processes (None: one per core).

    `function` and the items must be picklable. What `function` raises, `SystemExit` included, is raised here; where the
    system kills a process, a `SystemExit` of one line.
    """
    num_proc = num_proc or _cores()
    items = iter(items)
    first = list(islice(items, 2))
    if num_proc == 1 or len(first) < 2:
        yield from map(function, first)
        yield from map(function, items)
        return
    # not forked: a library that was imported here may have threads, and their locks would be copied as they are
    with ProcessPoolExecutor(num_proc, mp_context=get_context("spawn"), initializer=_begin) as pool:
        with _without_interrupts():  # the first item starts the processes
            waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in first)
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= WAITING * num_proc:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise SystemExit("a worker process was killed, for want of memory as a rule; lower num_proc") from None
        finally:
            # not by cancelling each: Python before 3.11.4 may then wait for them for ever
            pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A context in which Ctrl-C waits, here and in the processes that are started: while they import what they need,
    each would print where it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Let this worker end without a word on Ctrl-C, and as soon as its parent is gone, which may be killed: else it
    would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
