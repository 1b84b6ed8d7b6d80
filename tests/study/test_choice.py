"""What is chosen on validation prompts, and that no test prompt has a say."""

import numpy as np
import pytest
from studies import DPO, PPO, STUDY, results

from rlhf_lib.study import choice
from rlhf_lib.study.design import Study
from rlhf_lib.study.results import collect, numbers


def sample(identity, draw=0, **values):
    scores = {"judge": 1.0, "logprob": -3.0, "ref_logprob": -5.0, "length": 4}
    return {"id": identity, "draw": draw, "mode": "t1", "prompt": [], "response": "", **scores, **values}


def test_the_setting_with_the_highest_mean_of_the_criterion_is_chosen():
    found = choice.best(STUDY, results([0.1, 0.5, 0.6, 0.2], [1.0, 0.5, 0.9, 0.3]))
    assert found == {"ppo": PPO[1], "dpo": DPO[0]}


def test_the_common_kl_is_one_that_every_method_reaches():
    assert choice.common_kl(STUDY, results([0.1] * 4, [2.0, 0.5, 0.9, 0.3])) == pytest.approx(0.9)


def test_a_control_does_not_set_the_common_kl():
    settings = {"ppo": PPO, "rft_random": DPO}
    found = results([0.1] * 4, [2.0, 0.5, 0.9, 0.3])
    assert choice.common_kl(Study("judge", (0, 1, 2), settings), found) == pytest.approx(2.0)


def test_settings_that_went_nowhere_leave_sft():
    found = results([0.1, 0.5, 0.6, 0.2], [-0.01, -0.02, 0.0, 0.3])
    assert choice.common_kl(STUDY, found) == 0
    assert choice.mixtures(STUDY, found, 0.0)["dpo"] == {DPO[0]: 1.0}


def test_mixtures_by_hand():
    # the scores are doubled in the judge, which is what counts: 0.8 and 0.4 of PPO at 2 and 0.5 nats
    found = choice.mixtures(STUDY, results([0.4, 0.2, 0.3, 0.1], [2.0, 0.5, 0.9, 0.3], noise=0), 0.8)
    # from (0.5, 0.4) to (2, 0.8) at 0.8: a fifth of the way
    assert found["ppo"] == {PPO[0]: pytest.approx(0.2), PPO[1]: pytest.approx(0.8)}
    # SFT at (0, 0) with DPO at (0.9, 0.6) is better than with (0.3, 0.2), as good as of both: the line is straight
    score = sum(weight * {DPO[0]: 0.6, DPO[1]: 0.2, None: 0.0}[part] for part, weight in found["dpo"].items())
    assert score == pytest.approx(0.6 * 0.8 / 0.9)


def test_a_setting_within_the_kl_beats_mixtures_that_are_worse():
    found = choice.mixtures(STUDY, results([0.1, 0.5, 0.2, 0.6], [2.0, 0.5, 0.9, 0.3], noise=0), 0.8)
    assert found == {"ppo": {PPO[1]: 1.0}, "dpo": {DPO[1]: 1.0}}


def test_where_every_setting_is_worse_than_sft_nothing_is_mixed_in():
    found = choice.mixtures(STUDY, results([-0.1, -0.5, -0.2, -0.6], [2.0, 0.5, 0.9, 0.3], noise=0), 0.8)
    assert found == {"ppo": {None: 1.0}, "dpo": {None: 1.0}}


def test_a_mixture_has_the_mean_of_its_parts():
    found = results([0.4, 0.2, 0.3, 0.1], [2.0, 0.5, 0.9, 0.3], noise=0)
    mixed = choice.mixed(found, {PPO[0]: 0.25, None: 0.75}, "kl", 3)
    assert mixed.shape == (60, 3) and mixed == pytest.approx(np.full((60, 3), 0.5))


def test_no_experiment_of_the_test_split_is_read_before_the_choice():
    read = []

    def reader(run, policy):
        read.append((run.split, policy))
        return [sample("a"), sample("b")]

    validation = collect(STUDY, "validation", "t1", reader)
    choice.best(STUDY, validation), choice.mixtures(STUDY, validation, choice.common_kl(STUDY, validation))
    assert {split for split, _ in read} == {"validation"}
    assert {policy for _, policy in read} == {"sft", "ppo", "dpo"}


def test_what_an_experiment_of_validation_reads():
    (overrides,) = {tuple(run.overrides(1.0)[-2:]) for run in STUDY.runs("validation")}
    assert overrides == ("evaluate.split=prompts_validation", "evaluate.temperatures=[1]")


def test_numbers_are_means_over_the_draws_of_a_prompt_in_the_order_of_ids():
    found = numbers([sample("b", judge=1.0), sample("a", judge=5.0), sample("b", 1, judge=2.0, logprob=-1.0)])
    assert found["judge"] == pytest.approx([5.0, 1.5])
    assert found["kl"] == pytest.approx([2.0, 3.0])
    assert "gold" not in found


def test_experiments_of_other_prompts_are_told():
    def reader(run, policy):
        return [sample("a"), *([sample("b")] if policy == "sft" else [])]

    with pytest.raises(SystemExit, match=r"study-ppo-kl_coef0.05-seed0-test: not the prompts of the other"):
        collect(STUDY, "test", "t1", reader)
