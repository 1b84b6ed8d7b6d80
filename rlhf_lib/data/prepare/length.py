"""Lengths in tokens of a given tokenizer, and texts cut to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rlhf_lib.common.hub import explain, one_line, patiently
from rlhf_lib.common.rows import Message
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError


class Tokens:
    """Counts a tokenizer's tokens; the few that a chat template adds are not counted."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def count(self, prompt: Sequence[Message]) -> int:
        """The tokens of all messages."""
        return sum(len(self._spans(message["content"])) for message in prompt)

    def count_text(self, text: str) -> int:
        """The tokens of a text."""
        return len(self._spans(text))

    def head(self, text: str, limit: int) -> str:
        """The beginning of a text, at most `limit` tokens."""
        spans = self._spans(text)
        ends = [start for start, _ in spans[limit::-1]]
        return text if len(spans) <= limit else self._first_that_fits((text[:end].strip() for end in ends), limit)

    def tail(self, text: str, limit: int) -> str:
        """The end of a text, at most `limit` tokens."""
        spans = self._spans(text)
        starts = [end for _, end in spans[-limit - 1 :]]
        return text if len(spans) <= limit else self._first_that_fits((text[start:].strip() for start in starts), limit)

    def _first_that_fits(self, cuts: Iterable[str], limit: int) -> str:
        """Of a text cut shorter and shorter: a token may be several once its neighbour is gone."""
        return next(cut for cut in cuts if self.count_text(cut) <= limit)

    def fit(self, prompt: Sequence[Message], limit: int) -> list[Message]:
        """The end of a dialogue: whole messages are left out from its start, then the question loses its own.

        What remains begins with a message of the user, or with the system's, which goes last of all.
        """
        system = [message for message in prompt if message["role"] == "system"]
        turns = [message for message in prompt if message["role"] != "system"]
        while len(turns) > 1 and self.count(system + turns) > limit:
            turns = turns[1:]
            while turns[0]["role"] != "user":
                turns = turns[1:]
        if self.count(system + turns) > limit:
            system = []
        question = turns[-1]
        if len(turns) == 1:
            question = Message(role=question["role"], content=self.tail(question["content"], limit))
        return [*system, *turns[:-1], question]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = self.tokenizer.encode(text, add_special_tokens=False).offsets
        return spans


def tokenizer_file(name_or_path: str, revision: str | None) -> str:
    """The tokenizer.json of a directory or of a hub model; a `ParamsError` where there is none."""
    where = f"{PARAMS_FILE}: prepare.tokenizer_name_or_path"
    if os.path.isdir(name_or_path):
        return str(Path(name_or_path) / "tokenizer.json")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(patiently(lambda: hf_hub_download(name_or_path, "tokenizer.json", revision=revision)))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        reason = explain(error, name_or_path, revision, "model", "give a directory") or one_line(error)
        raise ParamsError(f"{where}: no directory {name_or_path!r}, and from the hub: {reason}") from None


@cache
def load_tokens(name_or_path: str, revision: str | None) -> Tokens:
    """The tokens of that tokenizer; a `ParamsError` where it is none."""
    from tokenizers import Tokenizer

    file = tokenizer_file(name_or_path, revision)
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:  # the library raises plain Exception
        raise ParamsError(
            f"{PARAMS_FILE}: prepare.tokenizer_name_or_path: {file} is not a tokenizer ({one_line(error)}); "
            "name a model that has a tokenizer.json"
        ) from None
    # a tokenizer.json may say that it cuts or pads
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Tokens(tokenizer)
