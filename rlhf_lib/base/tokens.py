"""Special tokens that a pretrained model never saw, and the embeddings that they start from.

A token that was added, or that was reserved and never trained, has a row like that of every other such token: the model
cannot tell `<|user|>` from `<|assistant|>`, and LoRA, which leaves embeddings alone, never teaches it to. So such a
token starts near the words in its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.loading import only_errors
from rlhf_lib.models.stops import as_list, ids_end, plain_dialogues

Started: TypeAlias = dict[str, str]  # by token, what its row was made from

# Rows that are closer than this share of their spread say the same to the model.
_APART = 0.01
_SOME = 4096  # rows by which the spread is estimated


def add_special_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Mapping[str, str | list[str]], seed: int
) -> Started:
    """Add, in place, the tokens that the tokenizer does not have, and start their rows. A `ParamsError` where it cannot
    take them.

    tokens: what the tokenizer's method of this name takes. seed: of the rows that the model lacks, and that no token
    gets: they are drawn close to the mean of all.
    """
    known = set(tokenizer.get_vocab())
    _check_room(
        tokenizer,
        {name for names in tokens.values() for name in ([names] if isinstance(names, str) else names)} - known,
    )
    tokenizer.add_special_tokens(dict(tokens))
    if ids_end(tokenizer) > model.get_input_embeddings().num_embeddings:
        set_seed(seed)
        with only_errors():  # it tells how it draws the rows, which is not how those of tokens start here
            model.resize_token_embeddings(ids_end(tokenizer), pad_to_multiple_of=64)
    new = sorted(number for token, number in tokenizer.get_added_vocab().items() if token not in known)
    return _start(model, tokenizer, new, new, set())


def _check_room(tokenizer: PreTrainedTokenizerBase, new: Collection[str]) -> None:
    """A `ParamsError` where a new token would have another id once the tokenizer was saved: the library counts the
    tokens that there are, and some vocabularies leave ids out."""
    end, count = ids_end(tokenizer), len(tokenizer)
    if new and end > count:
        raise ParamsError(
            f"{tokenizer.name_or_path or 'the model'}: its tokenizer leaves ids out (it has {count:,} tokens and ids "
            f"up to {end - 1:,}), so that {', '.join(sorted(new))} cannot be added; name tokens that it has, as "
            "pad_token (not the EOS) in its tokenizer_config.json and in a chat template, or name another model"
        )


def start_untrained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Started:
    """Start, in place, the rows of the tokens that the chat template writes and the model never read, such as those
    that Llama-3's base model reserves."""
    written, ends = _written(tokenizer)
    unread = _untrained(model.get_input_embeddings().weight, sorted(written))
    head = model.get_output_embeddings()
    # An end is often said and never read: what follows it belongs to no answer.
    unsaid = [] if head is None else _untrained(head.weight, unread)
    return _start(model, tokenizer, unread, unsaid, ends)


def _written(tokenizer: PreTrainedTokenizerBase) -> tuple[set[int], set[int]]:
    """The added tokens that the chat template writes, and those of them that it writes after an answer."""
    added = set(tokenizer.added_tokens_decoder)
    written: set[int] = set()
    ends: set[int] = set()
    for dialogue in plain_dialogues(tokenizer):
        written |= added.intersection(_ids(tokenizer, dialogue.asked) + _ids(tokenizer, dialogue.whole))
        ends |= added.intersection(_ids(tokenizer, dialogue.behind))
    return written, ends


@torch.no_grad()
def _untrained(table: Tensor, tokens: Sequence[int]) -> list[int]:
    """Those of the tokens whose row is 0, or that of another token."""
    some = table[:: max(1, len(table) // _SOME)]
    near = _APART * (some - some.mean(0)).norm(dim=1).median()
    found = []
    for token in tokens:
        distances = (table - table[token]).norm(dim=1)
        distances[token] = table[token].norm()
        if distances.min() < near:
            found.append(token)
    return found


@torch.no_grad()
def _start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    unread: Sequence[int],
    unsaid: Sequence[int],
    ends: set[int],
) -> Started:
    """Start the rows by which the `unread` tokens are read, and the `unsaid` ones said.

    Read: half-way from the mean of all rows to the words, so that a role is like its word and yet is not the word.
    Said: from the mean, for a role must not come to be said. Its logit is then the mean of V logits, and its
    probability at most 1/V (Jensen). Where one row serves both, a role is said with at most sqrt(p/V), p being the
    probability of its words: 0.4 % of 50,000 tokens for words that are certain.
    An end must be said, and LoRA cannot raise a logit that is the mean of all. It starts as the EOS, which ended texts
    so far, and leans to its words, so that the two are not one.
    """
    if not unread:
        return {}
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    said = table if head is None else head.weight
    mean, mean_said, eos = _mean(table, unread), _mean(said, unsaid), _eos(model, tokenizer, unread)
    started = {}
    for token in unread:
        name = str(tokenizer.convert_ids_to_tokens(token))
        words = _words(tokenizer, name, unread)
        table[token] = (mean + _mean_of(table, words, mean)) / 2
        if token in unsaid and said is not table:
            said[token] = mean_said
        started[name] = f"half-way from the mean to {_text(tokenizer, words)!r}" if words else "the mean"
        if head is not None and token in unsaid and token in ends and eos is not None:
            said[token] = said[eos] + (_mean_of(said, words, mean_said) - mean_said) / 10
            started[name] += f", to be said like {tokenizer.convert_ids_to_tokens(eos)}"
    return started


def _mean(table: Tensor, but: Sequence[int]) -> Tensor:
    """(D,) the mean of the rows of a table (V, D), but for those."""
    return (table.sum(0) - table[list(but)].sum(0)) / (len(table) - len(but))


def _mean_of(table: Tensor, rows: Sequence[int], otherwise: Tensor) -> Tensor:
    return table[list(rows)].mean(0) if rows else otherwise


def _words(tokenizer: PreTrainedTokenizerBase, name: str, but: Sequence[int]) -> list[int]:
    """The tokens of the words in a token's name: as text has them, behind a space, where that takes fewer."""
    text = " ".join(re.findall(r"[^\W_]+", name))
    ids = min(_ids(tokenizer, f" {text}"), _ids(tokenizer, text), key=len)
    return [number for number in ids if number not in but and number != tokenizer.unk_token_id]


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _eos(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, but: Sequence[int]) -> int | None:
    """A token that ended the texts on which the model was trained; None where it never read one."""
    holders = (getattr(model, "generation_config", None), model.config, tokenizer)  # a classifier has none of the first
    numbers = [number for holder in holders for number in as_list(getattr(holder, "eos_token_id", None))]
    return next((number for number in numbers if number not in but), None)
