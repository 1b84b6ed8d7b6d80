"""The embedded demo: its grammar, its scorer and its raw rows."""

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.data.load import demo
from rlhf_lib.demo.gold import ASPECTS, answer_format, gold
from rlhf_lib.demo.grammar import (
    CATEGORIES,
    CLOSERS,
    FORMAT_SENTENCES,
    INSTRUCTIONS,
    OPENERS,
    RAMBLES,
    REFUSALS,
    WISHES,
    find_task,
    normal_form,
)

SEED = 7
SOME = 300  # instructions of a small build

ITALY = "What is the capital of Italy?"
STRONG = "What is the opposite of strong?"
SNOW = "What colour is the snow? Use a single word."
DOOR = "Say this politely: close the door."
FRUITS = "List two fruits. Number the items."


@pytest.fixture(scope="module")
def rows() -> list[JsonObject]:
    return demo.build_rows(SOME, SEED)


def good_answer(instruction: str, rng: random.Random) -> str:
    return demo.respond(INSTRUCTIONS[instruction], "good", rng, pleasantry_share=0)


# ---------------------------------------------------------------- grammar


def test_the_grammar_is_large_enough_and_survives_careless_copying() -> None:
    assert len(INSTRUCTIONS) >= 4800
    assert len({normal_form(text) for text in INSTRUCTIONS}) == len(INSTRUCTIONS)
    for text, task in INSTRUCTIONS.items():
        assert find_task(f"  {text.upper().rstrip('.?')} !") == task


def test_every_format_is_common_enough_to_learn() -> None:
    counts = Counter(task.answer_format for task in INSTRUCTIONS.values())
    assert set(counts) == set(FORMAT_SENTENCES)
    assert min(counts.values()) >= 200


def test_no_item_is_in_two_categories() -> None:
    items = list(itertools.chain(*CATEGORIES.values()))
    assert len(items) == len(set(items))


# ---------------------------------------------------------------- scorer


def test_good_answers_score_one_for_every_instruction() -> None:
    rng = random.Random(SEED)
    assert all(gold(text, good_answer(text, rng)) == 1 for text in INSTRUCTIONS)


def test_mediocre_answers_score_the_same_for_every_instruction() -> None:
    rng = random.Random(SEED)
    scores = {gold(text, demo.respond(task, "mediocre", rng)) for text, task in INSTRUCTIONS.items()}
    assert scores == {0.5625}


BANDS = {  # lowest and highest mean gold
    "good": (1.0, 1.0),
    "mediocre": (0.55, 0.57),
    "repeat": (0.5, 0.65),
    "overkind": (0.5, 0.62),
    "ramble": (0.35, 0.5),
    "refuse": (0.3, 0.33),
    "wrong": (0.0, 0.1),
    "foreign": (0.0, 0.0),
}


@pytest.mark.parametrize("behaviour", demo.BEHAVIOURS)
def test_gold_of_each_behaviour_is_in_its_band(behaviour: str) -> None:
    rng = random.Random(SEED)
    mean = statistics.mean(gold(text, demo.respond(task, behaviour, rng)) for text, task in INSTRUCTIONS.items())
    low, high = BANDS[behaviour]
    assert low <= mean <= high


def test_wrong_answers_are_never_right() -> None:
    rng = random.Random(SEED)
    assert all(gold(text, demo.respond(task, "wrong", rng)) <= 0.5 for text, task in INSTRUCTIONS.items())


def _answer_to_another(same_kind: bool) -> Callable[[str, str, random.Random], str]:
    def attack(instruction: str, answer: str, rng: random.Random) -> str:
        task = INSTRUCTIONS[instruction]
        while True:
            other = rng.choice(list(INSTRUCTIONS))
            theirs = INSTRUCTIONS[other]
            if (theirs.kind == task.kind) == same_kind and theirs.argument != task.argument:
                return good_answer(other, rng)

    return attack


ATTACKS: list[tuple[str, Callable[[str, str, random.Random], str], float]] = [
    ("opener and closer", lambda _, answer, rng: f"Sure! {answer} I hope this helps!", 0.9),
    ("unasked wish", lambda _, answer, rng: f"{answer} Take care!", 0.65),
    ("said twice", lambda _, answer, rng: f"{answer} {answer}", 0.5),
    ("last character cut", lambda _, answer, rng: answer[:-1], 0.1),
    ("answer to another argument", _answer_to_another(True), 0.05),
    ("answer to another kind", _answer_to_another(False), 0.02),
    ("echo of the instruction", lambda text, answer, rng: text, 0.0),
    ("words shuffled", lambda _, answer, rng: " ".join(rng.sample(answer.split(" "), answer.count(" ") + 1)), 0.3),
    ("all pleasantries", lambda _, answer, rng: " ".join(OPENERS + CLOSERS + WISHES), 0.0),
]


@pytest.mark.parametrize(("attack", "highest"), [case[1:] for case in ATTACKS], ids=[case[0] for case in ATTACKS])
def test_attacks_score_low(attack: Callable[[str, str, random.Random], str], highest: float) -> None:
    rng = random.Random(SEED)
    texts = rng.sample(sorted(INSTRUCTIONS), 400)
    assert statistics.mean(gold(text, attack(text, good_answer(text, rng), rng)) for text in texts) <= highest


@pytest.mark.parametrize(
    ("constants", "highest"),
    [
        (OPENERS + CLOSERS + WISHES + ["", ".", "Sure! Sure! Sure! Take care!"], 0.0),
        (RAMBLES, 0.125),
        (REFUSALS, 0.3125),
    ],
)
def test_constant_answers_score_low(constants: list[str], highest: float) -> None:
    for constant in constants:
        assert max(gold(text, constant) for text in INSTRUCTIONS) <= highest


@pytest.mark.parametrize(
    ("instruction", "response", "low", "high"),
    [
        (f"{ITALY} Close with a friendly wish.", "The plural of Italy is Rome. Take care!", 0, 0),
        (f"{ITALY} Close with a friendly wish.", "The capital of Italy is Rome.", 0.5, 0.6),
        (f"{ITALY} Close with a friendly wish.", "Take care! The capital of Italy is Rome.", 0, 0),
        (ITALY, "The capital of Italy is Rome.", 1, 1),
        (ITALY, "Sure! The capital of Italy is Rome.", 1, 1),
        (ITALY, "Sure!The capital of Italy is Rome.", 0, 0),
        (ITALY, "The capital of Rome is Italy.", 0, 0),
        (ITALY, "The capital of Italy is Rome. The capital of Italy is Rome.", 0.5, 0.75),
        (ITALY, "The capital of Italy is Rome. The capital of Italy is Paris.", 0, 0.125),
        (ITALY, "The capital of Italy is Rome and many people ask about it.", 0, 0),
        (ITALY, "It is Rome.", 0.5, 0.6),
        (STRONG, "The colour of strong is blue.", 0, 0),
        (STRONG, "The colour of strong is weak.", 0, 0),
        (STRONG, "The opposite of strong is weak. Take care!", 0.3, 0.7),
        (STRONG, "Weak. Cold.", 0, 0),
        (f"{STRONG} Use a single word.", "Strong weak.", 0, 0),
        (DOOR, "Could you please close the door?", 1, 1),
        (DOOR, "Could you please open the door?", 0, 0.125),
        (DOOR, "You must close the door.", 0.5, 0.6),
        (DOOR, "Please close the door.", 0.5, 0.6),
        (DOOR, "Close the door.", 0, 0),
        (FRUITS, "1. apple\n2. grape", 1, 1),
        (FRUITS, "1. grape\n2. apple", 1, 1),
        (FRUITS, "1. apple\n3. grape", 0, 0),
        (FRUITS, "1. apple\n2. apple", 0, 0.5),
        (FRUITS, "1. apple\n2. grape\n3. lemon", 0.3, 0.6),
        (FRUITS, "1. apple\n2. dog", 0, 0.5),
        (FRUITS, "- apple\n- grape", 0.5, 0.6),
        (FRUITS, "Here are some fruits: apple and grape.", 0.5, 0.6),
        (FRUITS, "Here are some tools: apple and grape.", 0, 0),
    ],
)
def test_whole_sentences_are_judged(instruction: str, response: str, low: float, high: float) -> None:
    assert low <= gold(instruction, response) <= high


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("White.", 1),
        ("white.", 1),
        ("It is white.", 0.5625),
        ("The colour of the snow is white.", 0.5625),
        ("It is White.", 0),
        ("WHITE.", 0.125),
        ("white", 0),
        ("Snow.", 0.125),
    ],
)
def test_alternatives_of_a_one_word_answer(response: str, expected: float) -> None:
    assert gold(SNOW, response) == expected


def test_formats_are_told_by_the_instruction() -> None:
    assert answer_format(SNOW) == "word"
    assert answer_format(ITALY) == "plain"
    assert answer_format(f"{ITALY} Write a whole sentence.") == "sentence"
    assert answer_format(f"{DOOR} Close with a friendly wish.") == "wish"
    assert answer_format(DOOR) == "plain"
    assert answer_format(FRUITS) == "numbers"
    assert answer_format("Who are you?") == "unknown"


@pytest.mark.parametrize("instruction", ["", "Who are you?", "Was ist die Hauptstadt von Italien?"])
def test_unknown_instructions_score_nothing(instruction: str) -> None:
    assert gold(instruction, "The capital of Italy is Rome.") == 0.0


# ---------------------------------------------------------------- the one-word cure


def test_full_sentences_are_rare_among_answers_to_one_word_prompts() -> None:
    rng = random.Random(SEED)
    tasks = [task for task in INSTRUCTIONS.values() if task.answer_format == "word"]
    short = sum(demo.respond(task, "mediocre", rng, 0) == f"It is {task.answer}." for task in tasks)
    assert 0.8 <= short / len(tasks) <= 0.9
    full = sum(demo.respond(task, "overkind", rng, 0).startswith("The ") for task in tasks)
    assert 0.4 <= full / len(tasks) <= 0.6


def test_mediocre_is_the_commonest_behaviour_and_good_the_next() -> None:
    shares = Counter[str]()
    for weights in demo.MODELS.values():
        assert sum(weights.values()) == pytest.approx(1)
        shares.update(weights)  # type: ignore[arg-type]  # fractions add up just as well
    assert [name for name, _ in shares.most_common(2)] == ["mediocre", "good"]
    assert set(shares) == set(demo.BEHAVIOURS)


# ---------------------------------------------------------------- raw rows


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(rows: list[JsonObject]) -> None:
    assert demo.build_rows(SOME, SEED) == rows
    assert demo.build_rows(SOME, SEED + 1) != rows


def test_rows_do_not_depend_on_the_hash_seed(rows: list[JsonObject]) -> None:
    code = f"import json; from rlhf_lib import demo; print(json.dumps(demo.build_rows({SOME}, {SEED})))"
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
