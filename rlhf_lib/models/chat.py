"""The one chat template, and messages as token ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lib.common.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD = "<|pad|>"
END = "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")


def chat_template(special_tokens: list[str]) -> str:
    """The Jinja template for a tokenizer with these special tokens (the texts that a message must not forge)."""
    template = Path(__file__).with_name("chat.jinja").read_text(encoding="utf-8")
    # filters, unrolled: in transformers' sandbox a loop with method calls takes five times as long
    broken_up = [
        f"| replace({json.dumps(token)}, {json.dumps(token[0] + ' ' + token[1:])})" for token in special_tokens
    ]
    return template.replace("BREAK_UP", " ".join(sorted(broken_up)))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: list[Message]) -> list[int]:
    """Token ids of a prompt, up to where the assistant's answer begins."""
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def dialogue_ids(tokenizer: PreTrainedTokenizerBase, prompt: list[Message], response: str) -> list[int]:
    """Token ids of a prompt and the assistant's answer, ended as the template ends it."""
    messages = [*prompt, {"role": "assistant", "content": response}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def answer_start(prompt: Sequence[int], dialogue: Sequence[int]) -> int:
    """The place of the answer's first token in the dialogue's: where its tokens and the prompt's part, as in TRL."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(prompt, dialogue, strict=False)))


def prompt_and_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: list[Message], response: str, limit: int | None
) -> tuple[list[int], list[int], bool]:
    """Token ids of a prompt and of its answer, and whether the answer is whole.

    A dialogue of more than `limit` tokens loses its end. A prompt that fills it alone leaves one token to the answer,
    so that none is empty.
    """
    dialogue = dialogue_ids(tokenizer, prompt, response)
    kept = dialogue[:limit]
    start = min(answer_start(prompt_ids(tokenizer, prompt), dialogue), len(kept) - 1)
    return kept[:start], kept[start:], len(kept) == len(dialogue)
