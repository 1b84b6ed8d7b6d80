"""Params with some values changed, what the check says of them, and small rows and models for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shipped_params import shipped
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf_lib.base.model import fresh_tokenizer
from rlhf_lib.check import __main__ as command

TEXTS = [f"Name {n} things that are larger than a house, please." for n in range(40)]


def with_values(changes: dict[str, Any]) -> dict[str, Any]:
    params = shipped()
    for name, value in changes.items():
        section, _, key = name.partition(".")
        params[section][key] = value
    return params


def told(changes: dict[str, Any]) -> list[str]:
    """The faults of the shipped params with some values changed, less the file's name."""
    found, _ = command.check(with_values(changes))
    assert all(text.startswith("params.yaml: ") and text.isprintable() for text in found)
    return [text.removeprefix("params.yaml: ") for text in found]


def write_rows(number: int, words: int = 5, word: str = "good") -> dict[str, Any]:
    """A file of preference rows, and the change that makes it the source."""
    pairs = ((f"{word} " * words + str(n), "bad " * words + str(n)) for n in range(number))
    rows = [{"prompt": f"Tell me of {n}.", "chosen": one, "rejected": other} for n, (one, other) in enumerate(pairs)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"load.sources": [{"reader": "file", "path": "rows.jsonl"}]}


def save_model(path: str, **config: Any) -> str:
    tokenizer = fresh_tokenizer(TEXTS, 300)
    sizes = {"n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 200, "vocab_size": len(tokenizer), **config}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
