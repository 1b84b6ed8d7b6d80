"""The stage that runs, in a terminal: how far it is, its curves, its speed, its memory, and how long it will take.

python -m rlhf_lib.watch           until Ctrl-C, also between stages and before the first
python -m rlhf_lib.watch --once    as it is now
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rlhf_lib.watch.drawing import BLOCKS, PLAIN
from rlhf_lib.watch.found import stages
from rlhf_lib.watch.view import WIDEST, view

_UP, _CLEAR = "\x1b[{}A", "\r\x1b[J"  # so many lines; from here to the end


def signs() -> str:
    """The signs that standard output can show."""
    try:
        BLOCKS.encode(sys.stdout.encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return BLOCKS


def watch(root: Path, interval: float) -> None:
    """Show it anew every so many seconds: in place on a terminal; else as blocks, where something has changed."""
    on_terminal, shown = sys.stdout.isatty() and os.environ.get("TERM") != "dumb", 0
    before: object = None
    while True:
        columns, rows = shutil.get_terminal_size((WIDEST, 1000))
        found = stages(root)
        if on_terminal:
            lines = view(found, root, columns - 1, signs())[: rows - 1]
            sys.stdout.write((_UP.format(shown) if shown else "") + _CLEAR + "".join(f"{line}\n" for line in lines))
            shown = len(lines)
        elif (now := [(stage.name, stage.folder, stage.end, stage.status().get("done")) for stage in found]) != before:
            before = now
            print(*view(found, root, columns, signs()), "", sep="\n")
        sys.stdout.flush()
        time.sleep(interval)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.watch", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--once", action="store_true", help="print it as it is now, and end")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="between two looks (1; 10 into a file)")
    chosen, root = parser.parse_args(arguments), Path()
    if not (root / ".dvc").is_dir():
        raise SystemExit("no project here: there is no folder .dvc; start this in the project's folder")
    interval = chosen.interval if chosen.interval is not None else 1.0 if sys.stdout.isatty() else 10.0
    if not 0 < interval <= 3600:
        raise SystemExit(f"--interval: must be from 0 to 3600 seconds, got {interval:g}")
    if chosen.once:
        print(*view(stages(root), root, shutil.get_terminal_size((WIDEST, 0)).columns, signs()), sep="\n")
        return
    try:
        watch(root, interval)
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
