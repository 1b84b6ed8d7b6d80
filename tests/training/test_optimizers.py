"""Schedules and optimizers by transformers' names: which there are, what they take, and that trainers use them."""

import inspect
import re
from typing import get_args

import pytest
import torch
from one_line import told
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames
from trl_trainers import BUILD, TRAINER, sft_trainer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import optimizers
from rlhf_lib.training import trainer as training

# those of functions that every schedule has, or that the trainer gives
GIVEN = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "verbose"}


def test_the_schedules_are_those_of_transformers_with_their_options():
    assert set(get_args(optimizers.Schedule)) == {kind.value for kind in SchedulerType}
    functions = {kind.value: function for kind, function in TYPE_TO_SCHEDULER_FUNCTION.items()}
    functions |= {"reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau, "greedy": GreedyLR}
    for name, function in functions.items():
        options = set(inspect.signature(function).parameters) - GIVEN
        assert set(optimizers.SCHEDULE_OPTIONS[name]) == options, name


def test_the_optimizers_are_those_of_transformers_that_need_no_list_of_layers():
    names = {kind.value for kind in OptimizerNames}
    assert set(get_args(optimizers.Optimizer)) == {n for n in names if not n.startswith(("galore_", "apollo_"))}
    assert set(optimizers.OPTIM_ARGS) <= names


def rates(trainer, steps=10):
    """The learning rate of each of the steps, as the trainer would set them."""
    trainer.create_optimizer_and_scheduler(steps)
    found = []
    for _ in range(steps):
        found.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    return found


@pytest.mark.parametrize("what", BUILD)
def test_a_polynomial_of_power_2_falls_as_a_square(tiny, checkpoints, what):
    changes = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0, "lr_end": 0.0}}
    found = rates(BUILD[what](tiny, checkpoints, learning_rate=1.0, **changes))
    assert found == pytest.approx([(1 - step / 10) ** 2 for step in range(10)])


def test_the_warm_up_comes_before_the_polynomial(tiny, checkpoints):
    changes = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}, "warmup_steps": 2}
    found = rates(sft_trainer(tiny, checkpoints, learning_rate=1.0, **changes))
    assert found[:3] == pytest.approx([0.0, 0.5, 1.0]) and found[6] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("what", BUILD)
def test_a_trainer_has_the_optimizer_that_the_params_name(tiny, checkpoints, what):
    trainer = BUILD[what](tiny, checkpoints, optim="sgd", optim_args="momentum=0.5,nesterov=true", weight_decay=0.25)
    made = trainer.create_optimizer()
    assert type(made) is torch.optim.SGD
    assert made.defaults["momentum"] == 0.5 and made.defaults["nesterov"] is True
    assert {group["weight_decay"] for group in made.param_groups} == {0.25, 0.0}


@pytest.mark.parametrize("what", BUILD)
def test_adam_takes_its_epsilon_from_the_params(tiny, checkpoints, what):
    """With betas of 0 a step is lr * gradient / (|gradient| + epsilon): 3 and an epsilon of 1 give 3/4."""
    none = {"weight_decay": 0.0, "adam_beta1": 0.0, "adam_beta2": 0.0, "warmup_steps": 0.0, "learning_rate": 1.0}
    optimizer = BUILD[what](tiny, checkpoints, adam_epsilon=1.0, **none).create_optimizer()
    weight = optimizer.param_groups[0]["params"][0]
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, 3.0)
    optimizer.step()
    torch.testing.assert_close(before - weight.detach(), torch.full_like(weight, 0.75))


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd", "rmsprop", "adagrad"])
def test_an_optimizer_that_comes_with_torch_trains(tiny, checkpoints, optim):
    trainer = sft_trainer(tiny, checkpoints, optim=optim, max_steps=2)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    training.run(trainer, checkpoints)
    assert any(not before[name].equal(weight) for name, weight in trainer.model.named_parameters())


NEEDED = {  # options that a schedule cannot do without, or that a run of three steps needs
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-4},
    "warmup_stable_decay": {"num_decay_steps": 2},
    "greedy": {"min_lr": 1e-6},
}
PLAIN = [name for name in get_args(optimizers.Schedule) if name not in NEEDED]


@pytest.mark.parametrize("schedule", [*NEEDED, *(pytest.param(name, marks=pytest.mark.slow) for name in PLAIN)])
def test_every_schedule_trains(tiny, checkpoints, schedule):
    changes = {"lr_scheduler_type": schedule, "lr_scheduler_kwargs": NEEDED.get(schedule, {})}
    trainer = sft_trainer(tiny, checkpoints, max_steps=3, eval_steps=1, **changes)
    log = training.run(trainer, checkpoints)
    assert len([entry for entry in log if "loss" in entry]) == 3


@pytest.mark.parametrize(("strategy", "steps"), [("epoch", [3, 6]), ("steps", [2, 4, 6])])
def test_a_validation_comes_every_so_many_steps_or_after_each_pass(tiny, checkpoints, strategy, steps):
    changes = {"eval_strategy": strategy, "eval_steps": 2, "max_steps": -1, "num_train_epochs": 2.0}
    log = training.run(sft_trainer(tiny, checkpoints, **changes), checkpoints)
    assert [entry["step"] for entry in log if "eval_loss" in entry] == steps


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr_scheduler_kwargs": {"power": 2.0}}, ["lr_scheduler_kwargs.power: no option of linear", "none"]),
        (
            {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"pow": 2}},
            ["lr_scheduler_kwargs.pow: no option of polynomial", "lr_end, power"],
        ),
        (
            {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": "two"}},
            ["lr_scheduler_kwargs.power: must be a number, got 'two'"],
        ),
        ({"lr_scheduler_type": "polynomial", "learning_rate": 0.0}, ["learning_rate: a polynomial falls to", "1e-07"]),
        ({"lr_scheduler_type": "warmup_stable_decay"}, ["lr_scheduler_kwargs: warmup_stable_decay needs"]),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, ["lr_scheduler_kwargs: cosine_with_min_lr needs either"]),
        ({"optim_args": "momentum=0.9"}, ["optim_args: momentum: no option of adamw_torch_fused", "none"]),
        ({"optim": "sgd", "optim_args": "momentum"}, ["optim_args: must be a list such as momentum=0.9"]),
    ],
)
def test_options_that_do_not_go_together_are_told(changes, words):
    with pytest.raises(ValueError) as error:
        SFTParams(**{**TRAINER, "max_length": 64, **changes})
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim": "schedule_free_adamw"}, ["params.yaml: ppo.optim: schedule_free_adamw:", "schedulefree"]),
        ({"optim": "lomo"}, ["params.yaml: ppo.optim: lomo:", "lomo"]),
        ({"optim": "sgd", "optim_args": "momentum=much"}, ["params.yaml: ppo.optim: sgd:", "much"]),
        ({"optim": "sgd", "optim_args": "nesterov=true"}, ["params.yaml: ppo.optim: sgd:", "momentum"]),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"factor": 2.0}},
            ["params.yaml: ppo.lr_scheduler_kwargs: reduce_lr_on_plateau:", "Factor"],
        ),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 2, "decay_type": "x"},
            },
            ["params.yaml: ppo.lr_scheduler_kwargs: warmup_stable_decay:"],
        ),
    ],
)
def test_what_cannot_be_made_is_told_before_the_first_step(tiny, checkpoints, changes, words):
    """The section is that of the checkpoints' folder, ppo in these tests."""
    trainer = sft_trainer(tiny, checkpoints, **changes)
    line = told(training.run, trainer, checkpoints)
    assert all(word in line for word in words), line
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"num_decay_steps": 5}, "num_decay_steps: 5, but 4 of all 5 steps are left for it; set it to at most that"),
        (
            {"num_decay_steps": 2, "num_stable_steps": 1},
            "num_decay_steps: 2, but 3 of all 5 steps are left for it; set it to that, or leave num_stable_steps out",
        ),
        ({"num_decay_steps": 4}, None),
        ({"num_decay_steps": 2, "num_stable_steps": 2}, None),
    ],
)
def test_a_decay_takes_the_steps_that_are_left(tiny, checkpoints, options, refused):
    """Of a longer one transformers would leave out the beginning; behind a shorter one the rate would be 0."""
    schedule = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": options, "warmup_steps": 1}
    trainer = sft_trainer(tiny, checkpoints, max_steps=5, **schedule)
    if refused is None:
        rates = [entry["learning_rate"] for entry in training.run(trainer, checkpoints) if "loss" in entry]
        assert rates[1] == max(rates) == 1e-2 and 0 < rates[-1] < 1e-2
    else:
        with pytest.raises(ParamsError, match=re.escape(f"params.yaml: ppo.lr_scheduler_kwargs: {refused}")):
            training.run(trainer, checkpoints)
