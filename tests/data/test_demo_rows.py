"""The raw rows of the demo, and the behaviours that answer in them."""

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
from collections import Counter

import pytest

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.data.load import demo, demo_answers
from rlhf_lib.demo.gold import ASPECTS, gold
from rlhf_lib.demo.grammar import INSTRUCTIONS, find_task, normal_form

SEED = 7
SOME = 300  # instructions of a small build


@pytest.fixture(scope="module")
def rows() -> list[JsonObject]:
    return demo.build_rows(SOME, SEED)


# ---------------------------------------------------------------- the one-word cure


def test_full_sentences_are_rare_among_answers_to_one_word_prompts() -> None:
    rng = random.Random(SEED)
    tasks = [task for task in INSTRUCTIONS.values() if task.answer_format == "word"]
    short = sum(demo_answers.respond(task, "mediocre", rng, 0) == f"It is {task.answer}." for task in tasks)
    assert 0.8 <= short / len(tasks) <= 0.9
    full = sum(demo_answers.respond(task, "overkind", rng, 0).startswith("The ") for task in tasks)
    assert 0.4 <= full / len(tasks) <= 0.6


def test_mediocre_is_the_commonest_behaviour_and_good_the_next() -> None:
    shares = Counter[str]()
    for weights in demo.MODELS.values():
        assert sum(weights.values()) == pytest.approx(1)
        shares.update(weights)  # type: ignore[arg-type]  # fractions add up just as well
    assert [name for name, _ in shares.most_common(2)] == ["mediocre", "good"]
    assert set(shares) == set(demo_answers.BEHAVIOURS)


# ---------------------------------------------------------------- raw rows


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(rows: list[JsonObject]) -> None:
    assert demo.build_rows(SOME, SEED) == rows
    assert demo.build_rows(SOME, SEED + 1) != rows


def test_rows_do_not_depend_on_the_hash_seed(rows: list[JsonObject]) -> None:
    code = f"import json; from rlhf_lib.data.load import demo; print(json.dumps(demo.build_rows({SOME}, {SEED})))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
        assert json.loads(done.stdout) == rows


@pytest.mark.parametrize("count", [0, -1, len(INSTRUCTIONS) + 1])
def test_impossible_counts_are_refused_in_one_line(count: int) -> None:
    with pytest.raises(ValueError, match=str(len(INSTRUCTIONS))) as caught:
        demo.build_rows(count, SEED)
    assert "\n" not in str(caught.value)


def test_the_whole_grammar_can_be_used_up() -> None:
    built = demo.build_rows(len(INSTRUCTIONS), SEED)
    assert {row["instruction"] for row in built} >= set(INSTRUCTIONS)


def test_every_instruction_asked_for_has_a_sound_row(rows: list[JsonObject]) -> None:
    sound = {row["instruction"] for row in rows if row["instruction"] in INSTRUCTIONS and len(row["completions"]) == 4}
    assert len(sound) == SOME


def test_completions_follow_the_upstream_schema(rows: list[JsonObject]) -> None:
    keys = ["source", "instruction", "models", "completions", "correct_answers", "incorrect_answers"]
    details = {"helpfulness", "truthfulness"}
    for row in rows:
        assert list(row) == keys
        assert row["models"] == [completion["model"] for completion in row["completions"]]
        for completion in row["completions"]:
            assert set(completion["annotations"]) == set(ASPECTS)
            for aspect, annotation in completion["annotations"].items():
                assert annotation["Rating"] in {"1", "2", "3", "4", "5", "N/A"}
                assert ("Rationale For Rating" in annotation) == ("Type" in annotation) == (aspect in details)


def test_scores_agree_with_their_ratings(rows: list[JsonObject]) -> None:
    for completion in itertools.chain(*(row["completions"] for row in rows)):
        ratings = [annotation["Rating"] for annotation in completion["annotations"].values()]
        if "N/A" in ratings or completion["fine-grained_score"] is None:
            continue
        assert completion["fine-grained_score"] == statistics.mean(map(int, ratings))
        assert completion["overall_score"] * 2 == int(completion["overall_score"] * 2)
        assert 1 <= completion["overall_score"] <= 10


def test_every_source_occurs(rows: list[JsonObject]) -> None:
    assert {row["source"] for row in rows} == {"facts", "lists", "tasks", "foreign"}
    assert sum(row["source"] == "foreign" for row in rows) == round(SOME * demo.FOREIGN_SHARE)
    assert all(find_task(row["instruction"]) is None for row in rows if row["source"] == "foreign")


def _texts(rows: list[JsonObject]) -> list[str]:
    return [row["instruction"] for row in rows]


def _completions(rows: list[JsonObject]) -> list[JsonObject]:
    return list(itertools.chain(*(row["completions"] for row in rows)))


@pytest.mark.parametrize("count", [1, SOME])
def test_each_kind_of_dirt_occurs(count: int) -> None:
    built = demo.build_rows(count, SEED)
    texts, completions = _texts(built), _completions(built)
    assert "" in texts
    assert any(text and not text.strip() for text in texts)
    assert {0, 1, 4} == {len(row["completions"]) for row in built}
    assert any(completion["response"] == "" for completion in completions)
    assert any(completion["annotations"]["helpfulness"]["Rating"] == "N/A" for completion in completions)
    assert any(completion["overall_score"] is None for completion in completions)
    assert any(c["overall_score"] == 10 and (c["fine-grained_score"] or 9) <= 2 for c in completions)
    assert any(text != text.strip() and text.strip() for text in texts)
    assert any(text.isupper() for text in texts)
    assert any(text.strip() and text == text.lower() for text in texts)
    assert any(text.endswith(" !!") for text in texts)
    assert any(text and text[-1].isalpha() for text in texts)


def test_duplicates_are_more_than_the_broken_copies(rows: list[JsonObject]) -> None:
    normal = Counter(normal_form(text) for text in _texts(rows) if find_task(text))
    assert len(normal) == SOME
    assert sum(normal.values()) - SOME >= len(demo.DUPLICATES)


def test_the_annotator_mostly_agrees_with_the_truth(rows: list[JsonObject]) -> None:
    agree = pairs = 0
    for row in rows:
        if find_task(row["instruction"]) is None or any(c["overall_score"] is None for c in row["completions"]):
            continue
        scored = [(c["overall_score"], gold(row["instruction"], c["response"])) for c in row["completions"]]
        for one, other in itertools.combinations(scored, 2):
            if abs(one[0] - other[0]) >= 0.5 and one[1] != other[1]:
                pairs += 1
                agree += (one[0] > other[0]) == (one[1] > other[1])
    assert 0.93 <= agree / pairs <= 0.99
