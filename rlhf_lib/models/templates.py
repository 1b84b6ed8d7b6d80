"""Messages through a chat template, and what a template refuses, told in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lib.common.rows import Message, read_values
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.bounded import apply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a message may say: signs that are easily taken for others, and so much that a cut is seen.
_PROBE = f"""a < b & "c" > 'é'\n中 {"0 " * 2_000}"""
_WAY_OUT = "leave such rows out of the sources, or name a model whose template takes them"


class TemplateFault(ParamsError):
    """A chat template that refuses messages, or loses their text; whoever knows the row puts it before this."""


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """The messages as the tokenizer's chat template writes them.

    A `TemplateFault` where the template raises, or leaves out what a message of such roles says.
    """
    roles = tuple(message["role"] for message in messages)
    if told := _refusal(tokenizer, str(tokenizer.chat_template), roles, add_generation_prompt):
        raise TemplateFault(told)
    try:
        return apply(tokenizer, messages, add_generation_prompt)
    except Exception as error:
        raise TemplateFault(_told(tokenizer, roles, f"fails: {_one_line(error)}")) from None


def check_rows(tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Sequence[Message]], file: str) -> None:
    """A `ParamsError` that names file and row where the template refuses the roles of a prompt, or of its answer.

    It is the roles that are tried, each pattern of them once.
    """
    if tokenizer.chat_template is None:
        return  # an encoder's: rows are pairs of texts
    template = str(tokenizer.chat_template)
    for number, prompt in enumerate(prompts, start=1):
        roles = tuple(message["role"] for message in prompt)
        asked = _refusal(tokenizer, template, roles, True)
        if told := asked or _refusal(tokenizer, template, (*roles, "assistant"), False):
            raise ParamsError(f"{file}: row {number}: {told}")


def check_file(path: str | Path, *tokenizers: PreTrainedTokenizerBase) -> None:
    """`check_rows` of a JSON Lines file of rows with a `prompt`, by the template of each tokenizer."""
    prompts = [row["prompt"] for row in read_values(path)]
    for tokenizer in tokenizers:
        check_rows(tokenizer, prompts, str(path))


def fault(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why the template serves no question with its answer, neither alone nor after a system's turn; None where it
    does."""
    template, told = str(tokenizer.chat_template), None
    for first in (("system", "user"), ("user",)):
        asked = _refusal(tokenizer, template, first, True)
        told = asked or _refusal(tokenizer, template, (*first, "assistant"), False)
        if told is None:
            return None
    return told


@contextmanager
def of_row(file: str, number: int) -> Iterator[None]:
    """A context that renders row `number`, from 1, of a file: what a template refuses becomes a `ParamsError` that
    says so."""
    try:
        yield
    except TemplateFault as fault:
        raise ParamsError(f"{file}: row {number}: {fault}") from None


@lru_cache(maxsize=512)
def _refusal(
    tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[str, ...], add_generation_prompt: bool
) -> str | None:
    """Why the template cannot serve messages of these roles; None where it can.

    It is tried with a text of its own in each message, which has nothing that a template may well take out of texts
    (space around them, thoughts of old turns). `template` is here for the cache: a tokenizer's can be changed.
    """
    texts = [f"W{number}w {_PROBE} w{number}W" for number in range(len(roles))]
    messages = [Message(role=role, content=text) for role, text in zip(roles, texts, strict=True)]
    try:
        written = apply(tokenizer, messages, add_generation_prompt)
    except Exception as error:
        return _told(tokenizer, roles, f"refuses them: {_one_line(error)}")
    lost = next((number for number, text in enumerate(texts) if text not in written), None)
    if lost is None:
        return None
    does = "changes" if f"w{lost}w" in written.casefold() else "leaves out"
    return _told(tokenizer, roles, f"{does} the text of message {lost + 1} ({roles[lost]})")


def _told(tokenizer: PreTrainedTokenizerBase, roles: tuple[str, ...], what: str) -> str:
    template = f"the chat template of {tokenizer.name_or_path or 'the model'}"
    return f"messages of the roles {', '.join(roles)}: {template} {what}; {_WAY_OUT}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
