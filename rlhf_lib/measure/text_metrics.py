"""What texts show by themselves, beside one another and beside the dataset's chosen answers.

Words are what stands between spaces. BLEU is sacrebleu's (tokens of mteval-v13a, exponential smoothing, 0 to 100) and
ROUGE is rouge_score's (without stemming, 0 to 1, words of a-z and 0-9 only): both are made for English and its like.
Numbers over all of a policy's texts depend on how many texts there are: they compare policies on the same prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score import scoring
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics.bleu import BLEU

from rlhf_lib.measure.estimates import Estimate, jackknife_se, of_sums

ROUGE = ("rouge1", "rouge2", "rougeL")

Texts = Sequence[Sequence[str]]  # the texts of each prompt


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every n words in a row, as often as they stand there."""
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def repetition(text: str, n: int = 3) -> float:
    """Share of a text's n-grams that it has said before: seq-rep-n, 1 - distinct / all [Welleck 2020,
    arXiv:1908.04319]; 0 for a text of fewer words."""
    found = ngrams(text.split(), n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def distinct(texts: Texts, n: int) -> Estimate:
    """Distinct n-grams over all n-grams of all texts [Li 2016, arXiv:1510.03055], with its standard error over
    prompts; 0 if there are none.

    The more texts, the lower it is; the error is that of texts as many as these.
    """
    if not texts:
        return None, None
    counts = [Counter(gram for text in of_prompt for gram in ngrams(text.split(), n)) for of_prompt in texts]
    prompts_with = Counter(gram for count in counts for gram in count)
    total, known = sum(count.total() for count in counts), len(prompts_with)
    without = []
    for count in counts:
        left = total - count.total()
        without.append((known - sum(prompts_with[gram] == 1 for gram in count)) / left if left else 0.0)
    return known / total if total else 0.0, jackknife_se(without)


@cache
def _sentence_bleu() -> BLEU:
    return BLEU(effective_order=True)


def bleu_counts(hypothesis: str, reference: str) -> tuple[float, list[float]]:
    """sacrebleu's sentence BLEU of a text, and what it is computed from: lengths of text and reference, matching
    n-grams of 1 to 4 tokens, all of them. These add up to what corpus BLEU is computed from."""
    score = _sentence_bleu().sentence_score(hypothesis, [reference])
    return score.score, [score.sys_len, score.ref_len, *score.counts, *score.totals]


def bleu_of_counts(counts: NDArray[np.float64], effective_order: bool = False) -> float:
    """BLEU of the counts of `bleu_counts`, as sacrebleu computes it."""
    sys_len, ref_len, *matches = counts.tolist()
    score = BLEU.compute_bleu(
        matches[:4], matches[4:], int(sys_len), int(ref_len), smooth_method="exp", effective_order=effective_order
    )
    return score.score


def corpus_bleu(counts: Sequence[Sequence[float]]) -> Estimate:
    """Corpus BLEU [Papineni 2002, doi:10.3115/1073083.1073135] and its standard error over prompts, from each
    prompt's counts."""
    return of_sums(counts, bleu_of_counts)


@cache
def _rouge_scorer() -> RougeScorer:
    return RougeScorer(ROUGE[:2], use_stemmer=False)


@cache
def _rouge_words() -> DefaultTokenizer:
    return DefaultTokenizer(use_stemmer=False)


def rouge(text: str, reference: str) -> dict[str, float]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L [Lin 2004, aclanthology.org/W04-1013]."""
    scores: dict[str, Any] = _rouge_scorer().score(reference, text)
    said, expected = (_rouge_words().tokenize(one) for one in (text, reference))
    shared = longest_common_subsequence(said, expected)
    precision, recall = (shared / len(words) if words else 0.0 for words in (said, expected))
    found = {name: score.fmeasure for name, score in scores.items()}
    return {**found, ROUGE[2]: scoring.fmeasure(precision, recall)}


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Its length: most words that both have in the same order, whatever is between them.

    rouge_score fills a table of all words by all words, minutes for thousands of long answers; here a row of
    the table is the bits of one number [Hyyrö 2004, "Bit-parallel LCS-length computation revisited"].
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    row = every = (1 << len(one)) - 1  # a bit is 0 where the table grows by one
    for word in other:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & every
    return len(one) - row.bit_count()
