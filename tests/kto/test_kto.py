"""KTO's trainer: the loss, by hand and beside TRL's with a reference model; what it learns; a killed run."""

import json
import math
from pathlib import Path

import pytest
import torch
from kto_trainers import kto_trainer, thumb_rows
from trl import KTOConfig, KTOTrainer
from trl_trainers import CountSteps, KillAfterSave, Killed, batch_of, dataset, moved_policy

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.kto.data import COLUMNS
from rlhf_lib.models import hardware, logprobs
from rlhf_lib.models import loading as models
from rlhf_lib.training import curves
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir

LOSSES = ("kto", "apo_zero_unpaired")


@pytest.fixture
def moved(tiny, tmp_path):
    return moved_policy(tiny, tmp_path / "moved")


def logprob(model, row, answer):
    """Of an answer's tokens after the prompt of a row, summed; None without the answer."""
    ids = [*row["prompt_ids"], *row[answer]]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logprobs[place - 1, ids[place]].item() for place in range(len(row["prompt_ids"]), len(ids)))


def on(trainer, policy):
    """A trainer of the tiny policy that goes on from the weights of another, whose reference stays the first."""
    trainer.model.load_state_dict(policy.state_dict())
    return trainer


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_loss_by_hand(tiny, moved, checkpoints, loss_type):
    weights = {"desirable_weight": 0.7, "undesirable_weight": 1.9}
    trainer = kto_trainer(tiny, checkpoints, loss_type=loss_type, per_device_train_batch_size=5, **weights)
    policy, reference = models.load_policy(moved), models.load_policy(tiny.policy)
    rows = [trainer.train_dataset[row] for row in range(5)]
    kl = 0.0
    if loss_type == "kto":
        apart = [
            logprob(policy, row, "KL_completion_ids") - logprob(reference, row, "KL_completion_ids") for row in rows
        ]
        kl = max(0.0, sum(apart) / len(apart))
    losses = []
    for row in rows:
        ratio = logprob(policy, row, "completion_ids") - logprob(reference, row, "completion_ids")
        side, weight = (1, 0.7) if row["label"] else (-1, 1.9)
        losses.append(weight * (1 - 1 / (1 + math.exp(-side * 0.5 * (ratio - kl)))))
    assert {row["label"] for row in rows} == {True, False}
    on(trainer, policy)
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, range(5))).item()
    assert loss == pytest.approx(sum(losses) / 5, abs=1e-5)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_on_precomputed_references_it_is_trls_kto(tiny, moved, checkpoints, loss_type):
    """TRL's, on the same rows in the same order, with the SFT model beside the policy."""
    size, max_length = 4, 13  # some answers lose their end
    options = {"loss_type": loss_type, "max_length": max_length, "per_device_train_batch_size": size}
    ours = kto_trainer(tiny, checkpoints, **options)
    tokenizer = models.load_tokenizer(tiny.policy)
    raw = {row["id"]: row for row in dataset(thumb_rows(), COLUMNS)}
    ordered = [raw[key] for key in order_of(ours, raw, tokenizer)]
    plain = KTOTrainer(
        model=moved,
        ref_model=models.load_policy(tiny.policy),
        args=KTOConfig(
            output_dir="scratch",
            beta=0.5,
            model_init_kwargs=models.init_kwargs(),
            train_sampling_strategy="sequential",
            **options,
            **hardware.trainer_kwargs(),
        ),
        train_dataset=dataset(ordered, COLUMNS),
        processing_class=tokenizer,
    )
    on(ours, plain.model)
    for start in range(0, len(ordered) - 1, size):
        rows = range(start, min(start + size, len(ordered)))
        loss, expected = (t.compute_loss(t.model, batch_of(t, rows)).item() for t in (ours, plain))
        if len(rows) > 1:  # of a row that is alone in its batch, TRL takes the reward as the KL
            assert loss == pytest.approx(expected, abs=1e-5) and abs(loss - 0.5) > 1e-3


def order_of(trainer, raw, tokenizer):
    """The ids of the rows in the trainer's order, told by their tokens."""
    from rlhf_lib.models.chat import dialogue_ids

    ids = {}
    for key, row in raw.items():
        tokens = tuple(dialogue_ids(tokenizer, row["prompt"], row["completion"][0]["content"])[:13])
        ids[tokens, row["label"]] = key
    return [ids[(*row["prompt_ids"], *row["completion_ids"]), row["label"]] for row in trainer.train_dataset]


def test_the_loss_starts_at_one_half(tiny, checkpoints):
    trainer = kto_trainer(tiny, checkpoints, per_device_train_batch_size=4)
    for rows in (range(4), range(4, 8)):
        assert trainer.compute_loss(trainer.model, batch_of(trainer, rows)).item() == pytest.approx(0.5, abs=1e-6)


def test_it_raises_the_margin(tiny, checkpoints):
    changes = {"max_steps": 12, "eval_steps": 12, "learning_rate": 3e-3, "per_device_train_batch_size": 4}
    log = training.run(kto_trainer(tiny, checkpoints, **changes), checkpoints)
    assert training.last(log, "eval_loss") < 0.47 and training.last(log, "eval_rewards/margins") > 0.1


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_margin_of_a_validation_is_of_all_good_and_all_bad_answers(tiny, moved, checkpoints, size):
    """Whatever batches they are in, some of which have answers of one kind alone."""
    rows = [row for row in thumb_rows() if row["label"]] + [row for row in thumb_rows() if not row["label"]][:2]
    policy, reference = models.load_policy(moved), models.load_policy(tiny.policy)
    trainer = on(kto_trainer(tiny, checkpoints, validation=rows, per_device_eval_batch_size=size), policy)
    rewards = {True: [], False: []}
    for row in trainer.eval_dataset:
        ratio = logprob(policy, row, "completion_ids") - logprob(reference, row, "completion_ids")
        rewards[row["label"]].append(0.5 * ratio)
    good, bad = (sum(rewards[label]) / len(rewards[label]) for label in (True, False))
    trainer.evaluate()
    measured = trainer.state.log_history[-1]
    assert measured["eval_rewards/chosen"] == pytest.approx(good, abs=1e-4)
    assert measured["eval_rewards/rejected"] == pytest.approx(bad, abs=1e-4)
    assert measured["eval_rewards/margins"] == pytest.approx(good - bad, abs=1e-4)


def test_validation_answers_of_one_kind_have_no_best_margin(tiny, checkpoints):
    rows = [row for row in thumb_rows() if row["label"]]
    changes = {"load_best_model_at_end": True, "metric_for_best_model": "eval_rewards/margins"}
    with pytest.raises(ParamsError, match=r"ppo.metric_for_best_model: eval_rewards/margins is not a number"):
        training.run(kto_trainer(tiny, checkpoints, validation=rows, **changes), checkpoints)


def test_adapters_start_from_the_reference(tiny, checkpoints):
    trainer = kto_trainer(tiny, checkpoints, lora_r=2, per_device_train_batch_size=4)
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert trained and all("lora" in name for name in trained)
    assert trainer.compute_loss(trainer.model, batch_of(trainer, range(4))).item() == pytest.approx(0.5, abs=1e-6)


def test_answers_of_one_kind_and_no_validation_are_trained_on(tiny, checkpoints, capsys):
    rows = [row for row in thumb_rows() if row["label"]]
    log = training.run(kto_trainer(tiny, checkpoints, rows, []), checkpoints, "kto")
    assert training.last(log, "loss") > 0 and training.last_or_none(log, "eval_loss") is None
    assert "kto: no validation: data/splits/thumbs_validation.jsonl: no rows" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["random", pytest.param("group_by_length", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_weights_and_curves(tiny, checkpoints, order):
    changes = {"train_sampling_strategy": order, "max_steps": 6, "save_steps": 4}  # in the second pass over 13 rows
    whole = kto_trainer(tiny, checkpoints, **changes)
    curves.write("whole", training.run(whole, checkpoints))
    checkpoints.remove()
    checkpoints = CheckpointDir("ppo")
    killed = kto_trainer(tiny, checkpoints, **changes)
    killed.add_callback(KillAfterSave())
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    resumed, counter = kto_trainer(tiny, checkpoints, **changes), CountSteps()
    resumed.add_callback(counter)
    curves.write("resumed", training.run(resumed, checkpoints))
    assert counter.steps == 2
    for curve in ("train.tsv", "eval.tsv"):
        assert Path(f"metrics/whole/{curve}").read_bytes() == Path(f"metrics/resumed/{curve}").read_bytes()
    expected, got = whole.model.state_dict(), resumed.model.state_dict()
    assert all(expected[key].equal(got[key]) for key in expected)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_reference_log_probs_that_a_killed_run_saved_are_not_computed_again(
    tiny, checkpoints, monkeypatch, capsys, loss_type
):
    monkeypatch.setattr(logprobs, "SAVED_BATCHES", 3)
    params, file = {"precompute_ref_batch_size": 2, "loss_type": loss_type}, checkpoints.path / "reference_train.jsonl"
    whole = kto_trainer(tiny, checkpoints, **params).train_dataset
    first, second, third = file.read_bytes().splitlines(keepends=True)
    saved = json.loads(first)
    assert len(saved) == 6 and {len(of_row) for of_row in saved} == {2 if loss_type == "kto" else 1}
    marked = [[1.0, *others] for _, *others in saved]
    file.write_bytes(json.dumps(marked).encode() + b"\n" + second[: len(second) // 2])
    capsys.readouterr()
    again = kto_trainer(tiny, checkpoints, **params).train_dataset
    assert "resuming after 6 of 13 answers" in capsys.readouterr().out
    assert file.read_bytes().splitlines(keepends=True)[1:] == [second, third]
    assert whole.remove_columns("ref_logps").to_list() == again.remove_columns("ref_logps").to_list()
    pairs = list(zip(whole["ref_logps"], again["ref_logps"], strict=True))
    assert sorted(was for was, now in pairs if now != was) == sorted(was for was, *_ in saved)
    assert {now for was, now in pairs if now != was} == {1.0}
