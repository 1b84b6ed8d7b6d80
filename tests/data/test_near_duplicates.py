"""Prompts that are nearly the same share a split."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from small_rows import PARAMS, places, row, run, source, user

from rlhf_lib.common.rows import normalise
from rlhf_lib.data.prepare.split import minhash

WORDS = [f"word{number}" for number in range(500)]
NEAR = replace(PARAMS, minhash_threshold=0.6, validation_share=0.5)


def sentences(count, seed=0, length=60):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=length)) for _ in range(count)]


def similarity(one, other):
    """As MinHash estimates it."""
    return sum(a == b for a, b in zip(minhash(one), minhash(other), strict=True)) / 128


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_near_duplicates_share_a_split(threshold):
    texts, near = sentences(60, length=200), []
    for number, text in enumerate(texts):
        words = text.split()
        words[10 : 10 + 2 * number] = ["other"] * 2 * number
        near.append(" ".join(words))
    rows = [row(text) for text in texts + near]
    found, apart = (places(run(rows, replace(NEAR, minhash_threshold=at)).files) for at in (threshold, None))
    pairs = [(normalise(user(one)), normalise(user(other))) for one, other in zip(texts, near, strict=True)]
    alike = [pair for pair in pairs if similarity(*pair) >= threshold]
    assert [pair for pair in alike if found[pair[0]] != found[pair[1]]] == []
    assert places(run(rows[::-1], replace(NEAR, minhash_threshold=threshold)).files) == found
    unlike = [text for pair in pairs if pair not in alike for text in pair]
    assert [text for text in unlike if found[text] != apart[text]] == []
    assert len(alike) > 3 and any(apart[one] != apart[other] for one, other in alike)


def test_prompts_of_one_pattern_are_in_one_split_and_those_of_another_need_not_be():
    patterns = sentences(12, length=120)
    texts = {pattern: [f"{pattern} {' '.join(WORDS[n : n + 9])}" for n in range(40)] for pattern in patterns}
    found = places(run([row(text) for of_one in texts.values() for text in of_one], NEAR).files)
    splits = [{str(found[normalise(user(text))]) for text in of_one} for of_one in texts.values()]
    assert {len(of_one) for of_one in splits} == {1} and len(set.union(*splits)) > 2


def test_clusters_of_near_duplicates_are_split_as_prompts_are():
    rows = [row(f"{text} {more}") for text in sentences(300, length=20) for more in ("a", "b", "c", "d")]
    found = Counter(name for where in places(run(rows, NEAR).files).values() for name in where)
    assert found["test"] / len(rows) == pytest.approx(0.2, abs=0.06)
    assert found["sft_train"] / len(rows) == pytest.approx(0.175, abs=0.06)
    assert found["preference_validation"] / len(rows) == pytest.approx(0.175, abs=0.06)


def test_unlike_texts_are_no_near_duplicates():
    rows = [row(text) for text in sentences(150)] + [row(f"Is {word} a word?") for word in WORDS[:50]]
    assert places(run(rows, NEAR).files) == places(run(rows, replace(NEAR, minhash_threshold=None)).files)


@pytest.mark.parametrize("threshold", [1e-6, 0.01, 0.3, 0.97, 0.99, 1.0])
def test_any_threshold_will_do(threshold):
    texts = sentences(3)
    done = run(
        [row(text) for text in (*texts, *(f"{text}!" for text in texts))], replace(NEAR, minhash_threshold=threshold)
    )
    assert done.tally.rows_kept == {"s": 3}


@pytest.mark.parametrize("order", [1, -1])
def test_a_near_duplicate_of_a_test_prompt_is_no_training_prompt(order):
    chains = [[row(text, test=True), row(f"{text} more"), row(f"{text} more or less")] for text in sentences(5)]
    assert run([row for chain in chains for row in chain[::order]], NEAR).tally.splits == {"test": 15}


@pytest.mark.parametrize("order", [1, -1])
def test_near_duplicates_of_several_sources_are_where_some_of_them_have_a_use(order):
    texts = sentences(40)
    rows = [row(text, source="a") for text in texts] + [row(f"{text} more", source="b") for text in texts]
    done = run(rows[::order], NEAR, source("a", 0, ["preference"]), source("b", 1, ["sft"]))
    lost = done.tally.dropped_rows["split_of_another_role"]
    assert lost["a"] + lost["b"] == 40  # one of each two
    assert lost["a"] == sum(count for name, count in done.tally.splits.items() if name.startswith("sft")) > 5
    assert lost["b"] > 5


def test_a_near_duplicate_that_its_split_has_no_use_for_is_dropped():
    (text,) = sentences(1)
    rows = [row(text, source="a", test=True), row(text + " more", source="b")]
    done = run(rows, NEAR, source("a", 0), source("b", 1, ["sft"]))
    assert done.tally.dropped_rows == {"split_of_another_role": {"b": 1}}
    assert places(done.files) == {normalise(user(text)): {"test"}}
