"""Standard errors by hand, and that intervals of 1.96 of them hold the truth as often as they should.

The simulations draw prompts with everything that belongs to them, as often as `REPETITIONS` says.
"""

import math
from statistics import stdev

import numpy as np
import pytest

from rlhf_lib.measure import comparison, estimates, text_metrics
from rlhf_lib.measure.estimates import jackknife_se, mean_and_se, of_sums, ratio, share_and_se, share_of_sums
from rlhf_lib.measure.self_bleu import self_bleu

REPETITIONS = 1000


def coverage(found, truth):
    """The share of (value, standard error) whose 95 % interval holds the truth."""
    values, errors = np.array(list(found), dtype=float).T
    return np.mean(np.abs(values - truth) <= 1.96 * errors)


# ---- by hand


def test_mean_and_se():
    assert mean_and_se([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, math.sqrt(14 / 3) / 2))
    assert mean_and_se([2.5]) == (2.5, None)
    assert mean_and_se([]) == (None, None)


def test_where_all_shares_are_alike_the_truth_may_still_lie_apart():
    assert share_and_se([1.0, 0.0, 0.5]) == mean_and_se([1.0, 0.0, 0.5])
    assert share_and_se([0.5, 0.5]) == (0.5, 0.0) and share_and_se([1.0]) == (1.0, None)
    assert share_and_se([]) == (None, None)
    value, error = share_and_se([1.0] * 20)
    assert value == 1 and (1 - 2 * error) ** 20 == pytest.approx(0.05)  # 20 wins are as rare as that at 0.861
    assert share_and_se([0.0] * 20) == (0, error)


def test_so_may_it_where_sums_are_alike():
    assert share_of_sums([(2, 3), (1, 1)]) == of_sums([(2, 3), (1, 1)], ratio)
    assert share_of_sums([(3, 3), (1, 1)]) == share_and_se([1.0, 1.0])
    assert share_of_sums([(3, 3)]) == (1, None) and share_of_sums([]) == (None, None)


@pytest.mark.parametrize(("prompts", "truth"), [(20, 0.95), (20, 0.04), (100, 0.99), (1000, 0.998)])
def test_shares_near_all_or_none_are_covered(prompts, truth):
    """Without the error of shares that are all alike it is 0.64, 0.56, 0.63 and 0.86 of them."""
    known = [share_and_se([1.0] * won + [0.0] * (prompts - won)) for won in range(prompts + 1)]
    held = [won for won, (value, se) in enumerate(known) if abs(value - truth) <= 2 * se]
    covered = sum(math.comb(prompts, won) * truth**won * (1 - truth) ** (prompts - won) for won in held)
    assert covered > 0.9


def test_the_jackknife_of_a_mean_is_the_textbook_error():
    values = [1.0, 5.0, 2.0, 2.0, 9.0]
    without = [(sum(values) - value) / 4 for value in values]
    assert jackknife_se(without) == pytest.approx(stdev(values) / math.sqrt(5))


def test_the_jackknife_by_hand():
    # two values one apart: sqrt(1/2 * (1/4 + 1/4))
    assert jackknife_se([1.0, 2.0]) == pytest.approx(0.5)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, None], [None, None]])
def test_without_enough_values_there_is_no_error(values):
    assert jackknife_se(values) is None


def test_a_ratio_is_of_sums_and_not_a_mean_of_ratios():
    value, error = of_sums([(1, 1), (1, 3)], estimates.ratio)
    assert value == pytest.approx(0.5)
    assert error == pytest.approx(1 / 3)  # without the first 1/3, without the second 1: sqrt(1/2 * 2 * (1/3)^2)


def test_perplexity_by_hand():
    value, error = of_sums([(math.log(2) * 3, 3), (math.log(8), 1)], estimates.perplexity)
    assert value == pytest.approx(2**1.5)  # six bits over four tokens
    assert error == pytest.approx((8 - 2) / 2)


def test_nothing_is_said_of_nothing():
    assert of_sums([], estimates.ratio) == (None, None)
    assert of_sums([(0, 0), (0, 0)], estimates.ratio) == (None, None)
    assert of_sums([(3, 4)], estimates.ratio) == (0.75, None)
    assert of_sums([(3, 4), (0, 0)], estimates.ratio) == (0.75, None)  # without the first there is no ratio
    assert of_sums([(1e6, 2), (1e6, 2)], estimates.perplexity) == (None, None)  # past all floats


# ---- by simulation


def clustered(rng, prompts, draws):
    """Samples whose prompts have skewed means, 1 on average, with noise between the draws."""
    centres = rng.exponential(1.0, prompts)
    values = centres[:, None] + rng.normal(0, 0.5, (prompts, draws))
    return [{"id": p, "draw": d, "reward": float(values[p, d])} for p in range(prompts) for d in range(draws)]


def test_means_of_clustered_and_skewed_draws():
    rng = np.random.default_rng(0)
    found = [
        mean_and_se(comparison.by_prompt(clustered(rng, 100, 4), lambda s: s["reward"])) for _ in range(REPETITIONS)
    ]
    assert 0.92 <= coverage(found, 1.0) <= 0.98


def test_an_error_over_draws_would_be_too_small():
    rng = np.random.default_rng(0)
    found = [mean_and_se([s["reward"] for s in clustered(rng, 100, 4)]) for _ in range(REPETITIONS)]
    assert coverage(found, 1.0) < 0.8


def test_paired_differences():
    """Two policies' samples of a prompt are alike: unpaired errors would be far too large."""
    rng = np.random.default_rng(1)

    def repetition():
        first = clustered(rng, 60, 2)
        gains = rng.gamma(2.0, 0.1, 60)
        second = [{**s, "reward": s["reward"] + gains[s["id"]] + rng.normal(0, 0.1)} for s in first]
        return comparison.paired_difference(second, first, "reward")

    found = [repetition() for _ in range(REPETITIONS)]
    assert 0.92 <= coverage(found, 0.2) <= 0.98
    unpaired = math.sqrt(2 * (1 + 0.25 / 2) / 60)
    assert np.mean([error for _, error in found]) < unpaired / 4


def test_perplexity():
    """Lengths differ between prompts, and longer answers are easier: a mean of prompts would be another number."""
    rng = np.random.default_rng(2)

    def repetition():
        tokens = rng.integers(2, 30, 100)
        nats = tokens * (0.5 + 2 / tokens) * rng.gamma(4.0, 0.25, 100)
        return of_sums(np.stack([nats, tokens], axis=1), estimates.perplexity)

    truth = math.exp(0.5 + 2 / 15.5)  # the mean of tokens is 15.5, of nats 0.5 * 15.5 + 2
    assert 0.92 <= coverage([repetition() for _ in range(REPETITIONS)], truth) <= 0.98


def test_shares_of_pairs():
    rng = np.random.default_rng(3)

    def repetition():
        pairs = rng.integers(1, 7, 100)
        right = rng.binomial(pairs, rng.beta(4, 2, 100))
        return of_sums(np.stack([right, pairs], axis=1), estimates.ratio)

    assert 0.92 <= coverage([repetition() for _ in range(REPETITIONS)], 2 / 3) <= 0.98


def test_corpus_bleu():
    """BLEU's truth is that of the expected counts. Texts of a prompt match in all orders or in few."""
    rng = np.random.default_rng(4)

    def counts(prompts):
        length = rng.integers(4, 20, prompts)
        totals = np.stack([length - i for i in range(4)], axis=1)
        match = rng.beta(3, 2, prompts)
        correct = rng.binomial(totals, np.stack([match**n for n in range(1, 5)], axis=1))
        return np.concatenate(
            [length[:, None], length[:, None] + rng.integers(-1, 4, (prompts, 1)), correct, totals], 1
        )

    truth = text_metrics.bleu_of_counts(counts(400_000).sum(axis=0))
    found = [text_metrics.corpus_bleu(counts(100)) for _ in range(REPETITIONS)]
    assert 0.92 <= coverage(found, truth) <= 0.98


def zipf_texts(rng, prompts, draws=1):
    """Texts of words whose frequency falls as their rank grows; a prompt's have words of their own among them."""
    vocabulary = 500
    words = np.minimum(rng.pareto(0.6, (prompts, draws, 12)).astype(int), vocabulary)
    own = rng.integers(0, vocabulary, (prompts, 1, 1))
    words = np.where(rng.random(words.shape) < 0.2, own, words)
    lengths = rng.integers(3, 13, (prompts, draws))
    return [[" ".join(map(str, words[p, d, : lengths[p, d]])) for d in range(draws)] for p in range(prompts)]


@pytest.mark.parametrize("n", [1, 2])
def test_distinct(n):
    """The truth is what as many prompts give on average: with more of them the number itself is lower, so that there
    is no other truth to hold. The error is too large rather than too small."""
    rng = np.random.default_rng(5)
    found = [text_metrics.distinct(zipf_texts(rng, 60), n) for _ in range(REPETITIONS)]
    assert 0.92 <= coverage(found, np.mean([value for value, _ in found])) <= 0.99


def test_self_bleu():
    """As of distinct-n; few repetitions, because each takes long."""
    rng = np.random.default_rng(6)
    values, errors = np.array([self_bleu(zipf_texts(rng, 40)) for _ in range(100)]).T
    assert 0.9 <= np.sqrt(np.mean(errors**2)) / values.std() <= 1.5
