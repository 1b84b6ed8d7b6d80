"""The one chat template, and messages as token ids."""

from __future__ import annotations

import json
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
