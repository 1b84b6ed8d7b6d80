"""The numbers of a reward model, by hand."""

import math

import pytest

from rlhf_lib.measure.comparison import order_accuracy
from rlhf_lib.reward import metrics as reward_metrics
from rlhf_lib.reward.metrics import (
    accuracy,
    accuracy_se,
    calibration_error,
    fitted_mse,
    pairs,
    regression,
    reliability,
    told,
)


def row(prompt, score, reward, target=0.0, source="a", **gold):
    return {"id": prompt, "source": source, "response": 0, "score": score, "target": target, "reward": reward, **gold}


def prompt(name, scores, rewards, **columns):
    return [row(name, score, reward, **columns) for score, reward in zip(scores, rewards, strict=True)]


def of(share, pairs, se=None):
    return {"accuracy": share, "accuracy_se": se, "pairs": pairs}


ROWS = [
    *prompt("p", [7.1, 6.6, 3.0], [1.0, 2.0, -1.0]),
    *prompt("q", [1, 0], [0.5, 0.5], source="labels"),
    *prompt("r", [4, 4], [0.0, 1.0]),
    *prompt("s", [4], [0.0]),
]


def test_pairs_are_of_one_prompt_and_of_different_scores():
    got = [(pair.id, pair.gap, pair.margin, pair.right) for pair in pairs(ROWS)]
    assert got == [("p", 3.6, 3.0, 1.0), ("p", 4.1, 2.0, 1.0), ("p", 0.5, -1.0, 0.0), ("q", 1.0, 0.0, 0.5)]


def test_accuracy_is_that_of_the_policies_comparison():
    by_prompt = [[row for row in ROWS if row["id"] == name] for name in "pqrs"]
    expected = order_accuracy(*([[row[key] for row in rows] for rows in by_prompt] for key in ("score", "reward")))
    assert accuracy(pairs(ROWS)) == of(*expected, accuracy_se(pairs(ROWS))) == of(0.625, 4, pytest.approx(0.0625))
    assert accuracy([]) == of(None, 0)


def test_the_standard_error_is_over_prompts():
    # right 2 of 3 and 0.5 of 1 pairs: residuals 2 - 3 * 0.625 and 0.5 - 0.625
    assert accuracy_se(pairs(ROWS)) == pytest.approx(math.sqrt(2 * (0.125**2 + 0.125**2)) / 4)
    assert accuracy_se(pairs(ROWS[:3])) is None and accuracy_se([]) is None


def test_of_one_pair_a_prompt_it_is_the_standard_error_of_a_mean():
    rights = [1, 0, 1, 1]
    rows = [r for i, right in enumerate(rights) for r in prompt(str(i), [1, 0], [right, 1 - right])]
    assert accuracy_se(pairs(rows)) == pytest.approx(0.5 / math.sqrt(4))  # of 1, 0, 1, 1 the deviation is a half


def test_where_all_pairs_are_right_the_error_is_not_zero():
    rows = [r for i in range(20) for r in prompt(str(i), [2, 1, 0], [2, 1, 0])]
    error = accuracy_se(pairs(rows))  # over 20 prompts, whose three pairs hang together
    assert (1 - 2 * error) ** 20 == pytest.approx(0.05)
    assert accuracy_se(pairs(rows[:3])) is None


def test_accuracy_by_gap_and_by_source():
    got = reward_metrics.summary(ROWS)
    assert got["accuracy_by_gap"] == {
        "0.5-1": of(0.0, 1),  # 7.1 - 6.6
        "1-2": of(0.5, 1),  # labels
        "3-5": of(1.0, 2),
    }
    assert got["accuracy_by_source"] == {"a": of(2 / 3, 3), "labels": of(0.5, 1)}
    wide = reward_metrics.summary(prompt("p", [10, 5, 5.2], [1.0, 0.0, 0.0]))["accuracy_by_gap"]
    assert {name: bin["pairs"] for name, bin in wide.items()} == {"0-0.5": 1, "3-5": 1, "5+": 1}


def test_true_quality_has_an_accuracy_of_its_own_where_it_is_known():
    known = [{**r, "gold": gold} for r, gold in zip(ROWS[:3], [0.1, 0.9, 0.1], strict=True)]
    got = reward_metrics.summary([*known, *ROWS[3:]])
    assert (got["gold_accuracy"], got["gold_pairs"]) == (1.0, 2)
    assert not any(key.startswith("gold") for key in reward_metrics.summary(ROWS))


def logit(p):
    return math.log(p / (1 - p))


def test_calibration_by_hand():
    margins = [logit(0.52), -logit(0.54), logit(0.91), logit(0.93), logit(0.93), -logit(0.92)]
    rows = [r for i, margin in enumerate(margins) for r in prompt(str(i), [2, 1], [margin, 0.0])]
    bins = reliability(pairs(rows))
    assert [(b["pairs"], b["accuracy"]) for b in bins] == [(2, 0.5), (4, 0.75)]
    assert [b["probability"] for b in bins] == pytest.approx([0.53, 0.9225])
    assert calibration_error(bins) == pytest.approx((2 * 0.03 + 4 * 0.1725) / 6)


def test_pairs_of_one_prompt_hang_together_in_every_part():
    """Two prompts of three pairs each, all right in one and all wrong in the other: two observations, and not six."""
    rows = [*prompt("p", [9, 7, 4], [0.3, 0.2, 0.1]), *prompt("q", [9, 7, 4], [0.1, 0.2, 0.3])]
    got = reward_metrics.summary([{**r, "gold": r["score"]} for r in rows])
    whole = of(0.5, 6, pytest.approx(math.sqrt(2 * (1.5**2 + 1.5**2)) / 6))
    assert got["accuracy_by_source"] == {"a": whole} and of(*(got[key] for key in ("accuracy", "pairs"))) == of(0.5, 6)
    assert got["gold_accuracy_se"] == got["accuracy_se"] == whole["accuracy_se"]
    (bin,) = got["reliability"]
    assert bin == {"probability": bin["probability"], **whole}
    halves = {"2-3": of(0.5, 2, pytest.approx(0.5)), "3-5": of(0.5, 2, pytest.approx(0.5))}
    assert got["accuracy_by_gap"] == {**halves, "5+": of(0.5, 2, pytest.approx(0.5))}


def test_certain_and_even_pairs_have_bins_too():
    rows = [*prompt("p", [2, 1], [900.0, -900.0]), *prompt("q", [2, 1], [0.0, 0.0])]
    assert reliability(pairs(rows)) == [
        {"probability": 0.5, **of(0.5, 1)},
        {"probability": 1.0, **of(1.0, 1)},
    ]
    assert calibration_error(reliability(pairs(rows))) == 0.0
    assert calibration_error([]) is None


def test_regression_by_hand():
    rows = [row("p", 0, r, target=t) for r, t in [(0.7, 0.9), (0.4, 0.8), (0.6, 0.5), (0.5, 0.0)]]
    got = regression(rows, middle=0.5)
    assert got["mse"] == pytest.approx((0.04 + 0.16 + 0.01 + 0.25) / 4)
    assert got["mae"] == pytest.approx((0.2 + 0.4 + 0.1 + 0.5) / 4)
    assert got["sign_accuracy"] == pytest.approx(1.5 / 3)  # right, wrong, a target in the middle, a reward there
    assert regression([], 0.5) == {"mse": None, "mae": None, "sign_accuracy": None}


def test_a_regression_has_no_calibration_and_others_no_errors():
    of_order, of_targets = reward_metrics.summary(ROWS), reward_metrics.summary(ROWS, middle=0.5)
    assert of_order["ece"] is not None and "mse" not in of_order
    assert of_targets["ece"] is None and of_targets["reliability"] == [] and of_targets["mse"] is not None


def test_the_fitted_error_is_that_after_the_best_line():
    fitted_on = [row("p", 0, r, target=t) for r, t in [(0.0, 1.0), (1.0, 2.0), (2.0, 6.0)]]  # 0.5 + 2.5 r
    rows = [row("q", 0, 1.0, target=3.5), row("q", 0, 2.0, target=5.0)]
    assert fitted_mse(fitted_on, rows) == pytest.approx((0.25 + 0.25) / 2)
    moved = [[{**r, "reward": 7 - 3 * r["reward"]} for r in part] for part in (fitted_on, rows)]
    assert fitted_mse(*moved) == pytest.approx(0.25)


def test_equal_rewards_are_fitted_by_the_mean():
    fitted_on = [row("p", 0, 1.0, target=t) for t in (0.0, 1.0)]
    assert fitted_mse(fitted_on, [row("q", 0, 5.0, target=1.0)]) == 0.25
    assert fitted_mse([], fitted_on) is None


def test_nothing_is_measured_of_no_rows():
    got = reward_metrics.summary([])
    assert got == {
        **{"accuracy": None, "pairs": 0, "accuracy_se": None, "accuracy_by_gap": {}, "accuracy_by_source": {}},
        **{"ece": None, "reliability": []},
    }


@pytest.mark.parametrize(
    ("right", "error", "remark"),
    [
        (0.7, 0.05, ""),
        (0.61, 0.05, ""),
        (0.59, 0.05, "not clearly above chance"),
        (0.3, 0.05, "not clearly above chance"),
    ],
)
def test_a_model_no_better_than_chance_is_told_of(right, error, remark):
    line = told({"accuracy": right, "accuracy_se": error, "pairs": 1200})
    assert line.startswith(f"accuracy {right:.3f} on 1,200 test pairs")
    assert remark in line and (": not clearly" in line) is bool(remark)


def test_without_pairs_or_with_one_prompt_nothing_is_said_of_chance():
    assert told({"accuracy": None, "accuracy_se": None, "pairs": 0}).startswith("no test pairs")
    assert told({"accuracy": 0.5, "accuracy_se": None, "pairs": 2}) == "accuracy 0.500 on 2 test pairs"
