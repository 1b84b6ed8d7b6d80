"""PPO's optimizer and schedule by the names of TrainingArguments."""

import pytest
import torch
from shipped_params import check_fault
from trained import rows

from rlhf_lib.training import trainer as training


def test_a_polynomial_of_power_2_falls_over_all_optimizer_steps(build, checkpoints):
    """Two rollouts of two passes over two minibatches are eight steps."""
    polynomial = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0, "lr_end": 0.0}}
    trainer = build(learning_rate=0.01, **polynomial)
    training.run(trainer, checkpoints)
    found = [row["learning_rate"] for row in rows(trainer, "loss")]
    assert trainer.state.global_step == 8
    assert found == pytest.approx([0.01 * (1 - step / 8) ** 2 for step in (3, 7)], abs=1e-9)


@pytest.mark.parametrize("critic", [None, 0.5])
def test_the_optimizer_is_the_one_that_the_params_name(build, checkpoints, critic):
    trainer = build(optim="sgd", optim_args="momentum=0.5", critic_learning_rate=critic, lr_scheduler_type="constant")
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    training.run(trainer, checkpoints)
    made = trainer.optimizer.optimizer
    assert type(made) is torch.optim.SGD and {group["momentum"] for group in made.param_groups} == {0.5}
    assert {group["lr"] for group in made.param_groups} == {1e-3, *([critic] if critic else [])}
    assert any(not before[name].equal(weight) for name, weight in trainer.model.named_parameters())


@pytest.mark.parametrize("critic", [None, 0.5])
def test_adam_takes_its_epsilon_from_the_params(build, critic):
    made = build(adam_epsilon=0.25, critic_learning_rate=critic).create_optimizer()
    assert {group["eps"] for group in made.param_groups} == {0.25}


def test_a_schedule_that_goes_by_a_validation_loss_is_told():
    line = check_fault("ppo", {"lr_scheduler_type": "reduce_lr_on_plateau"})
    assert "ppo.lr_scheduler_type: reduce_lr_on_plateau goes by a validation loss; ppo has none" in line
