"""Win rates controlled for length."""

import math

import numpy as np
import pytest

from rlhf_lib.measure import length_control
from rlhf_lib.measure.comparison import same_draw
from rlhf_lib.measure.length_control import PRIOR, Match, controlled


def sigmoid(odds):
    return 1 / (1 + math.exp(-odds))


def many(*kinds):
    """Pairs of prompts of their own: (how many, win, characters longer)."""
    wins = [(win, longer) for count, win, longer in kinds for _ in range(count)]
    return [Match(str(number), win, longer) for number, (win, longer) in enumerate(wins)]


def test_a_judge_that_looks_at_length_alone_sees_no_difference():
    """Of 1,000 pairs 800 are longer and 90 % of those win; of the 200 that are as much shorter, 10 %."""
    pairs = many((720, 1, 50), (80, 0, 50), (20, 1, -50), (180, 0, -50))
    value, error = controlled(pairs)
    assert sum(pair.win for pair in pairs) / 1000 == 0.74
    assert value == pytest.approx(0.5, abs=0.001) and error < 0.04


def test_two_lengths_by_hand():
    """Two lengths and two coefficients: the fit is exact, but for the prior. 60 % of the 400 longer ones and 40 % of
    the 100 shorter ones win, so with x the tanh of the scaled difference: theta + phi x = logit .6, theta - phi y =
    logit .4."""
    pairs = many((240, 1, 30), (160, 0, 30), (40, 1, -10), (60, 0, -10))
    deviation = math.sqrt((400 * 8**2 + 100 * 32**2) / 499)  # about the mean of 22
    x, y = math.tanh(30 / deviation), math.tanh(10 / deviation)
    phi = 2 * math.log(1.5) / (x + y)
    assert controlled(pairs)[0] == pytest.approx(sigmoid(math.log(1.5) - phi * x), abs=0.001)


def test_the_prior_is_that_of_a_normal_distribution():
    """All longer ones win, all shorter ones lose, as many of each, and answers of equal length tie: theta is 0, and phi
    the root of the likelihood's slope, 40 x (1 - sigmoid(phi x)) = phi / 25."""
    value, error = controlled(many((20, 1, 7), (20, 0, -7), (10, 0.5, 0)))
    x = math.tanh(7 / (7 * math.sqrt(40 / 49)))
    low, high = 0.0, 50.0
    for _ in range(60):
        phi = (low + high) / 2
        low, high = (phi, high) if 40 * x * (1 - sigmoid(phi * x)) > phi / PRIOR**2 else (low, phi)
    # the curvature is diagonal, c of theta and d of phi; to leave a prompt out takes v (1, x; x, x x) from it
    rate = sigmoid(phi * x)
    v = rate * (1 - rate)
    c, d = 40 * v + 10 / 4, 40 * v * x**2 + 1 / PRIOR**2
    shift = (1 - rate) * d / ((c - v) * (d - v * x**2) - (v * x) ** 2)  # of the 40 that do not tie
    by_hand = math.sqrt(49 / 50 * 40 * shift**2) / 4
    assert value == pytest.approx(0.5) and error == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(
    "kinds",
    [
        [(20, 1, 7), (20, 0, -7)],
        [(20, 1, 9), (20, 0, 3)],
        [(20, 0, 9), (20, 1, 3)],
        [(20, 1, 9), (20, 0.5, 3)],
        [(20, 1, 9), (20, 0.5, 3), (20, 0, 0)],
        [(20, 1, 9), (20, 1, 3), (20, 0, 3)],
        [(20, 1, 5), (20, 0, 5)],
    ],
)
def test_where_length_alone_tells_wins_from_losses_nothing_is_known(kinds):
    mirrored = [(count, 1 - win, -longer) for count, win, longer in kinds]
    assert controlled(many(*kinds)) == controlled(many(*mirrored)) == (None, None)


@pytest.mark.parametrize("wins", [[1, 0, 1, 1, 0.5], [0.5, 0.5, 0.5], [0.2, 0.9, 0.4]])
def test_answers_of_equal_length_have_the_raw_win_rate_and_its_error(wins):
    value, error = controlled([Match(str(place), win, 0) for place, win in enumerate(wins)])
    assert value == pytest.approx(np.mean(wins))
    assert error == pytest.approx(np.std(wins, ddof=1) / math.sqrt(len(wins)), abs=1e-12)


def test_all_won_is_the_raw_win_rate():
    error = pytest.approx((1 - 0.05 ** (1 / 30)) / 2)  # of 30 alike, as of any share
    assert controlled(many((20, 1, 3), (10, 1, -8))) == (1, error)
    assert controlled(many((30, 0, 5))) == (0, error)


def test_where_no_answer_is_shorter_the_error_says_that_nothing_is_known():
    """Were phi 5, theta would be far below: the win rate at equal length could be anything."""
    value, error = controlled(many((35, 1, 40), (15, 0, 40), (35, 1, 41), (15, 0, 41)))
    assert 0 < value < 1 and error > 0.5


def test_draws_of_one_prompt_are_one_observation():
    once = [*many((30, 1, 10), (20, 0, 4), (12, 1, -6), (30, 0, -10))]
    value, error = controlled(once)
    assert controlled([*once, *once]) == pytest.approx((value, error))
    uneven = [pair._replace(weight=pair.weight * 7) if int(pair.prompt) % 3 else pair for pair in once]
    assert controlled(uneven) == pytest.approx((value, error))  # prompts weigh the same
    ignored = [*once, *(pair._replace(win=1 - pair.win, weight=0) for pair in once)]
    assert controlled(ignored) == pytest.approx((value, error))


def test_of_fewer_than_two_prompts_nothing_is_known():
    assert controlled([]) == controlled(many((1, 1, 2))) == (None, None)
    assert controlled([Match("a", 1, 2), Match("a", 0, -3)]) == (None, None)


def test_the_interval_covers():
    """300 studies of 100 prompts with two answers each, alike in length; the answers are a third of a deviation longer,
    and the longer ones more likely to win. 95 % of the intervals hold the rate at equal length; the raw rate is far."""
    rng = np.random.default_rng(0)
    covered, raw = 0, []
    for _ in range(300):
        longer = 20 + 60 * (0.8 * rng.normal(size=(100, 1)) + 0.6 * rng.normal(size=(100, 2)))
        won = rng.random((100, 2)) < 1 / (1 + np.exp(-0.5 - 1.5 * np.tanh(longer / 60)))
        pairs = [Match(str(i), float(won[i, j]), longer[i, j]) for i in range(100) for j in range(2)]
        value, error = controlled(pairs)
        covered += abs(value - sigmoid(0.5)) < 1.96 * error
        raw.append(won.mean())
    assert 0.92 <= covered / 300 <= 0.98
    assert np.mean(raw) > sigmoid(0.5) + 0.04


def test_pairs_are_of_one_prompt_and_draw_in_characters():
    def sample(prompt, draw, judge, response):
        return {"id": prompt, "draw": draw, "judge": judge, "response": response}

    mine = [sample("a", 0, 1.0, "four"), sample("a", 1, 0.0, ""), sample("b", 0, 0.5, "Zoë"), sample("c", 0, 9.0, "x")]
    theirs = [sample("b", 0, 0.5, "Zo"), sample("a", 1, 2.0, "12345"), sample("a", 0, 0.0, "twelve words")]
    assert length_control.matches(mine, same_draw(theirs)) == [
        Match("a", 1.0, -8),
        Match("a", 0.0, -5),
        Match("b", 0.5, 1),
    ]
    weighted = length_control.matches(mine[:1], lambda sample: theirs[1:], [3.0])
    assert weighted == [Match("a", 0.0, -1, 1.5), Match("a", 1.0, -8, 1.5)]
