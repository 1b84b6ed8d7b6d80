"""Work on rows shared out over the processes that `accelerate launch` started, and gathered in the rows' order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from tqdm import tqdm

from rlhf_lib.common.launching import is_main, num_processes

Item = TypeVar("Item")
Result = TypeVar("Result")

SOON = 2.0  # seconds that work may take without a progress bar


def wait() -> None:
    """Return once every process has come here."""
    if num_processes() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def with_bar(batches: Sequence[Item], progress: str | None) -> Iterable[Item]:
    """The batches, with a progress bar of that name if they take long: not of each process, nor without a name. Below
    another bar it goes when they are done."""
    off = progress is None or not is_main()
    return tqdm(batches, desc=progress, unit="batch", delay=SOON, leave=None, disable=off)


def shared_out(items: Sequence[Item], work: Callable[[list[Item]], Sequence[Result]]) -> list[Result]:
    """`work(items)`, one result an item in the items' order, each process working on its share; all get everything.

    A share is every n-th item of n processes, so that each gets short and long ones. All processes must call this.
    """
    if num_processes() == 1:
        return list(work(list(items)))
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()  # as `machines.join` made it
    places = range(state.process_index, len(items), state.num_processes)
    mine = zip(places, work([items[i] for i in places]), strict=True)
    return [result for _, result in sorted(gather_object(list(mine)), key=lambda found: found[0])]
