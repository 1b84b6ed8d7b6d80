"""The names that upstream gives its splits, and which of them nothing may be trained on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import PurePath

TRAIN = {"train", "training"}
HELD_OUT = {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"}
# before a suffix and the number of a part: test.jsonl, my_train.csv, validation-00000-of-00002.parquet
FILE = re.compile(rf"(?<![a-z])({'|'.join(sorted(TRAIN | HELD_OUT))})([-_]\d+(-of-\d+)?)?\.")


def is_held_out(name: str) -> bool | None:
    """Whether a split is for validation or testing; None where the name is no split's.

    Its first word counts: test_prefs, train-00000-of-00004.
    """
    word = re.split(r"[^a-z]", name.strip().lower(), maxsplit=1)[0]
    return word in HELD_OUT if word in TRAIN | HELD_OUT else None


def held_out_files(paths: Iterable[str]) -> set[str]:
    """Of several files, those for validation or testing; none where all of them are.

    Their names are test.jsonl, validation-00000.parquet and the like. Where another file is named for training, so are
    my_test.csv (beside my_train.csv) and test/0.csv (beside train/0.csv).
    """
    paths = set(paths)
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    words = {path: _split_words(os.path.relpath(path, folder or ".").lower()) for path in paths}
    training = {path for path in paths if words[path] & TRAIN}
    named = {path for path in paths - training if training and words[path] & HELD_OUT}
    alone = {path for path in paths if (name := FILE.match(PurePath(path).name.lower())) and name[1] in HELD_OUT}
    found = named | alone
    return found if found != paths else set()


def _split_words(path: str) -> set[str]:
    """What of a path may name a split: its folders, and a word at the end of the file's name."""
    *folders, name = PurePath(path).parts
    return {*folders, *(word[1] for word in FILE.finditer(name))}
