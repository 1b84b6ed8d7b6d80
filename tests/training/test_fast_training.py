"""What makes training fast and changes no result: no padding, rows of like length, attention, compilation."""

import shutil
from contextlib import nullcontext
from itertools import takewhile

import pytest
import torch
from tiny_models import TEXTS
from trl import SFTConfig, SFTTrainer
from trl_trainers import (
    CHOSEN,
    TRAINER,
    batch_of,
    dataset,
    dpo_params,
    pair_rows,
    referenced,
    sft_rows,
    sft_trainer,
    user,
)

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.models import hardware, packing
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids
from rlhf_lib.reward import base as reward_base
from rlhf_lib.reward.params import JudgeParams
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.sft import trainer as sft
from rlhf_lib.training import trainer as training

# ---- Without padding


@pytest.fixture(params=[nullcontext, hardware.as_on_a_gpu], ids=["cpu", "gpu"])
def paths(request):
    """On the paths of a CPU, and of a GPU."""
    with request.param():
        yield


def test_sft_without_padding_is_trls_sft(tiny, checkpoints, paths):
    ours = sft_trainer(tiny, checkpoints)
    plain = SFTTrainer(
        model=str(tiny.policy),
        args=SFTConfig("scratch", completion_only_loss=True, max_length=64, **hardware.trainer_kwargs()),
        train_dataset=dataset(sft_rows(), sft.COLUMNS),
        processing_class=models.load_tokenizer(tiny.policy),
    )
    for rows in (range(9), [0], [3, 8]):
        losses, gradients = [], []
        for trainer in (ours, plain):
            trainer.model.eval().zero_grad()
            loss = trainer.compute_loss(trainer.model, batch_of(trainer, rows))
            loss.backward()
            losses.append(loss.item())
            gradients.append({name: p.grad for name, p in trainer.model.named_parameters()})
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
        for name, gradient in gradients[1].items():
            torch.testing.assert_close(gradients[0][name], gradient, atol=1e-5, rtol=1e-4)
        metrics = [trainer._metrics["eval"] for trainer in (ours, plain)]
        for name in ("entropy", "mean_token_accuracy"):
            assert metrics[0][name] == pytest.approx(metrics[1][name], abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "changes"), [(range(9), {}), ([0], {}), ([3, 8], {}), (range(9), {"use_weighting": True})]
)
def test_dpo_learns_the_same_in_pieces_of_logits_as_on_a_gpu(tiny, checkpoints, rows, changes):
    pairs = referenced(tiny, pair_rows())
    found = []
    for path in (nullcontext, hardware.as_on_a_gpu):
        trainer = dpo.build(dpo_params(**changes), 64, str(tiny.policy), pairs, pairs, checkpoints)
        trainer.model.eval()
        with torch.no_grad():  # away from the reference: rewards of 0 would be in an order that rounding makes
            for weight in trainer.model.parameters():
                weight.mul_(1.1)
        with path():
            loss = trainer.compute_loss(trainer.model, batch_of(trainer, rows))
            loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        found.append((loss.item(), gradient, trainer._metrics["eval"]))
    (loss, gradient, metrics), (expected_loss, expected, expected_metrics) = found
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert (gradient - expected).norm() < 2e-5 * expected.norm()
    assert metrics.keys() == expected_metrics.keys() != set()
    for name, values in metrics.items():
        assert values == pytest.approx(expected_metrics[name], abs=1e-5), name


def test_a_classifier_reads_the_same_token_without_padding(tiny):
    params = JudgeParams(**TRAINER, model_name_or_path=str(tiny.policy), max_length=64, center_rewards_coefficient=None)
    fast = reward_base.load("reward", params, {})
    inner = type(fast.model).forward
    rows = [[{"role": "user", "content": text}] for text in TEXTS]
    got = fast.scores(rows, CHOSEN)
    fast.model.forward = inner.__get__(fast.model)
    assert got == pytest.approx(RewardModel(fast.model, fast.tokenizer).scores(rows, CHOSEN), abs=1e-5)
    assert fast.scores([user("a")], ["b"]) == pytest.approx(fast.scores([user("a")], ["b"]))


def read_by(model, monkeypatch):
    """The numbers of tokens that forward passes of the model's trunk read, as they come."""
    seen = []
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    monkeypatch.setattr(packing, "_filler", lambda *args: [])
    return seen


def test_dpo_reads_the_prompt_of_a_pair_once(tiny, checkpoints, monkeypatch):
    pairs = referenced(tiny, pair_rows())
    trainer = dpo.build(dpo_params(), 64, str(tiny.policy), pairs, pairs, checkpoints)
    batch = batch_of(trainer, [2])
    seen = read_by(trainer.model, monkeypatch)
    trainer.compute_loss(trainer.model, batch)
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    prompt = len(rows[0]) - int(batch["completion_mask"][0].sum())
    assert rows[0][:prompt] == rows[1][:prompt] and prompt > 2
    # but for its last token, which is asked for the first one of each answer
    assert seen == [sum(map(len, rows)) - (prompt - 1)]


def test_a_reward_model_reads_a_prompt_once_for_all_its_answers(tiny, monkeypatch):
    params = JudgeParams(**TRAINER, model_name_or_path=str(tiny.policy), max_length=64, center_rewards_coefficient=None)
    scorer = reward_base.load("reward", params, {})
    prompts = [[{"role": "user", "content": text}] for text in (TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[1])]
    alone = [scorer.scores([prompt], [text])[0] for prompt, text in zip(prompts, CHOSEN, strict=False)]
    ids = [dialogue_ids(scorer.tokenizer, p, text) for p, text in zip(prompts, CHOSEN, strict=False)]
    seen = read_by(scorer.model, monkeypatch)
    scorer.batch_size = 2
    assert scorer.scores(prompts, CHOSEN[:4]) == pytest.approx(alone, abs=1e-5)
    together = [sum(takewhile(bool, map(int.__eq__, ids[i], ids[i + 2]))) for i in range(2)]
    assert min(together) > 2
    assert sorted(seen) == sorted(len(ids[i]) + len(ids[i + 2]) - together[i] for i in range(2))


# ---- The order of the rows


def test_batches_hold_rows_of_like_length_and_every_row_once():
    lengths = [(7 * i) % 101 for i in range(205)]
    order = training.EpochOrder(lengths, 10, grouped=True, seed=3)
    first = list(order)
    assert sorted(first) == list(range(205)) and first == list(order)
    spreads = [max(part) - min(part) for part in ([lengths[i] for i in first[k : k + 10]] for k in range(0, 200, 10))]
    assert max(spreads) <= 12
    order.set_epoch(1)
    assert list(order) != first and sorted(order) == list(range(205))
    random = list(training.EpochOrder(lengths, 10, grouped=False, seed=3))
    assert sorted(random) == list(range(205)) and random != first


# ---- The hardware


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "fp16"}, "compute.precision: fp16 needs a CUDA GPU"),
        ({"attn_implementation": "flash_attention_2"}, "compute.attn_implementation: flash_attention_2 needs"),
        ({"device": "cuda"}, "compute.device: PyTorch finds no cuda here"),
    ],
)
def test_what_a_cpu_cannot_do_is_told_in_one_line(compute, monkeypatch, changes, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ParamsError, match=f"^params.yaml: {told}") as error:
        compute(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_an_attention_of_ones_choice_gives_the_same_loss(compute, tiny, checkpoints, attention):
    expected = sft_trainer(tiny, checkpoints)
    compute(attn_implementation=attention)
    trainer = sft_trainer(tiny, checkpoints)
    assert trainer.model.config._attn_implementation == attention
    losses = [t.compute_loss(t.model.eval(), batch_of(t, range(9))).item() for t in (trainer, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_checkpointed_activations_give_the_same_gradients(compute, tiny, checkpoints):
    gradients = []
    for checkpointing in (False, True):
        compute(gradient_checkpointing=checkpointing)
        trainer = sft_trainer(tiny, checkpoints, max_steps=1, learning_rate=0.0, eval_steps=9)
        trainer.train()
        assert trainer.model.is_gradient_checkpointing is checkpointing
        trainer.model.train()
        trainer.compute_loss(trainer.model, batch_of(trainer, range(9))).backward()
        gradients.append({name: p.grad.clone() for name, p in trainer.model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with a C++ compiler")
def test_a_compiled_model_learns_the_same(compute, tiny, checkpoints):
    """In rows without padding, whose number of tokens is another one in every batch."""
    losses = []
    for compiled in (False, True):
        compute(torch_compile=compiled)
        log = training.run(sft_trainer(tiny, checkpoints, max_steps=3), checkpoints)
        losses.append([entry["loss"] for entry in log if "loss" in entry])
        checkpoints.remove()
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], abs=1e-3)
