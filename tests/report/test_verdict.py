"""The report's verdict, and the numbers and over-optimisation in it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
from report_project import overoptimisation

from rlhf_lib.common.policies import LABELS, METHODS, POLICIES
from rlhf_lib.measure.estimates import mean_and_se
from rlhf_lib.report.differences import Difference, count, difference, number, plus_minus
from rlhf_lib.report.tables import difference_table
from rlhf_lib.report.verdict import Verdict, at_kl, best_of_n_points, comparison_metrics, mode_label, verdict
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


def test_of_several_differences_each_is_asked_for_more():
    def gaps(*errors):
        return [(Difference(0.1 * e, 0.1), 30) for e in errors]

    # of two errors p is 0.0455; of 2.3 it is 0.0214, of 2.4 0.0164, of 2.5 0.0124
    assert count(gaps(2.0)) == [True] and count(gaps(1.99)) == [False]
    assert count(gaps(-2.3, 2.0)) == [True, True] and count(gaps(2.2, 2.0)) == [False, False]
    assert count(gaps(1.0, 2.5, 2.4)) == [False, True, True] and count(gaps(1.0, 2.4, 2.3)) == [False, False, False]
    assert count([(None, 0), *gaps(2.3), (Difference(5.0, None), 30), (Difference(0.0, 0.0), 30)]) == [False] * 4
    assert count([]) == []


def test_on_few_prompts_no_difference_counts():
    assert count([(Difference(0.5, 0.1), 29)]) == [False] and count([(Difference(0.5, 0.1), 30)]) == [True]


def test_of_five_methods_that_are_alike_none_is_told_to_be_better_as_a_rule():
    """Of the 10 pairs one or more is two errors apart in a quarter of all studies."""
    generator = np.random.default_rng(0)
    called = bare = 0
    for _ in range(300):
        answers = generator.normal(0, 1, (5, 100))
        gaps = [Difference(*mean_and_se((a - b).tolist())) for a, b in combinations(answers, 2)]
        called += any(count((gap, 100) for gap in gaps))
        bare += any(gap.clear for gap in gaps)
    assert called <= 20 and bare >= 60


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


def test_the_third_of_three_methods_is_compared_beside_the_other_pairs(load, monkeypatch):
    for table, entry in ((POLICIES, POLICIES["dpo"]), (METHODS, POLICIES["dpo"]), (LABELS, "KTO")):
        monkeypatch.setitem(table, "kto", entry)
    found = load(policies=("sft", "ppo", "dpo", "kto"), ppo=0.0, dpo=0.1, kto=0.0)
    third = difference(found.drawn("dpo"), found.drawn("kto"), "gold")
    assert 2 < third.value / third.se < 2.39  # of two errors alone, and of less than three pairs ask for
    assert verdict(found).details[0].startswith("No clear difference between DPO and KTO: ")


def test_methods_of_different_prompts_are_compared_on_those_of_both(load):
    found = load(prompts=50)
    samples = {policy: dict(modes) for policy, modes in found.samples.items()}
    first = sorted({sample["id"] for sample in samples["dpo"]["t1"]})[:31]
    samples["dpo"]["t1"] = [sample for sample in samples["dpo"]["t1"] if sample["id"] in first]
    headline = verdict(replace(found, samples=samples)).headline
    means = [fmean(s["gold"] for s in samples[policy]["t1"] if s["id"] in first) for policy in ("ppo", "dpo")]
    assert abs(means[0] - found.measured("ppo")["gold"]) > 0.001
    shown = f"true quality is {means[0]:.3f} against {means[1]:.3f}, a difference of +{means[0] - means[1]:.3f} ± "
    assert headline.startswith(f"PPO did better than DPO: {shown}") and headline.endswith(
        "prompt, on the 31 prompts of both."
    )

    samples["dpo"]["t1"] = [sample for sample in samples["dpo"]["t1"] if sample["id"] in first[:29]]
    headline = verdict(replace(found, samples=samples)).headline
    assert headline.startswith("No clear difference") and headline.endswith(
        "on the 29 prompts of both (n = 29: too few to tell)."
    )

    samples["dpo"]["t1"] = []
    told = verdict(replace(found, samples=samples))
    assert told.headline == "PPO and DPO cannot be compared: their samples share no prompt."


def test_dpo_can_be_better_and_both_worse_than_sft(load):
    told = verdict(load(ppo=-2.0, dpo=-1.0))
    assert told.headline.startswith("DPO did better than PPO: ") and "a difference of +" in told.headline
    assert sum(line.startswith(("PPO is worse than SFT (−", "DPO is worse than SFT (−")) for line in told.details) == 2
    assert any(line.startswith("The judge prefers DPO (PPO − DPO: −") for line in told.details)


def test_no_difference_is_said_to_be_none(load):
    told = verdict(load(ppo=0.3, dpo=0.3))
    assert told.headline.startswith("No clear difference between PPO and DPO: true quality is ")
    assert any(line.startswith("The judge sees no clear difference between PPO and DPO (") for line in told.details)


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


def test_rollouts_without_the_number_are_passed_over():
    known = overoptimisation(gold=True)
    cut = [{**row, "gold": None} if row["rollout"] in (20, 90, 100) else row for row in known]
    told = told_of_overoptimisation(cut)[0]
    assert told.startswith("True quality fell after rollout 50, from 0.600 to 0.480 (−0.120 ± 0.021), while")


def test_a_fall_within_the_errors_is_none():
    gold, _ = told_of_overoptimisation(overoptimisation(gold=True, fall=0.12))  # 0.600 to 0.580, ± 0.021
    assert gold.startswith("True quality did not clearly fall: 0.580 at the last rollout (100), 0.600")


def test_the_highest_of_many_is_higher_by_chance():
    """The last evaluation is 2.5 errors of the difference below the highest one."""
    curve = [{"rollout": i, "gold": 0.5, "gold_se": 0.02, "reward": 0.1 * i, "reward_se": 0.02} for i in range(11)]
    curve[-1]["gold"] = 0.5 - 2.5 * math.hypot(0.02, 0.02)
    assert told_of_overoptimisation(curve)[0].startswith("True quality did not clearly fall: 0.429 at the last")
    assert told_of_overoptimisation(curve[-3:])[0].startswith("True quality fell after rollout 8, from 0.500 to 0.429")


def test_of_one_validation_prompt_no_fall_is_clear():
    curve = [{**row, "gold_se": None} for row in overoptimisation(gold=True)]
    told = told_of_overoptimisation(curve)[0]
    assert told.startswith("True quality did not clearly fall: 0.400 at the last rollout (100), 0.600 at its highest")


def test_a_fall_without_a_rise_of_the_reward_is_not_its_doing():
    curve = [{**row, "reward": 1.0} for row in overoptimisation(gold=True)]
    assert "the reward did not clearly rise in that time" in told_of_overoptimisation(curve)[0]


def test_what_is_not_known_is_not_told():
    assert len(told_of_overoptimisation(overoptimisation(gold=False))) == 1 and told_of_overoptimisation([]) == []
