"""Work in chunks, and what it has made so far, in a file that outlives a kill: a line of JSON for each chunk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from rlhf_lib.common.launching import is_main

Item = TypeVar("Item")


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` consecutive items, the last one shorter."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def work_through(
    items: Sequence[Item],
    size: int,
    work: Callable[[Sequence[Item]], list[Any]],
    file: Path | None,
    name: str,
    unit: str,
) -> list[Any]:
    """What `work` makes of the items, `size` at a time: for each item, in their order, a value that JSON has.

    `file` gets the values as they come. Those that a killed run with the same items left there are kept. A progress bar
    of that `name` counts items, each a `unit`. Of several processes all must call this; the first writes and tells.
    """
    found = [value for chunk in saved(file) for value in chunk] if file else []
    first = len(found)
    if first and is_main():
        print(f"resuming after {first} of {len(items)} {unit}s", flush=True)
    with tqdm(total=len(items), initial=first, desc=name, unit=unit, disable=not is_main()) as bar:
        for chunk in chunks(items[first:], size):
            values = work(chunk)
            if file and is_main():
                append(file, values)
            found += values
            bar.update(len(values))
    return found


def saved(file: Path) -> Iterator[Any]:
    """The value of each whole line of `file`, which is made where there is none.

    Half a line, which a kill left, is cut off once the others were read, by the process that writes.
    """
    whole = 0
    file.touch()
    with open(file, "r+b") as log:
        for line in log:
            if not line.endswith(b"\n"):
                break
            yield json.loads(line)
            whole += len(line)
        if is_main():
            log.truncate(whole)


def append(file: Path, value: Any) -> None:
    """Add a line."""
    with open(file, "a", encoding="utf-8") as log:
        log.write(json.dumps(value) + "\n")
