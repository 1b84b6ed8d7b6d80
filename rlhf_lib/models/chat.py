"""The one chat template, and messages as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lib.common.rows import Message
from rlhf_lib.models.beginnings import in_common
from rlhf_lib.models.stops import plain_dialogues
from rlhf_lib.models.templates import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD = "<|pad|>"
END = "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")


def chat_template() -> str:
    """The Jinja template of a model that brings none; `settle` adds what every template gets."""
    return Path(__file__).with_name("chat.jinja").read_text(encoding="utf-8")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> list[int]:
    """Token ids of a prompt, up to where the assistant's answer begins."""
    return list(_prompt_ids(tokenizer, len(tokenizer), str(tokenizer.chat_template), hashable(prompt)))


def hashable(prompt: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """A prompt as what may be a key: role and content of each message."""
    return tuple((message["role"], message["content"]) for message in prompt)


@lru_cache(maxsize=2)  # the answers to a prompt come one after the other
def _prompt_ids(
    tokenizer: PreTrainedTokenizerBase, size: int, template: str, messages: tuple[tuple[str, str], ...]
) -> tuple[int, ...]:
    """`prompt_ids`, where tokens may be added to a tokenizer, and its template be another."""
    prompt = [Message(role=role, content=content) for role, content in messages]
    return tuple(_ids(tokenizer, render(tokenizer, prompt, add_generation_prompt=True)))


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that a policy writes before what an answer says, where its special tokens have words between them, as
    the channel's name in `<|channel|>final<|message|>`; none of other templates."""
    return () if tokenizer.chat_template is None else _opening_ids(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=16)
def _opening_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[int, ...]:
    """`opening_ids`; the template is here for the cache, as a tokenizer's may be changed."""
    plain = next(plain_dialogues(tokenizer), None)
    ids = tuple(_ids(tokenizer, plain.opening)) if plain else ()
    special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return ids if special & set(ids) else ()


def last_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int], room: int) -> list[int]:
    """The last `room` tokens of a dialogue, or all where `room` is 0; a BOS token with which it begins stays first."""
    if not room or len(ids) <= room:
        return ids
    if room > 1 and ids[0] == tokenizer.bos_token_id:
        return [ids[0], *ids[1 - room :]]
    return ids[-room:]


def dialogue_ids(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], response: str) -> list[int]:
    """Token ids of a prompt and the assistant's answer, ended as the template ends it."""
    return _ids(tokenizer, render(tokenizer, [*prompt, Message(role="assistant", content=response)]))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def dialogue_and_start(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], response: str
) -> tuple[list[int], int]:
    """Token ids of a prompt and its answer, and the place of the answer's first token.

    They begin with the tokens of the prompt, from which a policy samples: what is learnt must follow on these. Some
    templates write something else before an answer: they end the prompt with more, such as an empty block of thoughts
    or the beginning of one, or write an earlier turn otherwise once an answer follows. Of their dialogue, the answer
    alone is taken.
    """
    prompted, dialogue = prompt_ids(tokenizer, prompt), dialogue_ids(tokenizer, prompt, response)
    shared = in_common(prompted, dialogue)
    if shared == len(prompted):
        return dialogue, shared
    asked = render(tokenizer, prompt, add_generation_prompt=True)
    whole = render(tokenizer, [*prompt, Message(role="assistant", content=response)])
    if whole.startswith(asked):
        # the answer's first characters were read into the prompt's last token, as a blank line into a line's end
        answer = _continuing(tokenizer, prompted, whole.removeprefix(asked), dialogue)
        return (dialogue, shared) if answer is None else ([*prompted, *answer], len(prompted))
    other = dialogue_ids(tokenizer, prompt, "x" if response.lstrip()[:1].lower() == "y" else "y")
    if in_common(prompted, other) != shared:
        # this answer begins as the prompt ends, as thoughts behind a block of none
        return dialogue, shared
    return [*prompted, *dialogue[in_common(dialogue, other) :]], len(prompted)


def _continuing(
    tokenizer: PreTrainedTokenizerBase, prompted: list[int], text: str, dialogue: list[int]
) -> list[int] | None:
    """The tokens of a text behind those of the prompt, which together say what the dialogue says; None where a
    tokenizer, such as one that puts a space before every text, gives none."""
    said = tokenizer.decode(dialogue, clean_up_tokenization_spaces=False)
    for before in ("", str(tokenizer.eos_token), "\n"):
        first, ids = _ids(tokenizer, before), _ids(tokenizer, before + text)
        answer = ids[len(first) :]
        together = tokenizer.decode([*prompted, *answer], clean_up_tokenization_spaces=False)
        if ids[: len(first)] == first and together == said:
            return answer
    return None


def pair_and_start(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answers: tuple[str, str]
) -> tuple[list[list[int]], int]:
    """Token ids of a prompt with each of two answers, and the place where the answers begin in both."""
    dialogues, starts = zip(*(dialogue_and_start(tokenizer, prompt, answer) for answer in answers), strict=True)
    return list(dialogues), min(starts)


def prompt_and_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], response: str, limit: int | None
) -> tuple[list[int], list[int], bool]:
    """Token ids of a prompt and of its answer, and whether the answer is whole.

    A dialogue of more than `limit` tokens loses its end. A prompt that fills it alone leaves one token to the answer,
    so that none is empty.
    """
    dialogue, start = dialogue_and_start(tokenizer, prompt, response)
    kept = dialogue[:limit]
    start = min(start, len(kept) - 1)
    return kept[:start], kept[start:], len(kept) == len(dialogue)
