"""The names that upstream gives its splits, and which of them nothing may be trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

TRAIN = {"train", "training"}
HELD_OUT = {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"}
# as a whole, or as a part of one: validation-00000-of-00002.parquet
FILE = re.compile(rf"({'|'.join(sorted(HELD_OUT))})([-_]\d+(-of-\d+)?)?\.")


def is_held_out(name: str) -> bool | None:
    """Whether a split is for validation or testing; None where the name is no split's.

    Its first word counts: test_prefs, train-00000-of-00004.
    """
    word = re.split(r"[^a-z]", name.strip().lower(), maxsplit=1)[0]
    return word in HELD_OUT if word in TRAIN | HELD_OUT else None


def held_out_files(paths: Iterable[str]) -> set[str]:
    """Of several files, those named test.jsonl, validation-00000.parquet and the like; none where all of them are."""
    paths = set(paths)
    found = {path for path in paths if FILE.match(PurePath(path).name.lower())}
    return found if found != paths else set()
