"""What `make data` says of what pairs teach beside quality."""

import math
import re

import pytest
from shipped_params import shipped

from rlhf_lib.check.patterns import too_slow
from rlhf_lib.data import taught
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.taught import LENGTH, TRAITS, Pairs, Share, first_won, told, warnings

BY_NAME = {trait.name: trait for trait in TRAITS}


def of(*pairs, each=1):
    """Counted pairs: (chosen, rejected) of prompts of their own, or of as many to a prompt as `each` says."""
    counted = Pairs()
    for number, texts in enumerate(pairs):
        counted.add(str(number // each), *texts)
    return counted


def warned(pairs, places=None):
    return list(warnings({"preference_train": pairs}, places or {}))


# ---- what texts have


@pytest.mark.parametrize(
    ("name", "having", "lacking"),
    [
        (
            "lists",
            ["- a\n- b", "Steps:\n1. Go\n\n2. Stop", "* a\n* b", "1) x\n2) y"],
            ["- a", "a - b\nc", "1984 was.\nIt"],
        ),
        ("headings", ["# Title\ntext", "Hello\n### Part"], ["#hashtag", "C # is", "####### x"]),
        ("bold", ["a **word** b"], ["2 ** 3 ** 4", "** a **", "*word*"]),
        (
            "refusals",
            [
                "I'm sorry, but I can't help with that.",
                "Sorry, but no.",
                "I cannot assist with this.",
                "I can’t provide that.",
                "As an AI language model, I am unable to answer.",
                '"I am not able to do so."',
                "Unfortunately, I can not say.",
            ],
            [
                "I'm sorry to hear that.",
                "I can help.",
                "As an AI, I like music.",
                "It cannot help.",
                "I can't believe it!",
            ],
        ),
    ],
)
def test_traits_are_found(name, having, lacking):
    assert [BY_NAME[name].of(text) for text in (*having, *lacking)] == [1] * len(having) + [0] * len(lacking)


# ---- numbers by hand


def test_shares_and_errors_by_hand():
    """Two prompts with two pairs each, and one with one: the longer answer won 2 of 2, 1 of 2 and 0 of 0."""
    pairs = Pairs()
    for row, chosen, rejected in (
        ("a", "long", "s"),
        ("a", "four", "iv"),
        ("b", "abc", "z"),
        ("b", "q", "abc"),
        ("c", "xy", "ab"),
    ):
        pairs.add(row, chosen, rejected)
    # without a, 1/2; without b, 2/2
    assert pairs.won(LENGTH) == Share(0.75, pytest.approx(math.sqrt(1 / 2 * 2 * 0.25**2)), 4, 2)
    # the tie is half: 2 + 1 + 1/2 of 5; without a 1.5/3, without b 2.5/3, without c 3/4
    without = [0.5, 2.5 / 3, 0.75]
    mean = sum(without) / 3
    error = math.sqrt(2 / 3 * sum((value - mean) ** 2 for value in without))
    assert pairs.accuracy(LENGTH) == Share(pytest.approx(0.7), pytest.approx(error), 5, 3)
    assert pairs.total == 5 and pairs.won(BY_NAME["bold"]) is None


def test_the_records_of_a_split_are_counted_as_they_pass():
    def said(text):
        return [{"role": "assistant", "content": text}]

    records = [
        {"id": "0a-0", "chosen": said("**yes**"), "rejected": said("no")},
        {"id": "0a-1", "chosen": said("- a\n- b"), "rejected": said("# no")},
    ]
    pairs = Pairs()
    assert list(pairs.counted(iter(records))) == records
    assert dict(pairs.pairs) == {"0a": 2}
    assert {name: counts for name, counts in pairs.having.items() if name != "length"} == {
        "lists": [1, 0],
        "headings": [0, 1],
        "bold": [1, 0],
        "refusals": [0, 0],
    }


def test_the_place_in_the_file_by_hand():
    def row(source, *scores):
        return {"source": source, "responses": [{"content": "", "score": score} for score in scores]}

    rows = [
        row("a/x", 3, 1, 2),
        row("a/y", 1, None, 1),
        row("a/y", 0, 5),
        row("b", 1, 0),
        row("c", None),
        row("b", 2, 1),
    ]
    found = first_won(rows)  # of a: 3 > 1 and 3 > 2, but 1 < 2; then 0 < 5
    assert found["a"] == Share(0.5, pytest.approx(math.sqrt(1 / 2 * 2 * (1 / 3) ** 2)), 4, 2)
    assert found["b"].value == 1 and set(found) == {"a", "b"}


# ---- what is said


LONGER, SHORTER = ("a longer one", "short"), ("short", "a longer one")


def test_what_is_large_and_no_chance_is_warned_of():
    (line,) = warned(of(*[LONGER] * 70, *[SHORTER] * 30))
    assert line == (
        "length: the longer answer won 70.0 ± 4.6 % in preference_train; answers tend to get longer, better or not: "
        "see the wins at equal length (judge_lc_win_rate), ppo.length_penalty, dpo.ld_alpha, "
        "prepare.max_response_tokens"
    )
    (line,) = warned(of(*[LONGER] * 30, *[SHORTER] * 70))
    assert line.startswith("length: the shorter answer won 70.0 ± 4.6 % in preference_train; ")


@pytest.mark.parametrize(
    "pairs",
    [
        of(*[LONGER] * 54, *[SHORTER] * 46, each=1),  # not large
        of(*[LONGER] * 29, *[SHORTER] * 21),  # may be chance
        of(*[LONGER] * 20),  # few prompts
        of(*[LONGER] * 100, each=5),  # still 20 prompts
        of(*[("**a**", "b    ")] * 4, *[("a", "b")] * 96),  # rare
        of(*[("yes, of course", "I cannot help.")] * 60),  # fewer refusals are what most people want
    ],
    ids=["small", "chance", "few", "few prompts of many pairs", "rare", "refusals lose"],
)
def test_what_is_not_is_but_a_number(pairs):
    assert warned(pairs) == []


def test_each_trait_has_its_line():
    """Texts of one length, of which the better one has it."""
    made = {
        "lists": ("- a\n- b", "a, or b"),
        "headings": ("# a", "a b"),
        "bold": ("**a**", "a, b."),
        "refusals": ("I can't help.", "Yes, I would."),
    }
    for name, texts in made.items():
        (line,) = warned(of(*[texts] * 40))
        assert line.startswith(
            f"{name}: {BY_NAME[name].having} won 100.0 ± 0.0 % in preference_train; answers tend to "
        )
    (line,) = warned(of(*[made["bold"][::-1]] * 40))
    assert line.startswith("bold: the one without bold words won 100.0 ± 0.0 % in ") and "have less of it" in line


def test_a_judge_that_likes_a_place():
    """Of 50 comparisons the answer that stood first won 40; where all did, the file lists the better one first."""
    nobody = of()
    (line,) = warned(nobody, {"mine": Share(0.8, 0.05, 50, 50)})
    assert line == (
        "position: the answer that stands first won 80.0 ± 5.0 % in mine; if they were judged in that order, judge "
        "them in both, or keep the clear cases (prepare.min_score_gap; labels have none)"
    )
    (line,) = warned(nobody, {"mine": Share(0.25, 0.05, 50, 50)})
    assert line.startswith("position: the answer that stands last won 75.0 ± 5.0 % in mine; ")
    assert warned(nobody, {"mine": Share(1.0, 0.0, 50, 50), "yours": Share(0.55, 0.01, 5000, 5000)}) == []


def test_the_table():
    pairs = of(*[("**a** is long", "b")] * 3, ("c", "d"))
    same = of(*[("**a** is long", "b")] * 3, ("c", "d"))
    places = {"mine": Share(0.5, 0.1, 40, 40), "sorted": Share(1.0, 0.0, 40, 40)}
    head, *lines = told({"preference_train": pairs, "reward_train": same, "judge_train": of()}, places)
    assert head.startswith("What the pairs teach beside quality; ± is one standard error")
    assert lines[0] == (
        "  4 pairs of preference_train, reward_train; by length alone, 87.5 ± 12.5 % are in the right order "
        "(n = 4: too few to tell)"
    )
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "the longer answer 100.0 ± 0.0 % 3 (n = 3: too few to tell)",
        "the one with bold words 100.0 ± 0.0 % 3 75.0 % 0.0 % (n = 3: too few to tell)",
        "mine: an answer that stands before another in the file won 50.0 ± 10.0 % of 40 comparisons with a later one",
    ]
    assert list(told({"preference_train": of()}, {})) == []


# ---- what to do about it


def test_the_advice_names_what_there_is():
    said = " ".join(taught.advice(trait, wins) for trait in TRAITS for wins in (True, False))
    params = shipped()
    named = re.findall(r"\b(ppo|prepare|dpo|reward)\.(\w+)", said)
    assert {key for _, key in named} >= {"length_penalty", "max_response_tokens", "min_new_tokens", "drop_patterns"}
    assert all(key in params[section] for section, key in named)


def test_the_patterns_of_the_advice_drop_what_they_are_for():
    params = shipped()["prepare"]
    patterns = [trait.drop for trait in TRAITS if trait.drop]
    PrepareParams(**{**params, "drop_patterns": patterns})
    assert list(too_slow(patterns + [trait.pattern for trait in TRAITS if trait.pattern])) == []
    for name, text in (
        ("lists", "- a\n- b"),
        ("headings", "## a"),
        ("bold", "a **b**"),
        ("refusals", "I can't do it."),
    ):
        assert re.search(BY_NAME[name].drop, text) and not re.search(BY_NAME[name].drop, "Plain words, 3 of them.")
