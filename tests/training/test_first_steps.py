"""The first steps of every trainer, and the export, of every architecture in docs/models.md."""

import dataclasses
import math
import shutil
from functools import partial

import pytest
import torch
from architectures import draw
from model_table import TABLE
from ppo_steps import assert_first_ratios_are_1
from tiny_models import TEXTS, Tiny
from trained import column
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, CLIPTextConfig
from trl_trainers import (
    CHOSEN,
    REJECTED,
    TRAINER,
    batch_of,
    dpo_params,
    loss_by_hand,
    pair_rows,
    referenced,
    reward_trainer,
    sft_rows,
    sft_trainer,
    user,
)

from rlhf_lib.base import model as base
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.models import loading as models
from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.chat import dialogue_ids
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights

ARCHITECTURES = pytest.mark.parametrize("kind", TABLE)
ONE_STEP = {"max_steps": 1, "eval_steps": 1}
PLAIN = SFTParams(**{**TRAINER, "max_length": 64})
IDS = torch.tensor([[7, 9, 11, 13, 15]])


@pytest.fixture(scope="module")
def of_kind(tmp_path_factory):
    """A function that gives the directory of an architecture's random model, as stage base writes it."""
    made = {}

    def of_kind(kind):
        if kind not in made:
            tokenizer = base.fresh_tokenizer(TEXTS, 320)
            folder, model = tmp_path_factory.mktemp(kind), draw(kind, len(tokenizer))
            base.complete(model, tokenizer, seed=0)
            models.save(model, tokenizer, folder)
            made[kind] = Tiny(folder, folder)
        return made[kind]

    return of_kind


def trained_and_exported(trainer, checkpoints, task, auto_class, load):
    """The exported model, as transformers loads it alone, after a step that moved the weights."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    training.run(trainer, checkpoints, "sft")
    assert all(math.isfinite(loss) for loss in column(trainer, "loss"))
    moved = [name for name, p in trainer.model.named_parameters() if not p.equal(before[name])]
    assert len(moved) > 0.9 * len(before)
    assert weights.export(trainer, "sft", PLAIN, task, "exported", load) is not None
    again = auto_class.from_pretrained("exported").eval()
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        torch.testing.assert_close(again(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)
    return again


@pytest.mark.slow
@ARCHITECTURES
def test_sft(of_kind, checkpoints, kind):
    tiny = of_kind(kind)
    trainer = sft_trainer(tiny, checkpoints, **ONE_STEP)
    assert takes_packing(trainer.model) is (TABLE[kind].rows == "packed")
    plain = AutoModelForCausalLM.from_pretrained(tiny.policy).eval()
    expected = loss_by_hand(plain, trainer.processing_class, sft_rows(), 64)
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), batch_of(trainer, range(9))).item()
    assert loss == pytest.approx(expected, rel=1e-5)
    trained_and_exported(
        trainer, checkpoints, "CAUSAL_LM", AutoModelForCausalLM, partial(models.load_policy, tiny.policy)
    )


@pytest.mark.slow
@ARCHITECTURES
def test_sft_by_adapters(of_kind, checkpoints, kind):
    """With the layers that are taken where no param names some: the merged model is the one that was trained."""
    tiny = of_kind(kind)
    trainer = sft_trainer(tiny, checkpoints, **ONE_STEP, lora_r=2)
    training.run(trainer, checkpoints, "sft")
    moved = [name for name, p in trainer.model.named_parameters() if "lora_B" in name and p.any()]
    assert moved
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    params = dataclasses.replace(PLAIN, lora_r=2)
    assert weights.export(trainer, "sft", params, "CAUSAL_LM", "exported", partial(models.load_policy, tiny.policy))
    again = AutoModelForCausalLM.from_pretrained("exported").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@ARCHITECTURES
def test_dpo(of_kind, checkpoints, kind):
    tiny = of_kind(kind)
    pairs = referenced(tiny, pair_rows())
    trainer = dpo.build(dpo_params(**ONE_STEP), 64, str(tiny.policy), pairs, pairs, checkpoints)
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), batch_of(trainer, range(9))).item()
    assert loss == pytest.approx(math.log(2), abs=1e-4)  # the policy is its reference
    trained_and_exported(
        trainer, checkpoints, "CAUSAL_LM", AutoModelForCausalLM, partial(models.load_policy, tiny.policy)
    )
    assert column(trainer, "loss")[0] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.slow
@ARCHITECTURES
def test_reward_model(of_kind, checkpoints, kind):
    trainer = reward_trainer(of_kind(kind), checkpoints, **ONE_STEP)
    tokenizer, model = trainer.processing_class, trainer.model.eval()

    def score(text, answer):
        ids = torch.tensor([dialogue_ids(tokenizer, user(text), answer)])
        with torch.no_grad():
            return model.score(model.base_model(ids).last_hidden_state[0, -1]).item()

    margins = torch.tensor([score(t, c) - score(t, r) for t, c, r in zip(TEXTS, CHOSEN, REJECTED, strict=True)])
    expected = -torch.nn.functional.logsigmoid(margins).mean().item()
    with torch.no_grad():
        loss = trainer.compute_loss(model, batch_of(trainer, range(9))).item()
    assert loss == pytest.approx(expected, rel=1e-4)
    load = partial(AutoModelForSequenceClassification.from_pretrained, of_kind(kind).policy, num_labels=1)
    trained_and_exported(trainer, checkpoints, "SEQ_CLS", AutoModelForSequenceClassification, load)
    reward = RewardModel.load("exported")
    prompts = [user(text) for text in TEXTS]
    alone = [reward.scores([p], [a])[0] for p, a in zip(prompts, CHOSEN, strict=True)]
    assert reward.scores(prompts, CHOSEN) == pytest.approx(alone, abs=1e-4)


@pytest.mark.slow
@ARCHITECTURES
def test_ppo(build, of_kind, kind):
    """The first ratio of an update is 1 to the bit; the next is not."""
    tiny = of_kind(kind)
    trainer = build(tiny.policy)
    assert takes_packing(trainer.model.policy) is (TABLE[kind].rows == "packed")
    assert_first_ratios_are_1(trainer)
    weights.save("ppo", trainer.model.policy, trainer.processing_class, "exported", lambda: None)
    again = AutoModelForCausalLM.from_pretrained("exported").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, trainer.model.policy(IDS).logits, atol=1e-4, rtol=1e-4)


def test_an_architecture_without_classifier_is_told_in_one_line(of_kind, checkpoints, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(of_kind("gpt2").policy, folder)
    CLIPTextConfig(hidden_size=32, num_hidden_layers=1, vocab_size=320).save_pretrained(folder)
    with pytest.raises(ParamsError) as error:
        reward_trainer(Tiny(folder, folder), checkpoints)
    told = str(error.value)
    assert told.startswith("params.yaml: reward.model_name_or_path: ") and "\n" not in told
    assert told.endswith("transformers has no sequence classifier of architecture clip_text_model; name another model")
