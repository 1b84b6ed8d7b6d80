"""Self-BLEU: how much a policy's responses to different prompts are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from rlhf_lib.measure.estimates import Estimate, jackknife_se
from rlhf_lib.measure.text_metrics import Texts, bleu_of_counts, ngrams

MAX_PROMPTS = 500
GROUPS = 20
ORDER = 4

Array = NDArray[np.int64]


def self_bleu(texts: Texts) -> Estimate:
    """Self-BLEU [Zhu 2018, arXiv:1802.01886], 0 to 100, and its standard error: the mean sentence BLEU of each text
    with the texts of all other prompts as its references, so that draws of one prompt are not compared.

    Of more than `MAX_PROMPTS` prompts the first are taken: with more references, texts look more alike. The error is
    the jackknife's over `GROUPS` groups of prompts. None for fewer than two prompts.
    """
    texts = texts[:MAX_PROMPTS]
    if len(texts) < 2:
        return None, None
    corpus = _corpus(texts)
    groups = np.arange(len(texts)) % GROUPS
    value = _mean_bleu(corpus, np.ones(len(texts), dtype=bool))
    return value, jackknife_se([_mean_bleu(corpus, groups != group) for group in range(groups.max() + 1)])


class _Corpus(NamedTuple):
    """N-grams of 1 to 4 tokens as numbers. An entry is an n-gram of a text; a reference is one of a prompt."""

    prompts: Array  # (texts,) the number of each text's prompt
    lengths: Array  # (texts,) tokens
    totals: Array  # (texts, 4) n-grams by their order
    entries: Array  # (entries, 4) text, n-gram, its order less 1, how often
    references: Array  # (references, 3) n-gram, prompt, how often in one text at most; by n-gram, the most first


def _corpus(texts: Texts) -> _Corpus:
    flat = [_tokens(text) for of_prompt in texts for text in of_prompt]
    prompts = np.repeat(np.arange(len(texts)), [len(of_prompt) for of_prompt in texts])
    numbers: dict[tuple[str, ...], int] = {}
    entries, most = [], Counter[tuple[int, int]]()
    for text, (prompt, tokens) in enumerate(zip(prompts.tolist(), flat, strict=True)):
        grams = Counter(gram for n in range(1, ORDER + 1) for gram in ngrams(tokens, n))
        for gram, count in grams.items():
            number = numbers.setdefault(gram, len(numbers))
            entries.append((text, number, len(gram) - 1, count))
            most[number, prompt] = max(most[number, prompt], count)
    lengths = np.array([len(tokens) for tokens in flat])
    references = [(gram, prompt, count) for (gram, prompt), count in most.items()]
    references.sort(key=lambda reference: (reference[0], -reference[2]))
    return _Corpus(
        prompts,
        lengths,
        np.maximum(lengths[:, None] - np.arange(ORDER), 0),
        np.array(entries, dtype=np.int64).reshape(-1, 4),
        np.array(references, dtype=np.int64).reshape(-1, 3),
    )


@cache
def _bleu() -> BLEU:
    return BLEU()


def _tokens(text: str) -> list[str]:
    return _bleu().tokenizer(text.rstrip()).split()


def _mean_bleu(corpus: _Corpus, kept: NDArray[np.bool_]) -> float | None:
    """The mean BLEU of the texts of the `kept` prompts, (prompts,), against one another; None for fewer than two."""
    if kept.sum() < 2:
        return None
    chosen = np.flatnonzero(kept[corpus.prompts])
    text, gram, order, count = corpus.entries.T
    matches = np.minimum(count, _most_elsewhere(corpus, kept, gram, corpus.prompts[text]))
    slots = np.bincount(text * ORDER + order, weights=matches, minlength=ORDER * len(corpus.lengths))
    correct = slots.reshape(-1, ORDER)[chosen]
    lengths = corpus.lengths[chosen]
    sides = np.stack([lengths, _closest_lengths(lengths.tolist(), corpus.prompts[chosen].tolist())], axis=1)
    counts = np.concatenate([sides, correct, corpus.totals[chosen]], axis=1)
    return fmean(bleu_of_counts(row, effective_order=True) for row in counts)


def _most_elsewhere(corpus: _Corpus, kept: NDArray[np.bool_], gram: Array, prompt: Array) -> Array:
    """(entries,) how often an n-gram stands in one text, at most, of the kept prompts other than the entry's own."""
    references = corpus.references[kept[corpus.references[:, 1]]]
    grams, first = np.unique(references[:, 0], return_index=True)
    # The first reference of an n-gram has the most; where that is the entry's own prompt, the second has.
    top = np.full((corpus.references[:, 0].max(initial=-1) + 1, 2), -1)
    top[grams] = references[first, 1:]
    second = np.zeros(len(top), dtype=np.int64)
    has_second = np.append(references[1:, 0] == references[:-1, 0], False)[first]
    second[grams[has_second]] = references[first[has_second] + 1, 2]
    return np.where(top[gram, 0] == prompt, second[gram], np.maximum(top[gram, 1], 0))


def _closest_lengths(lengths: Sequence[int], prompts: Sequence[int]) -> list[int]:
    """For each text the length closest to its own, the shorter of two, among the texts of other prompts."""
    prompts_of: dict[int, set[int]] = {}
    for length, prompt in zip(lengths, prompts, strict=True):
        prompts_of.setdefault(length, set()).add(prompt)
    closest = {mine: sorted(prompts_of, key=lambda other: (abs(other - mine), other)) for mine in prompts_of}
    return [
        next(other for other in closest[length] if prompts_of[other] != {prompt})
        for length, prompt in zip(lengths, prompts, strict=True)
    ]
