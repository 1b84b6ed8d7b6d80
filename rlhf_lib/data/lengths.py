"""Lengths of answers and dialogues in tokens, and which of them the params hold.

Told before anything trains, by `make data` and `make plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_lib.base.params import BaseParams
from rlhf_lib.check.at_hand import folder
from rlhf_lib.common import paths
from rlhf_lib.common.fitting import MOST, Fit
from rlhf_lib.data import made
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.reward.params import GROUPS

BYTES = 4  # of a token, where there is no tokenizer yet; of English, GPT-2's tokens have 4.2 on average
ESTIMATED = f"estimated, at {BYTES} bytes a token (a word of English is about 1.5), as no tokenizer is at hand yet"
PENALISED = " and penalised"
ANSWERS = "answers"
ROWS = "rows"  # prompt and answer, the longest of several
END = 1  # the token that ends an answer
# what says nothing of a fresh tokenizer
SIZES = tuple(f"base.{key}" for key in ("seed", "n_positions", "n_embd", "n_layer", "n_head"))
OURS = 3  # what the project's template puts around a question and its answer: two roles and the end


class Lengths:
    """Lengths in tokens of the base model's tokenizer where it is at hand, else estimated; `told` says which."""

    def __init__(self, base: BaseParams, prepare: PrepareParams) -> None:
        named = (
            (base.model_name_or_path, base.model_revision),
            (paths.BASE, None),
            (prepare.tokenizer_name_or_path, prepare.tokenizer_revision),
        )
        self.tokenizer: Any = None
        self.told = ESTIMATED
        self.named = folder(base.model_name_or_path, base.model_revision) if base.model_name_or_path else None
        for name, revision in named:
            if name == paths.BASE and made.otherwise(paths.BASE, but=SIZES):
                continue
            place = folder(name, revision, "tokenizer.json") if name else None
            if place and self._read(place / "tokenizer.json"):
                self.told = f"tokens of {name}"
                return

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        if self.tokenizer is None:
            return [-(-len(text.encode(errors="replace")) // BYTES) for text in texts]
        return [len(one.ids) for one in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def around(self) -> int:
        """The tokens that the base model's chat template puts around a question and its answer, with what it says of
        itself, such as a system turn; those of the project's template where the model's is not at hand."""
        if self.named is None:
            return OURS
        from transformers import AutoTokenizer

        from rlhf_lib.models.settled import adds_bos, settle
        from rlhf_lib.models.stops import plain_dialogues

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.named, trust_remote_code=False, local_files_only=True)
        except Exception:  # the libraries raise whatever they like; stage base says what is wrong with the files
            return OURS
        if tokenizer.chat_template is None:
            return OURS + adds_bos(tokenizer)
        settle(tokenizer)
        plain = next(plain_dialogues(tokenizer), None)
        if plain is None:
            return OURS
        asked, behind = (
            len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (plain.asked, plain.behind)
        )
        return asked - 1 + behind  # less the question, a digit

    def _read(self, file: Path) -> bool:
        if not file.is_file():
            return False
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(str(file))
        except Exception:  # the library raises plain Exception; stage base says what is wrong with the file
            return False
        self.tokenizer.no_truncation()  # which a tokenizer.json may have
        self.tokenizer.no_padding()
        return True


def answers(record: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """(text, score) of every answer in a record of any split."""
    for response in record.get("responses", ()):
        yield response["content"], response["score"]
    for key in ("completion", "chosen", "rejected"):
        if key in record:
            yield record[key][-1]["content"], record.get(f"score_{key}", record.get("label"))


def measure(record: Mapping[str, Any], length: Lengths) -> tuple[int, list[int]]:
    """The tokens of a record's prompt, and of each of its answers."""
    prompt = "\n".join(message["content"] for message in record["prompt"])
    asked, *answered = length([prompt, *(text for text, _ in answers(record))])
    return asked, answered


class Limit(NamedTuple):
    """A param that bounds the answers, or the dialogues, of a split; `lost` is what becomes of longer ones."""

    param: str
    tokens: int
    split: str
    what: str
    lost: str


def limits(sections: Mapping[str, Any]) -> Iterator[Limit]:
    """Every param that bounds answers of the kind that SFT teaches, or dialogues to learn from."""
    ppo, reward, negatives = sections["ppo"], sections["reward"], sections["negatives"]
    cut_off = "would be cut off"
    penalised = "" if ppo.missing_eos_penalty is None else PENALISED
    if sections["methods"].ppo:
        yield Limit("ppo.response_length", ppo.response_length, "sft_train", ANSWERS, cut_off + penalised)
    if sections["methods"].rft:
        candidates = sections["candidates"].max_new_tokens
        yield Limit("candidates.max_new_tokens", candidates, "sft_train", ANSWERS, f"{cut_off}, and so not learnt from")
    evaluated, in_both = sections["evaluate"].max_new_tokens, f"{cut_off}, in best_of_n too"
    yield Limit("evaluate.max_new_tokens", evaluated, "sft_train", ANSWERS, in_both)
    if negatives.model_name_or_path is not None:
        yield Limit("negatives.max_new_tokens", negatives.max_new_tokens, "sft_train", ANSWERS, cut_off)
    yield Limit("sft.max_length", sections["sft"].max_length, "sft_train", ROWS, "lose their end")
    of_reward = "groups_train" if reward.kind in GROUPS else "reward_train"
    for name, split in (("reward", of_reward), ("judge", "judge_train")):
        yield Limit(f"{name}.max_length", sections[name].max_length, split, ROWS, "are dropped")
    yield Limit("reference.max_length", sections["reference"].max_length, "preference_train", ROWS, "lose their end")
    if sections["methods"].kto:
        yield Limit("kto.max_length", sections["kto"].max_length, "thumbs_train", ROWS, "lose their end")


Measured = Mapping[str, Mapping[str, Sequence[int]]]  # of each split, the lengths of its answers and its rows


def fits(sections: Mapping[str, Any], measured: Measured, around: int = END) -> list[tuple[Limit, Fit]]:
    """What each limit does to the lengths of its split, in so far as they were measured.

    around: what the chat template adds to a row (`Lengths.around`); to an answer, it is the token that ends it.
    """
    found = []
    for limit in limits(sections):
        if lengths := measured.get(limit.split, {}).get(limit.what):
            more = around if limit.what == ROWS else END
            found.append((limit, Fit.of((length + more for length in lengths), limit.tokens)))
    return found


def told(sections: Mapping[str, Any], measured: Measured, around: int = END) -> Iterator[str]:
    """The lines on what the params hold, and on what to do where that is less than 95 %; none without rows.

    around: as in `fits`.
    """
    found = fits(sections, measured, around)
    if found:
        yield f"What the params hold, in tokens; {around} of a row are the chat template's:"
        yield f"  {'':26}{'tokens':>8}{'longer':>9}{f'{100 * MOST:.0f} % need':>11}   of"
    for limit, fit in found:
        of = f"{fit.rows:,} {limit.what} of {limit.split}" + (f": {limit.lost}" if fit.longer else "")
        yield f"  {limit.param:26}{limit.tokens:>8,}{_percent(fit):>9}{fit.enough:>11,}   {of}"
    for limit, fit in found:
        if not fit.holds_most:
            yield f"  {advice(limit, fit)}"


def advice(limit: Limit, fit: Fit) -> str:
    """What a limit does to what is longer, and what to do about it."""
    if limit.what == ROWS:
        return f"{limit.param}: {_percent(fit)} of the rows are longer, and {limit.lost}; raise it to {fit.enough:,}"
    first = ": PPO would learn brevity first" if limit.lost.endswith(PENALISED) else ""
    return (
        f"{limit.param}: {_percent(fit)} of the answers that SFT teaches are longer, and {limit.lost}{first}; raise it "
        f"to {fit.enough:,}, or teach shorter ones (prepare.max_response_tokens)"
    )


def _percent(fit: Fit) -> str:
    return "0 %" if fit.longer == 0 else "< 1 %" if fit.share < 0.01 else f"{100 * fit.share:.0f} %"
