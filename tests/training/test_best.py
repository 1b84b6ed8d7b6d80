"""The best checkpoint of every trainer that passes over rows: which weights come out, what is kept, when it ends."""

from pathlib import Path

import pytest
from encoders import save_encoder
from kto_trainers import kto_params, thumb_rows
from reward_trainers import ANSWERS, group, params
from trained import column, same
from transformers import TrainerCallback
from trl_trainers import (
    REJECTED,
    TRAINER,
    Killed,
    dataset,
    dpo_params,
    pair_rows,
    referenced,
    sft_rows,
    turned,
)

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.kto import trainer as kto
from rlhf_lib.kto.data import COLUMNS
from rlhf_lib.models import loading as models
from rlhf_lib.reward import trainer as reward
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import best, sealing
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir

# Rows are learnt by heart, and those that are held out say the opposite: each validation is worse than the one before,
# after the first few. Evaluations and checkpoints do not meet: transformers would refuse such settings.
BEST = {
    "learning_rate": 3e-3,
    "max_steps": 12,
    "num_train_epochs": 100.0,
    "eval_steps": 2,
    "save_steps": 5,
    "load_best_model_at_end": True,
}
LORA = {"lora_r": 4, "lora_alpha": 64}


def build_sft(tiny, checkpoints, held_out=True, **changes):
    others = [
        {**row, "completion": [{"role": "assistant", "content": REJECTED[-i]}]} for i, row in enumerate(sft_rows())
    ]
    train = dataset(sft_rows(), sft.COLUMNS, "train.jsonl")
    validation = dataset(others if held_out else [], sft.COLUMNS, "held_out.jsonl")
    built = SFTParams(**{**TRAINER, "max_length": 64, **BEST, "learning_rate": 3e-2, **changes})
    return sft.build(built, str(tiny.policy), train, validation, checkpoints)


def build_reward(tiny, checkpoints, held_out=True, base=None, **changes):
    pairs = pair_rows()
    write_jsonl("pairs.jsonl", pairs)
    write_jsonl("held_out.jsonl", turned(pairs) if held_out else [])
    write_jsonl("groups.jsonl", [group(i) for i in range(9)])
    write_jsonl("held_out_groups.jsonl", [group(i, ANSWERS[1:] + ANSWERS[:1]) for i in range(9)] if held_out else [])
    files = reward.Splits("pairs.jsonl", "held_out.jsonl", "groups.jsonl", "held_out_groups.jsonl")
    return reward.build("reward", params(base or tiny.policy, **{**BEST, **changes}), files, None, checkpoints)


def build_ranking(tiny, checkpoints, **changes):
    return build_reward(tiny, checkpoints, **{"loss_type": "ranking", **changes})


def build_encoder(tiny, checkpoints, **changes):
    return build_reward(tiny, checkpoints, base=save_encoder(Path("bert"), "bert"), max_length=24, **changes)


def build_dpo(tiny, checkpoints, held_out=True, **changes):
    train = referenced(tiny, pair_rows())
    validation = referenced(tiny, turned(pair_rows())) if held_out else train.select([])
    return dpo.build(dpo_params(**{**BEST, **changes}), 64, str(tiny.policy), train, validation, checkpoints)


def build_kto(tiny, checkpoints, held_out=True, **changes):
    rows = thumb_rows()
    train = dataset(rows, COLUMNS, "thumbs.jsonl")
    other = [{**row, "label": not row["label"]} for row in rows] if held_out else []
    validation = dataset(other, COLUMNS, "held_out.jsonl")
    return kto.build(kto_params(**{**BEST, **changes}), str(tiny.policy), train, validation, checkpoints)


BUILD = {
    "sft": build_sft,
    "reward": build_reward,
    "ranking": build_ranking,
    "encoder": build_encoder,
    "dpo": build_dpo,
    "kto": build_kto,
}


class Evaluations(TrainerCallback):
    """The trained weights at each evaluation, by step."""

    def __init__(self):
        self.weights = {}

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = trained(model)


def trained(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def run(build, tiny, checkpoints, **changes):
    trainer, seen = build(tiny, checkpoints, **changes), Evaluations()
    names = set(trained(trainer.model))
    trainer.add_callback(seen)
    log = training.run(trainer, checkpoints, "sft")
    now = {name: weight.detach() for name, weight in trainer.model.named_parameters() if name in names}
    return trainer, log, seen, now


def best_evaluation(log, metric="eval_loss"):
    """The first evaluation with the lowest loss, or the highest of another metric."""
    entries = [entry for entry in log if metric in entry]
    sign = 1 if metric.endswith("loss") else -1
    return min(entries, key=lambda entry: sign * entry[metric])


@pytest.mark.parametrize("adapters", [{}, LORA], ids=["full", "lora"])
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


class KillAt(TrainerCallback):
    """Raises at an event, such as the checkpoint of a step."""

    def __init__(self, event, step):
        setattr(self, event, self.kill)
        self.step = step

    def kill(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


@pytest.mark.parametrize("adapters", [{}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("event", "step"), [("on_save", 2), ("on_step_end", 9), ("on_save", 5), ("on_save", 12), ("on_train_end", 12)]
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
        training.write_curves(name, rows)
    assert curves("whole") == curves("resumed")


@pytest.mark.parametrize("what", ["sft", "reward", "ranking", "dpo", "kto"])
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
        training.write_curves(name, rows)
    assert curves("whole") == curves("resumed")


def curves(name):
    return [open(f"metrics/{name}/{part}.tsv").read() for part in ("train", "eval")]


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
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
        layers = 2 * 4 * (32 + 96)  # c_attn of two layers, rank 4; and the head, kept beside the one that is trained
        expected = {"parameters": plain + layers + 32, "trainable_parameters": layers + 32}
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
    training.write_curves("sft", log)
    assert "per_second" not in "".join(curves("sft"))


def test_where_the_best_is_not_asked_for_the_last_model_comes_out(tiny, checkpoints):
    trainer, log, seen, now = run(build_dpo, tiny, checkpoints, load_best_model_at_end=False)
    assert same(now, seen.weights[12])
    told = training.summary(trainer, log)
    assert told["best_step"] is told["best_epoch"] is told["best_metric"] is None
    assert best.until(trainer, log) == log
