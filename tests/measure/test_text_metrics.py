import random

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from rlhf_lib.measure import text_metrics
from rlhf_lib.measure.self_bleu import MAX_PROMPTS, self_bleu

WORDS = ["the", "a", "cat", "dog", "sky", "is", "blue,", "green", "and", "3", ".", "Yes!", "it's", "one-two"]


def texts(seed, count):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(0, 14))) for _ in range(count)]


# ---- repetition and distinct-n


def test_repetition():
    assert text_metrics.repetition("a b c a b c") == pytest.approx(1 / 4)  # abc bca cab abc
    assert text_metrics.repetition("a a a a a") == pytest.approx(2 / 3)
    assert text_metrics.repetition("a b c") == text_metrics.repetition("a b") == text_metrics.repetition("") == 0
    assert text_metrics.repetition("a b a b", n=2) == pytest.approx(1 / 3)


def test_distinct():
    by_prompt = [["a b c", "a b"], ["b"]]
    assert text_metrics.distinct(by_prompt, 1)[0] == pytest.approx(3 / 6)
    assert text_metrics.distinct(by_prompt, 2)[0] == pytest.approx(2 / 3)
    assert text_metrics.distinct([["a"], ["b"]], 2)[0] == 0.0  # no pair over two texts


def test_the_error_of_distinct_leaves_out_each_prompt():
    by_prompt = [["a b", "b c"], ["a"], ["d d", ""]]
    without = [text_metrics.distinct([t for j, t in enumerate(by_prompt) if j != i], 1)[0] for i in range(3)]
    mean = sum(without) / 3
    expected = (2 / 3 * sum((value - mean) ** 2 for value in without)) ** 0.5
    assert text_metrics.distinct(by_prompt, 1)[1] == pytest.approx(expected)


def test_distinct_of_little():
    assert text_metrics.distinct([], 1) == (None, None)
    assert text_metrics.distinct([["a b"]], 1) == (1.0, None)
    assert text_metrics.distinct([[""], [""]], 1) == (0.0, 0.0)


# ---- BLEU and ROUGE


@pytest.mark.parametrize("seed", range(4))
def test_corpus_bleu_is_sacrebleus_of_the_same_texts(seed):
    hypotheses, references = texts(seed, 40), [text or "x" for text in texts(seed + 100, 40)]
    counts = [text_metrics.bleu_counts(h, r)[1] for h, r in zip(hypotheses, references, strict=True)]
    expected = sacrebleu.BLEU().corpus_score(hypotheses, [references]).score
    assert text_metrics.corpus_bleu(counts)[0] == pytest.approx(expected, abs=1e-9)
    half = [list(map(sum, zip(*counts[i : i + 2], strict=True))) for i in range(0, 40, 2)]  # two draws a prompt
    assert text_metrics.corpus_bleu(half)[0] == pytest.approx(expected, abs=1e-9)


def test_the_error_of_corpus_bleu_leaves_out_each_prompt():
    hypotheses, references = texts(7, 12), [text or "x" for text in texts(8, 12)]
    counts = [text_metrics.bleu_counts(h, r)[1] for h, r in zip(hypotheses, references, strict=True)]
    without = [
        sacrebleu.BLEU()
        .corpus_score(hypotheses[:i] + hypotheses[i + 1 :], [references[:i] + references[i + 1 :]])
        .score
        for i in range(12)
    ]
    assert text_metrics.corpus_bleu(counts)[1] == pytest.approx(np.std(without) * 11**0.5, abs=1e-9)


def test_sentence_bleu_is_sacrebleus():
    for hypothesis, reference in zip(texts(1, 30), [text or "x" for text in texts(2, 30)], strict=True):
        expected = sacrebleu.sentence_bleu(hypothesis, [reference]).score
        assert text_metrics.bleu_counts(hypothesis, reference)[0] == pytest.approx(expected, abs=1e-12)
    assert text_metrics.bleu_counts("Yes.", "Yes.")[0] == pytest.approx(100)
    assert text_metrics.bleu_counts("", "Yes.")[0] == 0


def test_a_corpus_of_empty_texts_has_a_bleu_of_0():
    counts = [text_metrics.bleu_counts("", "Yes.")[1]] * 3
    assert text_metrics.corpus_bleu(counts) == (0.0, 0.0)
    assert text_metrics.corpus_bleu([]) == (None, None)


def test_sacrebleu_says_nothing(caplog, capfd):
    text_metrics.corpus_bleu([text_metrics.bleu_counts("It is so .", "It is so .")[1]] * 150)
    self_bleu([["It is so ."]] * 150)
    text_metrics.rouge("", "x")
    assert not caplog.records and not any(capfd.readouterr())


def test_rouge_by_hand():
    got = text_metrics.rouge("the cat sat down", "The cat lay down.")
    assert got["rouge1"] == pytest.approx(3 / 4)  # three of four words on both sides
    assert got["rouge2"] == pytest.approx(1 / 3)  # the cat
    assert got["rougeL"] == pytest.approx(3 / 4)
    got = text_metrics.rouge("down cat", "The cat lay down.")
    assert got["rouge1"] == pytest.approx(2 / 3) and got["rougeL"] == pytest.approx(1 / 3)
    for reference in ("The cat.", ""):
        assert set(text_metrics.rouge("", reference).values()) == {0}


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [
        ("", "", 0),
        ("a b", "", 0),
        ("a b c", "c b a", 1),
        ("a b a", "a a b", 2),
        ("a x b y c z d", "d a b c d", 4),  # what is between does not matter
        ("a " * 100, "a " * 70, 70),  # more words than a machine's number has bits
    ],
)
def test_the_longest_common_subsequence(one, other, length):
    assert text_metrics.longest_common_subsequence(one.split(), other.split()) == length
    assert text_metrics.longest_common_subsequence(other.split(), one.split()) == length


def test_rouge_is_rouge_scores():
    scorer = RougeScorer(text_metrics.ROUGE)
    for text, reference in zip(texts(4, 200), texts(5, 200), strict=True):
        expected = scorer.score(reference, text)
        assert text_metrics.rouge(text, reference) == {name: expected[name].fmeasure for name in text_metrics.ROUGE}


def test_rouge_of_texts_of_a_hundred_thousand_words():
    # a table of all words by all words would have ten thousand million cells
    got = text_metrics.rouge("a " * 100_000, "b a " * 50_000)
    assert got["rougeL"] == pytest.approx(0.5)


# ---- self-BLEU


def by_sacrebleu(by_prompt):
    scores = []
    for i, of_prompt in enumerate(by_prompt):
        references = [text for j, others in enumerate(by_prompt) if j != i for text in others]
        scores += [sacrebleu.sentence_bleu(text, references).score for text in of_prompt]
    return sum(scores) / len(scores)


@pytest.mark.parametrize(("seed", "draws"), [(0, 1), (1, 2), (2, 3)])
def test_self_bleu_is_sacrebleus_with_the_other_prompts_as_references(seed, draws):
    flat = texts(seed, 12 * draws)
    by_prompt = [flat[i : i + draws] for i in range(0, len(flat), draws)]
    assert self_bleu(by_prompt)[0] == pytest.approx(by_sacrebleu(by_prompt), abs=1e-9)


def test_the_error_of_self_bleu_leaves_out_each_prompt_of_a_few():
    by_prompt = [[text] for text in texts(3, 9)]
    without = [by_sacrebleu(by_prompt[:i] + by_prompt[i + 1 :]) for i in range(9)]
    assert self_bleu(by_prompt)[1] == pytest.approx(np.std(without) * 8**0.5, abs=1e-9)


def test_self_bleu_does_not_compare_a_prompts_own_draws():
    assert self_bleu([["a b c d e"] * 2, ["v w x y z"] * 2])[0] == 0
    assert self_bleu([["a b c d e"]] * 3)[0] == pytest.approx(100)


def test_self_bleu_is_of_the_first_prompts():
    many = [["a b c d"], ["e f g h"]] + [["i j k l"]] * MAX_PROMPTS
    assert self_bleu(many)[0] == self_bleu(many[:MAX_PROMPTS])[0]


def test_self_bleu_of_little():
    assert self_bleu([]) == self_bleu([["a b"]]) == (None, None)
    assert self_bleu([["a"], ["a"]]) == (pytest.approx(100), None)
    assert self_bleu([[""], [""], [""]]) == (0.0, 0.0)
