"""A training that diverges ends in one line, exports nothing, and leaves no checkpoint to resume from."""

import math
from pathlib import Path

import pytest
import torch
from one_line import told
from transformers import TrainerCallback
from trl_trainers import BUILD, dpo_trainer, sft_trainer

from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights

RUN = {"max_steps": 6, "save_steps": 2, "eval_steps": 6, "max_grad_norm": 0.0}


class Spoilt(TrainerCallback):
    """Puts a NaN among the weights before a step's end is looked at, as an overflowing update would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                next(model.parameters()).view(-1)[0] = math.nan


@pytest.mark.parametrize("stage", BUILD)
def test_a_learning_rate_far_too_high_stops_the_stage(tiny, checkpoints, stage):
    trainer = BUILD[stage](tiny, checkpoints, learning_rate=1000.0, lr_scheduler_type="constant", **RUN)
    said = told(training.run, trainer, checkpoints, stage)
    assert said.startswith(f"{stage}: ") and f"lower {stage}.learning_rate" in said
    assert "the training diverged, and no model was written" in said
    assert not checkpoints.path.exists()


@pytest.mark.parametrize("beta", [1e-300, 1e308])
@pytest.mark.parametrize("loss_type", ["ipo", "sigmoid"])
def test_a_loss_of_dpo_that_is_not_finite_stops_it(tiny, checkpoints, loss_type, beta):
    trainer = dpo_trainer(tiny, checkpoints, loss_type=loss_type, beta=beta, **RUN)
    if (loss_type, beta) == ("sigmoid", 1e-300):  # a loss of log 2 whose gradient is 0: sound, if of no use
        assert training.last(training.run(trainer, checkpoints, "dpo"), "loss") == pytest.approx(math.log(2), abs=1e-6)
        return
    said = told(training.run, trainer, checkpoints, "dpo")
    assert said.startswith("dpo: ") and "dpo.beta" in said
    assert not checkpoints.path.exists()


def test_gradients_that_overflow_stop_the_stage_though_clipping_leaves_the_weights_as_they_were(tiny, checkpoints):
    trainer = dpo_trainer(tiny, checkpoints, beta=1e30, **{**RUN, "max_grad_norm": 1.0}, logging_steps=1)
    said = told(training.run, trainer, checkpoints, "dpo")
    assert said.startswith("dpo: grad_norm is inf at step ") and "dpo.beta" in said


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, True),
        ({"warmup_steps": 1e30}, False),
        ({"beta": 1e-300}, False),
        ({"learning_rate": 0.0}, True),
        ({"adam_epsilon": 1e12, "lora_r": 2}, False),
    ],
)
def test_a_training_that_changes_no_weight_says_so_unless_it_was_meant(tiny, checkpoints, capsys, changes, changed):
    options = {**RUN, "weight_decay": 0.0, "learning_rate": 1e-3, **changes}
    training.run(dpo_trainer(tiny, checkpoints, **options), checkpoints, "dpo")
    line = "dpo: no weight changed in 6 steps; look at learning_rate, warmup_steps, adam_epsilon, max_grad_norm, beta\n"
    assert (line not in capsys.readouterr().out) is changed


@pytest.mark.parametrize("step", [2, 6])
@pytest.mark.parametrize("stage", BUILD)
def test_weights_are_looked_at_where_they_are_saved_though_nothing_is_logged(tiny, checkpoints, stage, step):
    trainer = BUILD[stage](tiny, checkpoints, **RUN, logging_steps=100)
    trainer.add_callback(Spoilt(step))
    said = told(training.run, trainer, checkpoints, stage)
    assert f"holds NaN or infinity after step {step}" in said
    assert not checkpoints.path.exists()


def test_a_loss_that_is_not_finite_is_not_logged_as_the_one_before(tiny, checkpoints):
    trainer = sft_trainer(tiny, checkpoints, **{**RUN, "save_steps": 100}, logging_steps=2)
    trainer.add_callback(Spoilt(3))  # the loss of step 4 alone is NaN
    assert "loss is nan at step 4" in told(training.run, trainer, checkpoints, "sft")


def test_a_loss_that_grows_without_bound_is_told_with_its_first_value(tiny, checkpoints):
    trainer = sft_trainer(tiny, checkpoints, **RUN)
    training.run(trainer, checkpoints, "sft")
    guard = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "Divergence")
    first = guard.first
    assert first > 1
    trainer.log({"loss": 999 * first})
    said = told(trainer.log, {"loss": 1001 * first})
    assert f"and was {first:.3g} at first" in said


def test_a_resumed_run_keeps_the_bound_of_the_killed_one(tiny, checkpoints):
    first = sft_trainer(tiny, checkpoints, **RUN)
    training.run(first, checkpoints, "sft")
    resumed = sft_trainer(tiny, checkpoints, **{**RUN, "max_steps": 8})
    training.run(resumed, checkpoints, "sft")
    firsts = [
        next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "Divergence").first
        for trainer in (first, resumed)
    ]
    assert firsts[0] == firsts[1] == first.state.log_history[0]["loss"]


@pytest.mark.parametrize("lora", [None, 4])
def test_weights_that_are_not_finite_are_not_exported(tiny, checkpoints, lora):
    trainer = sft_trainer(tiny, checkpoints, lora_r=lora)
    with torch.no_grad():
        next(p for p in trainer.model.parameters() if p.requires_grad).view(-1)[0] = math.inf
    said = told(weights.export, trainer, "sft", None, "CAUSAL_LM", "exported", None)
    assert said.startswith("sft: ") and "holds NaN or infinity: the training diverged, and no model was written" in said
    assert not Path("exported").exists()
