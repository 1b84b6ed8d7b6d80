"""What ends an answer: the tokens that a model's generation config lists as EOS.

They are several where a chat template ends a turn with another token than the tokenizer's EOS.

Stage base finds them and writes them down; all else reads them there, as transformers and vLLM do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rlhf_lib.common.rows import Message
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.settled import is_blank
from rlhf_lib.models.templates import TemplateFault, render

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_ANSWER = "1029384756"  # digits, of which a template makes no capitals
_TRIED: tuple[list[Message], ...] = (
    [{"role": "user", "content": "0"}, {"role": "assistant", "content": _ANSWER}],
    [{"role": "system", "content": "0"}, {"role": "user", "content": "0"}, {"role": "assistant", "content": _ANSWER}],
)


class Rendered(NamedTuple):
    """A dialogue as a chat template writes it: up to where the answer begins, whole, and what stands behind that."""

    asked: str
    whole: str
    behind: str

    @property
    def opening(self) -> str:
        """What the template writes between the prompt and what an answer says; nothing where it is not plain."""
        return self.whole.removeprefix(self.asked).partition(_ANSWER)[0] if self.whole.startswith(self.asked) else ""


class NeverEnds(ParamsError):
    """A chat template that ends no answer; whoever knows where the model was named puts it before this."""


def stop_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """The ids of the tokens each of which ends an answer of `model`, which may have adapters around it."""
    return tuple(as_list(model.generation_config.eos_token_id))


def up_to_stop(ids: Sequence[int], stops: Collection[int]) -> tuple[list[int], bool]:
    """`ids` up to and with the first of `stops`, and whether there is one."""
    end = next((place for place, token in enumerate(ids, start=1) if token in stops), None)
    return list(ids[:end]), end is not None


def answer_ends(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None) -> list[int]:
    """The ids of the tokens each of which ends an answer, rising: what the chat template writes behind one, the EOS,
    and what the model's own generation config lists.

    A `NeverEnds` where the template writes no such token: a policy that learns from it would go on for ever.
    """
    listed = as_list(getattr(generation_config, "eos_token_id", None))
    ends = {*listed, tokenizer.eos_token_id, _turn_end(tokenizer)}
    return sorted(token for token in ends if token is not None and 0 <= token < ids_end(tokenizer))


def ids_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the highest id of a token. There may be fewer tokens: some vocabularies leave ids out."""
    return 1 + max(tokenizer.get_vocab().values())


def set_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write what ends an answer into the model's generation config: one id, or the list of several."""
    model.generation_config.eos_token_id = as_config(answer_ends(tokenizer, model.generation_config))


def as_config(ends: list[int]) -> int | list[int]:
    """The ids as transformers writes them: one alone is no list."""
    return ends[0] if len(ends) == 1 else ends


def as_list(ids: int | Iterable[int] | None) -> list[int]:
    """The ids that a config gives as one, as a list, or not at all; what else it gives is none."""
    if ids is None:
        return []
    return [number for number in ([ids] if isinstance(ids, int | str) else ids) if isinstance(number, int)]


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The first token behind an answer that no text is made of; None without a template, or where it refuses a plain
    question with its answer, of which the rows tell."""
    plain = None if tokenizer.chat_template is None else next(plain_dialogues(tokenizer), None)
    if plain is None:
        return None
    behind = plain.behind
    added = tokenizer.added_tokens_decoder
    blank = {token for token, entry in added.items() if is_blank(entry.content)}
    special = {token for token, entry in added.items() if entry.special} | {tokenizer.eos_token_id}
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    for ends in (special - blank, added.keys() - blank):
        if (end := next((token for token in ids if token in ends), None)) is not None:
            return end
    raise NeverEnds(
        f"the chat template of {tokenizer.name_or_path or 'the model'} never ends an answer: behind it stands "
        f"{f'only the text {behind!r}' if behind else 'nothing'}; let the template write {tokenizer.eos_token} behind "
        "an assistant's message, or take it out of the model's files, and the model gets that of this project"
    )


def plain_dialogues(tokenizer: PreTrainedTokenizerBase) -> Iterator[Rendered]:
    """A question with its answer, alone and after a turn of the system, as the template writes them; those that it
    refuses are left out."""
    for messages in _TRIED:
        try:
            asked, whole = render(tokenizer, messages[:-1], add_generation_prompt=True), render(tokenizer, messages)
        except TemplateFault:
            continue
        yield Rendered(asked, whole, whole.rpartition(_ANSWER)[2])
