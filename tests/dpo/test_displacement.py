"""Likelihood displacement is told in a line, with what to do."""

import pytest
from trl_trainers import dpo_params

from rlhf_lib.dpo.displacement import told


def entry(chosen, rejected, logp):
    """An evaluation at beta 0.5 whose answers moved by so many nats."""
    return {"eval_rewards/chosen": chosen / 2, "eval_rewards/rejected": rejected / 2, "eval_logps/chosen": logp}


@pytest.mark.parametrize(
    ("evaluation", "is_told"),
    [
        (entry(-5.1, -20.0, -15.1), True),  # 10 nats before
        (entry(-4.9, -20.0, -14.9), False),
        (entry(3.0, -20.0, -7.0), False),
    ],
)
def test_it_is_told_where_the_negative_log_prob_grew_by_more_than_half(evaluation, is_told):
    log = [entry(-100.0, -100.0, -110.0), {"loss": 0.6}, evaluation, {"train_loss": 0.5}]
    assert (told(log, dpo_params()) is not None) is is_told


def test_the_line_says_what_to_do():
    line = told([entry(-15.0, -40.0, -25.0)], dpo_params())
    assert line == (
        "dpo: chosen answers have become less likely: their mean log-prob on the validation is -25.0, under the SFT "
        "model -10.0 (rejected ones: -40.0); lower dpo.learning_rate, raise dpo.beta, or add sft to dpo.loss_type "
        "(docs/dpo.md)"
    )
    with_sft = dpo_params(loss_type=["sigmoid", "sft"])
    assert "or give sft more weight in dpo.loss_weights (" in told([entry(-15.0, -40.0, -25.0)], with_sft)


def test_without_a_validation_nothing_is_told():
    assert told([{"loss": 0.6, "rewards/chosen": -9.0, "logps/chosen": -10.0}], dpo_params()) is None
