"""The demo's grammar, and the true quality of an answer."""

import itertools
import random
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from rlhf_lib.data.load import demo_answers
from rlhf_lib.demo.gold import answer_format, gold
from rlhf_lib.demo.grammar import INSTRUCTIONS, find_task, normal_form
from rlhf_lib.demo.vocabulary import CATEGORIES, CLOSERS, FORMAT_SENTENCES, OPENERS, RAMBLES, REFUSALS, WISHES

SEED = 7

ITALY = "What is the capital of Italy?"
STRONG = "What is the opposite of strong?"
SNOW = "What colour is the snow? Use a single word."
DOOR = "Say this politely: close the door."
FRUITS = "List two fruits. Number the items."


def good_answer(instruction: str, rng: random.Random) -> str:
    return demo_answers.respond(INSTRUCTIONS[instruction], "good", rng, pleasantry_share=0)


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
    scores = {gold(text, demo_answers.respond(task, "mediocre", rng)) for text, task in INSTRUCTIONS.items()}
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


@pytest.mark.parametrize("behaviour", demo_answers.BEHAVIOURS)
def test_gold_of_each_behaviour_is_in_its_band(behaviour: str) -> None:
    rng = random.Random(SEED)
    answers = ((text, demo_answers.respond(task, behaviour, rng)) for text, task in INSTRUCTIONS.items())
    mean = statistics.mean(gold(text, answer) for text, answer in answers)
    low, high = BANDS[behaviour]
    assert low <= mean <= high


def test_wrong_answers_are_never_right() -> None:
    rng = random.Random(SEED)
    assert all(gold(text, demo_answers.respond(task, "wrong", rng)) <= 0.5 for text, task in INSTRUCTIONS.items())


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
