"""SFT: what it learns, and the loss of its answers' tokens."""

import pytest
import torch
from tiny_models import TEXTS
from trl_trainers import (
    CHOSEN,
    LONG,
    assistant,
    batch_of,
    loss_by_hand,
    sft_rows,
    sft_trainer,
    user,
)

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.sft import trainer as sft
from rlhf_lib.training import trainer as training


def test_sft_learns_the_answer_and_its_eos_alone(tiny, checkpoints, tokenizer):
    trainer = sft_trainer(tiny, checkpoints)
    indices = [0, 1, 3, 8]
    batch = batch_of(trainer, indices)
    for i, ids, labels in zip(indices, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        prompt, dialogue = prompt_ids(tokenizer, user(TEXTS[i])), dialogue_ids(tokenizer, user(TEXTS[i]), CHOSEN[i])
        pads = len(ids) - len(dialogue)
        assert ids == dialogue + [tokenizer.pad_token_id] * pads
        assert labels == [-100] * len(prompt) + dialogue[len(prompt) :] + [-100] * pads
        assert labels.count(tokenizer.eos_token_id) == 1
    assert any(labels[-1] == -100 for labels in batch["labels"].tolist())  # so that there were pads to mask


def test_sft_refuses_rows_longer_than_the_context(tiny, checkpoints):
    with pytest.raises(ParamsError, match=r"sft\.max_length: 65"):
        sft_trainer(tiny, checkpoints, max_length=65)


@pytest.mark.parametrize("max_length", [64, 14])
def test_token_loss_weighs_each_answer_token_alike(tiny, tokenizer, max_length):
    model = models.load_policy(tiny.policy)
    expected = loss_by_hand(model, tokenizer, sft_rows(), max_length)
    assert sft.token_loss(model, tokenizer, sft_rows(), max_length, 4) == pytest.approx(expected, abs=1e-5)


def test_token_loss_leaves_out_a_row_without_room_for_its_answer(tiny, tokenizer):
    model = models.load_policy(tiny.policy)
    long = {"prompt": user(LONG), "completion": assistant("Cat.")}
    expected = loss_by_hand(model, tokenizer, sft_rows(), 32)
    assert sft.token_loss(model, tokenizer, [*sft_rows(), long], 32, 4) == pytest.approx(expected, abs=1e-5)


def test_sft_lowers_the_loss(tiny, checkpoints, tokenizer):
    trainer = sft_trainer(tiny, checkpoints, max_steps=12, eval_steps=12, save_steps=12)
    before = sft.token_loss(trainer.model, tokenizer, sft_rows(), 64, 4)
    training.run(trainer, checkpoints)
    assert sft.token_loss(trainer.model, tokenizer, sft_rows(), 64, 4) < before - 0.5


@pytest.mark.parametrize("batch_size", [1, 100])
def test_token_loss_does_not_depend_on_the_batch(tiny, tokenizer, batch_size):
    model = models.load_policy(tiny.policy)
    expected = sft.token_loss(model, tokenizer, sft_rows(), 64, 4)
    assert sft.token_loss(model, tokenizer, sft_rows(), 64, batch_size) == pytest.approx(expected, abs=1e-6)


def test_validation_has_a_batch_size_of_its_own(tiny, checkpoints):
    trainer = sft_trainer(tiny, checkpoints, per_device_train_batch_size=3, per_device_eval_batch_size=2)
    assert [len(batch["input_ids"]) for batch in trainer.get_eval_dataloader()] == [2, 2, 2, 2, 1]
    assert [len(batch["input_ids"]) for batch in trainer.get_train_dataloader()] == [3, 3, 3]


@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_validation_weighs_each_answer_token_alike(tiny, checkpoints, tokenizer, size):
    trainer = sft_trainer(tiny, checkpoints, per_device_eval_batch_size=size)
    expected = loss_by_hand(trainer.model.eval(), tokenizer, sft_rows(), 64)
    rows = list(trainer.eval_dataset)
    right = tokens = 0
    for row in rows:
        with torch.no_grad():
            said = trainer.model(torch.tensor([row["input_ids"]])).logits[0].argmax(dim=1)[:-1].tolist()
        learnt = [(one, label) for one, label in zip(said, row["labels"][1:], strict=True) if label != -100]
        right, tokens = right + sum(one == label for one, label in learnt), tokens + len(learnt)
    measured = trainer.evaluate()
    assert measured["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert trainer.state.log_history[-1]["eval_mean_token_accuracy"] == pytest.approx(right / tokens)
