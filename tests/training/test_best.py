"""The best checkpoint of every trainer that passes over rows: which weights come out, what is kept, when it ends."""

import pytest
from overfitting import BUILD, LORA, KillAt, best_evaluation, build_dpo, build_reward, build_sft, curves, run
from trained import column, same
from trl_trainers import (
    Killed,
    dpo_params,
)

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import loading as models
from rlhf_lib.training import best, sealing
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.curves import write as write_curves

SLOW = pytest.mark.slow


@pytest.mark.parametrize("adapters", [{}, pytest.param(LORA, marks=SLOW)], ids=["full", "lora"])
@pytest.mark.parametrize("what", BUILD)
def test_the_model_of_the_best_validation_comes_out(tiny, checkpoints, what, adapters):
    if what == "encoder" and adapters:
        pytest.skip("as the decoder's")
    trainer, log, seen, now = run(BUILD[what], tiny, checkpoints, **adapters)
    found = best_evaluation(log)
    assert found["step"] < 12 and len(seen.weights) == 6
    assert same(now, seen.weights[found["step"]]) and not same(now, seen.weights[12])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(found["eval_loss"], abs=1e-6)
    told = training.summary(trainer, log)
    assert (told["best_step"], told["best_epoch"]) == (found["step"], found["epoch"])
    assert told["best_metric"] == found["eval_loss"] and told["stopped_early"] is False
    assert training.last_or_none(best.until(trainer, log), "eval_loss") == found["eval_loss"]


@pytest.mark.parametrize(
    ("what", "metric"),
    [
        ("sft", "eval_mean_token_accuracy"),
        ("reward", "eval_accuracy"),
        ("ranking", "eval_accuracy"),
        ("dpo", "eval_rewards/margins"),
        ("dpo", "eval_rewards/accuracies"),
        ("kto", "eval_rewards/margins"),
    ],
)
def test_what_is_best_is_told_by_the_metric_asked_for(tiny, checkpoints, what, metric):
    trainer, log, seen, now = run(BUILD[what], tiny, checkpoints, metric_for_best_model=metric)
    found = best_evaluation(log, metric)
    assert same(now, seen.weights[found["step"]])
    assert training.summary(trainer, log)["best_metric"] == found[metric]


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
@pytest.mark.parametrize("load_best", [True, False])
def test_a_training_stops_after_validations_without_a_better_one(tiny, checkpoints, load_best, strategy, capsys):
    changes = {"load_best_model_at_end": load_best, "eval_strategy": strategy, "logging_steps": 100, "max_steps": 60}
    trainer, log, seen, now = run(build_dpo, tiny, checkpoints, early_stopping_patience=3, **changes)
    losses = column(trainer, "eval_loss")
    place = losses.index(min(losses))
    assert len(losses) == place + 4 and trainer.state.global_step < 60
    last, found = trainer.state.global_step, best_evaluation(log)["step"]
    assert same(now, seen.weights[found if load_best else last])
    told = training.summary(trainer, log)
    assert told["stopped_early"] is True and told["best_step"] == (found if load_best else None)
    assert training.last(log, "loss") > 0  # though it ended before the first log
    assert checkpoints.latest().endswith(f"checkpoint-{last}")
    said = capsys.readouterr().out
    assert f"sft: stopped at step {last} of 60: eval_loss was best at {found}\n" in said
    assert (
        f"sft: the model of step {found} is kept, with the best eval_loss: {min(losses):.4g}\n" in said
    ) is load_best


@pytest.mark.parametrize(
    ("event", "step", "adapters"),
    [
        ("on_save", 2, {}),
        ("on_step_end", 9, LORA),
        ("on_train_end", 12, {}),
        *(pytest.param("on_save", step, adapters, marks=SLOW) for step in (2, 5, 12) for adapters in ({}, LORA)),
        *(pytest.param(*moment, marks=SLOW) for moment in (("on_step_end", 9, {}), ("on_train_end", 12, LORA))),
    ],
)
def test_a_killed_run_goes_on_and_knows_the_best(tiny, checkpoints, event, step, adapters):
    whole, log, _, now = run(build_dpo, tiny, checkpoints, **adapters)
    checkpoints.remove()
    checkpoints = CheckpointDir("ppo")
    killed = build_dpo(tiny, checkpoints, **adapters)
    killed.add_callback(KillAt(event, step))
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    resumed, again, _, then = run(build_dpo, tiny, checkpoints, **adapters)
    assert same(now, then)
    assert training.summary(whole, log) == training.summary(resumed, again)
    for name, rows in (("whole", log), ("resumed", again)):
        write_curves(name, rows)
    assert curves("whole") == curves("resumed")


@pytest.mark.parametrize(
    "what", ["sft", "dpo", *(pytest.param(what, marks=SLOW) for what in ("reward", "ranking", "kto"))]
)
def test_a_checkpoint_between_two_logs_changes_no_mean(tiny, checkpoints, what):
    changes = {"logging_steps": 4, "save_steps": 6, "eval_steps": 12, "gradient_accumulation_steps": 2}
    _, log, _, _ = run(BUILD[what], tiny, checkpoints, **changes)
    checkpoints.remove()
    checkpoints = CheckpointDir("ppo")
    killed = BUILD[what](tiny, checkpoints, **changes)
    killed.add_callback(KillAt("on_save", 6))
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    _, again, _, _ = run(BUILD[what], tiny, checkpoints, **changes)
    for name, rows in (("whole", log), ("resumed", again)):
        write_curves(name, rows)
    assert curves("whole") == curves("resumed")


@pytest.mark.parametrize("strategy", ["steps", pytest.param("epoch", marks=SLOW)])
@pytest.mark.parametrize("moment", ["while waiting", "after the last"])
def test_patience_is_remembered_over_a_resume(tiny, checkpoints, strategy, moment):
    changes = {"early_stopping_patience": 3, "max_steps": 60, "eval_strategy": strategy, "save_steps": 1}
    whole, log, _, now = run(build_dpo, tiny, checkpoints, **changes)
    last = whole.state.global_step
    checkpoints.remove()
    checkpoints = CheckpointDir("ppo")
    killed = build_dpo(tiny, checkpoints, **changes)
    killed.add_callback(KillAt("on_save", last - 1) if moment == "while waiting" else KillAt("on_train_end", last))
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    resumed, again, seen, then = run(build_dpo, tiny, checkpoints, **changes)
    assert same(now, then) and resumed.state.global_step == last
    assert len(seen.weights) == (moment == "while waiting")
    assert column(whole, "eval_loss") == column(resumed, "eval_loss")
    assert training.summary(whole, log) == training.summary(resumed, again)


def test_a_checkpoint_at_the_end_of_an_epoch_knows_its_validation(tiny, checkpoints):
    """Also where the best is not asked for: a resumed run would miss it."""
    changes = {"load_best_model_at_end": False, "eval_strategy": "epoch", "save_steps": 3}
    killed = build_sft(tiny, checkpoints, **changes)
    killed.add_callback(KillAt("on_save", 6))
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    _, log, _, _ = run(build_sft, tiny, checkpoints, **changes)
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [3, 6, 9, 12]


@pytest.mark.parametrize(("limit", "kept"), [(1, {10, 12}), (3, {8, 10, 12}), (None, {2, 4, 5, 6, 8, 10, 12})])
def test_the_newest_and_the_best_checkpoints_are_kept(tiny, checkpoints, monkeypatch, limit, kept):
    losses = iter([6.0, 5.0, 4.0, 3.0, 2.0, 9.0])
    trainer = build_sft(tiny, checkpoints, save_total_limit=limit)

    def evaluate(**options):
        metrics = {"eval_loss": next(losses)}
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        return metrics

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    training.run(trainer, checkpoints)
    found = {int(path.name.split("-")[1]) for path in checkpoints.path.glob("checkpoint-*")}
    assert found == kept
    assert trainer.state.best_global_step == 10


@pytest.mark.parametrize(
    ("steps", "kept", "newest", "limit", "doomed"),
    [
        ([2, 4, 6], {6}, 6, 1, [2, 4]),
        ([2, 4, 6], {2, 6}, 6, 1, [4]),
        ([2, 4, 6, 8], {2, 8}, 8, 2, [4, 6]),
        ([8, 2, 6, 4], {2, 8}, 8, 3, [4]),
        ([2, 4, 6, 8], {2, 8}, 8, None, []),
        ([2, 4, 9], {4}, 4, 2, [9]),  # a later one was cut short before
    ],
)
def test_the_oldest_beyond_the_limit_go(steps, kept, newest, limit, doomed):
    assert sealing.to_delete(steps, kept, newest, limit) == doomed


@pytest.mark.parametrize("what", ["sft", "reward", "ranking", "dpo", "kto"])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, r"params.yaml: \w+.load_best_model_at_end: .* has no rows to validate on; set it to false, or load more"),
        (
            {"load_best_model_at_end": False, "early_stopping_patience": 2},
            r"params.yaml: \w+.early_stopping_patience: .* has no rows to validate on; set it to null, or load more",
        ),
    ],
)
def test_without_validation_rows_no_model_is_the_best(tiny, checkpoints, what, changes, text):
    with pytest.raises(ParamsError, match=text):
        BUILD[what](tiny, checkpoints, held_out=False, **changes)


def test_validation_rows_without_two_answers_to_compare_have_no_best_accuracy(tiny, checkpoints):
    changes = {"loss_type": "mse", "metric_for_best_model": "eval_accuracy"}
    trainer = build_reward(tiny, checkpoints, **changes)
    trainer.eval_dataset = trainer.eval_dataset.map(lambda row: {"values": [0.5] * len(row["values"])})
    with pytest.raises(ParamsError, match=r"ppo.metric_for_best_model: eval_accuracy is not a number"):
        training.run(trainer, checkpoints)


def test_a_schedule_that_goes_by_the_loss_goes_with_no_other_metric():
    changes = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "eval_rewards/margins"}
    with pytest.raises(ValueError, match="metric_for_best_model: must be eval_loss while lr_scheduler_type"):
        dpo_params(**changes, load_best_model_at_end=True)
    dpo_params(**changes)


@pytest.mark.parametrize("adapters", [{}, LORA], ids=["full", "lora"])
def test_the_parameters_are_counted_and_told(tiny, checkpoints, capsys, adapters):
    trainer, log, _, _ = run(build_reward, tiny, checkpoints, max_steps=1, **adapters)
    plain = models.load_policy(tiny.policy).num_parameters() + 32  # and the head
    if adapters:
        layers = 2 * 4 * (32 + 96)  # c_attn of two layers, rank 4
        # PEFT keeps the untrained head too, which is no part of the model
        expected = {"parameters": plain + layers, "trainable_parameters": layers + 32}
    else:
        expected = {"parameters": plain, "trainable_parameters": plain}
    assert expected.items() <= training.summary(trainer, log).items()
    line = "sft: {trainable_parameters:,} of {parameters:,} parameters are trained\n".format(**expected)
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("what", BUILD)
def test_tokens_a_second_are_logged_and_not_written(tiny, checkpoints, what):
    trainer, log, _, _ = run(BUILD[what], tiny, checkpoints, max_steps=3, logging_steps=1, eval_steps=1)
    assert all(entry["tokens_per_second"] > 0 for entry in log if "loss" in entry)
    if what == "sft":
        rows = [trainer.train_dataset[i]["input_ids"] for i in range(9)]
        assert trainer.throughput.tokens == sum(map(len, rows))  # a pass over the nine rows
    write_curves("sft", log)
    assert "per_second" not in "".join(curves("sft"))


def test_where_the_best_is_not_asked_for_the_last_model_comes_out(tiny, checkpoints):
    trainer, log, seen, now = run(build_dpo, tiny, checkpoints, load_best_model_at_end=False)
    assert same(now, seen.weights[12])
    told = training.summary(trainer, log)
    assert told["best_step"] is told["best_epoch"] is told["best_metric"] is None
    assert best.until(trainer, log) == log
