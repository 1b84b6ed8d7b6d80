import json
import math

import numpy as np
import pytest

from rlhf_lib.attainable import numbers
from rlhf_lib.attainable.numbers import Answers

LN3 = math.log(3)
SFT = [
    {"id": "a", "score": 0.0, "gold": 1.0},
    {"id": "a", "score": LN3, "gold": 0.0},
    {"id": "b", "score": LN3, "gold": 0.5},
    {"id": "b", "score": 0.0, "gold": 0.5},
]


def test_the_best_policy_by_hand():
    """Of both prompts the powers are 1 and 3; see the two answers of test_estimates."""
    found = numbers.optimum(Answers.of(SFT), 1.0)
    assert found["objective"] == pytest.approx(2 * math.log(2) - LN3 / 2)
    assert found["objective_bias"] == pytest.approx(LN3 / 2 - math.log(2))
    assert found["objective_se"] == pytest.approx(0, abs=1e-12)
    assert found["score"] == pytest.approx(LN3)
    assert found["kl"] == pytest.approx(1.5 * LN3 - 2 * math.log(2))
    assert found["gold"] == pytest.approx((2 * 0.25 - 0.5 + 0.5) / 2) and found["gold_se"] == pytest.approx(0.25)
    assert (found["ess"], found["low_ess"], found["beta"]) == (pytest.approx(1.6), 1.0, 1.0)
    assert "judge" not in found
    assert found["score_gain"] == pytest.approx(LN3 / 2) and found["gold_gain"] == pytest.approx(-0.25)
    assert found["objective_gain"] == pytest.approx(2 * math.log(2) - LN3)


def test_the_sft_model_is_the_mean_of_its_answers():
    found = numbers.of_sft(Answers.of(SFT))
    assert found["score"] == pytest.approx(LN3 / 2) and found["gold"] == pytest.approx(0.5)


def test_a_beta_of_0_stands_for_the_best_of_n():
    found = numbers.optimum(Answers.of(SFT), 0.0)
    assert found["ess"] == pytest.approx(1) and found["beta"] == 0
    assert found["objective"] == pytest.approx(1.5 * LN3, abs=1e-5)  # with the jackknife of a maximum


def test_the_curve_has_a_row_for_each_beta_once():
    rows = numbers.curve(Answers.of(SFT), [9.0, 0.5, 3.0, 9.0])
    assert [row["beta"] for row in rows] == [0.5, 3.0, 9.0]
    assert [*rows[0]] == [
        *("beta", "kl", "kl_se", "score", "score_se", "objective", "objective_se", "gold", "gold_se", "ess", "ess_se"),
        *("score_gain", "score_gain_se", "objective_gain", "objective_gain_se", "gold_gain", "gold_gain_se"),
    ]


def answers(prompts=40, n=64, seed=0):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(prompts, n)) + random.normal(size=(prompts, 1))
    gold = 1 / (1 + np.exp(-scores + random.normal(size=(prompts, n))))
    return Answers([str(i) for i in range(prompts)], scores, {"gold": gold})


def policy(of, score, kl, gold):
    """A sample of each prompt, with these numbers."""
    rows = zip(of.ids, score, kl, gold, strict=True)
    return [{"id": i, "score": s, "gold": g, "logprob": k - 5.0, "ref_logprob": -5.0} for i, s, k, g in rows]


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_a_policy_that_is_the_best_one_got_all(beta):
    of = answers()
    best = of.best(beta)
    found = numbers.of_policy(of, policy(of, best.reward, best.kl, best.values["gold"]), beta)
    assert found["objective"] == pytest.approx(best.objective.mean())
    assert found["objective_share"] == pytest.approx(1) and found["objective_share_se"] == pytest.approx(0, abs=1e-9)
    assert found["beta_at_kl"] == pytest.approx(beta, rel=1e-5)
    assert found["score_share"] == pytest.approx(1) and found["score_gap"] == pytest.approx(0, abs=1e-6)
    assert found["score_gap_se"] == pytest.approx(0, abs=1e-4)
    assert found["gold_gap"] == pytest.approx(0, abs=1e-6)
    assert found["gold_gain_at_kl"] == pytest.approx((best.values["gold"] - of.values["gold"].mean(axis=1)).mean())


def test_half_the_gain_for_the_same_kl_is_half():
    of = answers()
    best, sft = of.best(1.0), of.scores.mean(axis=1)
    found = numbers.of_policy(of, policy(of, (sft + best.reward) / 2, best.kl, of.values["gold"].mean(axis=1)), 1.0)
    assert found["score_share"] == pytest.approx(0.5)
    gained = (best.reward - sft).mean()
    assert found["score_gap"] == pytest.approx(gained / 2)
    # the same KL costs it what it costs the best one
    assert found["objective_share"] == pytest.approx((gained / 2 - best.kl.mean()) / (gained - best.kl.mean()))
    assert found["gold_gap"] == pytest.approx(found["gold_gain_at_kl"]) and found["gold_gap"] > 0


def test_each_prompt_is_compared_at_the_kl_that_the_policy_has_there():
    """Where it is further than the best one it may have more for it: beta a nat of the score, and of the rest what the
    best policies of like betas have more a nat."""
    of, beta, off = answers(), 0.8, np.linspace(-1, 1, 40)
    best, less, more = (of.best(beta * step) for step in (1.0, 1.002, 0.998))
    slope = (more.values["gold"].mean() - less.values["gold"].mean()) / (more.kl.mean() - less.kl.mean())
    along = policy(of, best.reward + beta * off, best.kl + off, best.values["gold"] + slope * off)
    found = numbers.of_policy(of, along, beta)
    assert found["score_gap_se"] < 1e-3 and found["gold_gap_se"] < 1e-3 < slope / 20
    assert found["score_gap"] == pytest.approx(0, abs=1e-6) and found["gold_gap"] == pytest.approx(0, abs=1e-6)


def test_a_policy_that_went_nowhere_got_nothing():
    of = answers()
    found = numbers.of_policy(of, policy(of, of.scores.mean(axis=1), np.zeros(40), of.values["gold"].mean(axis=1)), 0.5)
    assert found["objective_share"] == pytest.approx(0, abs=1e-9)
    assert "beta_at_kl" not in found and "score_share" not in found


def test_what_is_further_than_the_answers_tell_has_no_best_policy_beside_it():
    of = answers(n=8)
    found = numbers.of_policy(of, policy(of, of.scores.max(axis=1), np.full(40, 9.0), of.values["gold"].max(axis=1)), 1)
    assert found["kl"] == pytest.approx(9) and "score_share" not in found
    assert list(numbers.doubts({"n": 8, "beta": 1, "ess": 50.0, "policies": {"ppo": found}})) == [
        "ppo is 9.00 nats from the SFT model, further than 8 answers tell"
    ]


def test_a_policy_without_some_of_the_prompts_is_left_out():
    of = answers()
    samples = policy(of, of.scores.mean(axis=1), np.zeros(40), of.values["gold"].mean(axis=1))
    assert numbers.of_policy(of, samples[1:], 0.5) == {}
    assert numbers.summary(of, {"dpo": samples[1:]}, 0.5)["policies"] == {}


@pytest.mark.slow
def test_errors_cover_what_other_prompts_would_have_given():
    """Of 200 sets of prompts, the spread of each estimate is what its standard errors say."""
    found = []
    for seed in range(200):
        of = answers(prompts=30, seed=seed)
        random, best = np.random.default_rng(seed + 1000), of.best(0.8)
        score, kl = best.reward - 0.3 + random.normal(size=30) / 2, best.kl + random.normal(size=30) / 2
        found.append(numbers.of_policy(of, policy(of, score, kl, best.values["gold"]), 0.8))
    for key in ("objective_share", "score_share", "score_gap", "gold_gap", "score_at_kl"):
        spread = np.std([one[key] for one in found])
        assert np.mean([one[f"{key}_se"] for one in found]) == pytest.approx(spread, rel=0.25)


def test_few_effective_answers_are_told():
    found = {"n": 64, "beta": 0.2, "ess": 11.26, "policies": {"ppo": {"kl": 1.0, "beta_at_kl": 0.3, "ess_at_kl": 29.0}}}
    assert list(numbers.doubts(found)) == [
        "effective sample size 11.3 of 64 answers to a prompt at beta 0.2: below 30, the estimate leans on few "
        "answers; raise attainable.n",
        "effective sample size 29.0 of 64 answers at the KL of ppo: below 30",
    ]
    enough = {"kl": 1.0, "beta_at_kl": 0.3, "ess_at_kl": 30.0}
    assert list(numbers.doubts({**found, "ess": 30.0, "policies": {"ppo": enough}})) == []


def test_one_prompt_has_no_errors():
    of = Answers.of(SFT[:2])
    found = numbers.summary(of, {"ppo": policy(of, [1.0], [0.1], [0.5])}, 1.0)
    assert found["objective_se"] is None and found["policies"]["ppo"]["objective_share_se"] is None
    assert json.dumps(found)
