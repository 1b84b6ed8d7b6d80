"""Chat templates at work, in bounded time and memory: they are programs that come with a model.

Jinja's sandbox, in which transformers runs them, keeps them from files and from Python's insides, but not from loops
without end or texts without limit.
"""

from __future__ import annotations

import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rlhf_lib.common.rows import Message
from rlhf_lib.common.yaml import ParamsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 5.0  # of processor time for a dialogue, which takes a template less than a thousandth of it
MEMORY = 1 << 30  # bytes
AROUND = 1_000_000  # characters around the messages, or ten times the messages


class Unruly(ParamsError):
    """A chat template that no dialogue can go through; whoever knows where the model was named puts it before this."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, fault: str) -> None:
        name = tokenizer.name_or_path or "the model"
        way_out = "mend it (chat_template.jinja), take it out of the model's files, or name another model"
        super().__init__(f"the chat template of {name} {fault}; {way_out}")


class _OutOfTime(BaseException):
    """The processor time is over; no error, for Jinja goes on after those of what it computes in advance."""


def apply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    """The messages as the tokenizer's chat template writes them.

    An `Unruly` where it does not end, or takes the memory; else whatever error the template raises.
    """
    try:
        with _bounds():
            text = str(
                tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
    except _OutOfTime:
        fault = f"does not end within {SECONDS:g} seconds"
    except MemoryError:
        fault = f"takes more than {MEMORY >> 30} GiB of memory"
    else:
        said = sum(len(message["content"]) for message in messages)
        if len(text) <= AROUND + 10 * said:
            return text
        fault = f"makes {len(text):,} characters of messages of {said:,}"
    raise Unruly(tokenizer, fault)


@contextmanager
def _bounds() -> Iterator[None]:
    """A context that raises `_OutOfTime` or `MemoryError` where too much is taken in it.

    Signals come to the main thread alone, and Linux alone can limit a process's memory: elsewhere there is no bound.
    """
    in_time = threading.current_thread() is threading.main_thread()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    try:
        if in_time:
            handler = signal.signal(signal.SIGPROF, _stop)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
        if sys.platform == "linux":
            most = _size() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (most if limits[0] < 0 else min(most, limits[0]), limits[1]))
        yield
    finally:
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, limits)
        if in_time:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            signal.signal(signal.SIGPROF, handler)


def _size() -> int:
    """Bytes of address space that this process has."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _stop(number: int, frame: FrameType | None) -> None:
    raise _OutOfTime
