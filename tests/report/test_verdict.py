"""The report's verdict, and the numbers and over-optimisation in it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from report_project import overoptimisation

from rlhf_lib.common.policies import LABELS, METHODS, POLICIES
from rlhf_lib.report.tables import difference_table
from rlhf_lib.report.verdict import (
    Difference,
    Verdict,
    at_kl,
    best_of_n_points,
    comparison_metrics,
    difference,
    mode_label,
    number,
    plus_minus,
    verdict,
)
from rlhf_lib.report.verdict import overoptimisation as told_of_overoptimisation

# ---- numbers


def test_numbers_have_real_minus_signs_and_no_minus_before_zero():
    assert number(-1.25, 1) == "−1.2" and number(-0.001, 2) == "0.00" and number(-0.001, 2, "+") == "+0.00"
    assert number(12345.6, 0) == "12,346"
    assert plus_minus(-0.5, 0.25, "+") == "−0.500 ± 0.250" and plus_minus(0.5, None) == "0.500"


def test_a_difference_is_clear_from_two_standard_errors():
    assert Difference(0.2, 0.1).clear and Difference(-0.2, 0.1).clear and not Difference(0.19, 0.1).clear
    assert not Difference(0.0, 0.0).clear and not Difference(5.0, None).clear


def test_modes_as_people_write_them():
    assert [mode_label(mode) for mode in ("t1", "t0_7", "t1_25", "greedy")] == ["T=1", "T=0.7", "T=1.25", "greedy"]


def test_a_difference_is_paired_by_prompt_over_those_that_have_the_number():
    def samples(**by_prompt):
        return [{"id": p, "draw": i, "gold": v} for p, values in by_prompt.items() for i, v in enumerate(values)]

    one = samples(a=[1.0, 0.5], b=[0.25], c=[None], d=[9.0])
    other = samples(b=[0.0], a=[0.25, 0.25], c=[1.0])
    found = difference(one, other, "gold")  # a: 0.5, b: 0.25
    assert found.value == pytest.approx(0.375) and found.se == pytest.approx(0.125)
    assert difference(one, other, "judge") is None and difference(one, [], "gold") is None


# ---- the verdict


def test_the_better_policy_is_named_first_with_the_paired_difference(load):
    found = load()
    told = verdict(found)
    means = [f"{found.measured(p)['gold']:.3f}" for p in ("ppo", "dpo")]
    pair = comparison_metrics(found)["t1"]["ppo_minus_dpo"]
    assert told.headline == (
        f"PPO did better than DPO: true quality is {means[0]} against {means[1]}, "
        f"a difference of +{pair['gold']:.3f} ± {pair['gold_se']:.3f} paired by prompt."
    )
    text = " ".join(told.details)
    assert "PPO is better than SFT (+" in text and "DPO is better than SFT (+" in text
    assert f"at a KL of {found.measured('dpo')['kl']:.3f} ± {found.measured('dpo')['kl_se']:.3f} nats" in text
    assert "The judge prefers PPO" in text
    assert "rests on 30 test prompts, 2 answers each at T=1" in text and "does not cover another seed" in text


def test_of_three_methods_the_two_best_are_the_headline_and_the_third_is_told_beside_the_best(load, monkeypatch):
    for table, entry in ((POLICIES, POLICIES["dpo"]), (METHODS, POLICIES["dpo"]), (LABELS, "KTO")):
        monkeypatch.setitem(table, "kto", entry)
    found = load(policies=("sft", "ppo", "dpo", "kto"), kto=1.5)
    told, numbers = verdict(found), comparison_metrics(found)["t1"]
    assert told.headline.startswith("KTO did better than PPO: ")
    assert told.details[0].startswith("KTO did better than DPO: ")
    pairs = ["ppo_minus_dpo", "ppo_minus_kto", "dpo_minus_kto"]
    assert [name for name in numbers if "minus" in name] == pairs and "dpo_over_kto" in numbers
    assert numbers["ppo_minus_kto"]["gold"] == pytest.approx(
        numbers["ppo_minus_dpo"]["gold"] + numbers["dpo_minus_kto"]["gold"]
    )
    assert [title for title, _ in difference_table(found).groups] == ["PPO − DPO", "PPO − KTO", "DPO − KTO"]


def test_dpo_can_be_better_and_both_worse_than_sft(load):
    told = verdict(load(ppo=-2.0, dpo=-1.0))
    assert told.headline.startswith("DPO did better than PPO: ") and "a difference of +" in told.headline
    assert sum(line.startswith(("PPO is worse than SFT (−", "DPO is worse than SFT (−")) for line in told.details) == 2
    assert any(line.startswith("The judge prefers DPO (PPO − DPO: −") for line in told.details)


def test_no_difference_is_said_to_be_none(load):
    told = verdict(load(ppo=0.3, dpo=0.3))
    assert told.headline.startswith("No clear difference between PPO and DPO: true quality is ")
    assert any(line.startswith("The judge sees no difference") for line in told.details)


def test_one_branch_is_compared_with_sft_and_the_other_asked_for(load):
    told = verdict(load(policies=("sft", "dpo")))
    assert told.headline.startswith("DPO did better than SFT: ")
    assert told.headline.endswith("PPO has not been evaluated yet (dvc repro measure@ppo).")
    assert not any("PPO" in line for line in told.details)


def test_without_a_branch_there_is_no_verdict(load):
    assert verdict(load(policies=("sft",))).headline == (
        "No verdict yet: PPO and DPO have not been evaluated yet (dvc repro measure@ppo measure@dpo)."
    )


def test_the_judge_decides_where_true_quality_is_not_known(load):
    told = verdict(load(gold=False))
    assert told.headline.startswith("PPO did better than DPO: the judge's score is ")
    assert "rue quality" not in " ".join([told.headline, *told.details]) and "prefers" not in " ".join(told.details)


def test_the_training_reward_never_decides(load):
    found = load(gold=False)
    numbers = {
        p: {m: {k: v for k, v in n.items() if k != "judge"} for m, n in e.items()} for p, e in found.evaluations.items()
    }
    told = verdict(replace(found, evaluations=numbers))
    assert told == Verdict(told.headline) and told.headline.startswith("No verdict: neither true quality nor a judge")


def test_best_of_n_is_interpolated_in_the_root_of_the_kl():
    points = [(0.0, 0.5, 0.02), (0.25, 0.6, 0.03), (1.0, 0.9, 0.04)]
    assert at_kl(points, 0.0) == pytest.approx((0.5, 0.02)) and at_kl(points, -0.1) == pytest.approx((0.5, 0.02))
    assert at_kl(points, 0.0625) == pytest.approx((0.55, math.hypot(0.01, 0.015)))
    assert at_kl(points, 1.0) == pytest.approx((0.9, 0.04)) and at_kl(points, 1.01) is None


def test_a_policy_stands_above_below_or_beyond_best_of_n(load):
    found = load()
    kl = found.measured("ppo")["kl"]
    mean, se = at_kl(best_of_n_points(found, "gold"), kl)
    measured = found.measured("ppo")
    gap = plus_minus(measured["gold"] - mean, math.hypot(measured["gold_se"], se), "+")
    (line,) = [line for line in verdict(found).details if line.startswith("Against best-of-n")]
    assert gap in line.split("PPO: ")[1].split(";")[0]

    measured["gold"] = mean + 1
    assert "PPO: above it (+1.000" in " ".join(verdict(found).details)
    measured["kl"] = 5.0
    assert "PPO: further from SFT (5.00 nats) than the largest n (1.20)" in " ".join(verdict(found).details)
    assert not [line for line in verdict(replace(found, best_of_n={})).details if "best-of-n" in line]


# ---- over-optimisation


def test_a_fall_of_quality_while_the_reward_rises_is_told():
    gold, judge = told_of_overoptimisation(overoptimisation(gold=True))
    assert gold == (
        "True quality fell after rollout 50, from 0.600 to 0.400 (−0.200 ± 0.021), "
        "while the reward rose (+0.750 ± 0.071): the policy over-optimised the reward."
    )
    assert judge.startswith("The judge's score did not clearly fall: 1.000 at the last rollout (100)")


def test_a_fall_within_the_errors_is_none():
    gold, _ = told_of_overoptimisation(overoptimisation(gold=True, fall=0.12))  # 0.600 to 0.580, ± 0.021
    assert gold.startswith("True quality did not clearly fall: 0.580 at the last rollout (100), 0.600")


def test_a_fall_without_a_rise_of_the_reward_is_not_its_doing():
    curve = [{**row, "reward": 1.0} for row in overoptimisation(gold=True)]
    assert "the reward did not clearly rise in that time" in told_of_overoptimisation(curve)[0]


def test_what_is_not_known_is_not_told():
    assert len(told_of_overoptimisation(overoptimisation(gold=False))) == 1 and told_of_overoptimisation([]) == []
