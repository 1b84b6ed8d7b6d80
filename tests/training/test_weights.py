"""Adapters, frozen parts and exports of every trainer."""

import importlib.util
import json
import math

import pytest
import torch
from peft import PeftModel
from trained import same, weights
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    LlamaConfig,
    LlamaForCausalLM,
)
from trl_trainers import (
    BUILD,
    TRAINER,
    batch_of,
    dataset,
    dpo_params,
    dpo_trainer,
    pair_rows,
    reward_trainer,
    sft_trainer,
)

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.dpo import reference
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights as weights_module
from rlhf_lib.training.quantization import quantization

UNTIED = LlamaConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    tie_word_embeddings=False,
)
DISTILBERT = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=16, n_layers=2, n_heads=2, num_labels=1)
LORA = {"lora_r": 4, "lora_alpha": 8}
RUN = {"max_steps": 3, "eval_steps": 3, "save_steps": 3}


TASK = {"sft": "CAUSAL_LM", "reward": "SEQ_CLS", "dpo": "CAUSAL_LM"}


def export(trainer, what, path, load=None):
    return weights_module.export(trainer, what, None, TASK[what], path, load)


# ---- Adapters


@pytest.mark.parametrize("what", BUILD)
def test_adapters_train_little_and_end_in_a_plain_model(tiny, checkpoints, what):
    trainer = BUILD[what](tiny, checkpoints, **LORA, **RUN)
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name or "score" in name for name in trained)
    training.run(trainer, checkpoints)
    batch = batch_of(trainer, range(4))
    trainer.model.eval()
    with torch.no_grad():
        ids = {key: batch[key] for key in ("input_ids", "attention_mask")}
        adapted = trainer.model(**ids).logits
    plain = export(trainer, what, "exported")
    assert not isinstance(plain, PeftModel) and not any("lora" in name for name in plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(**ids).logits, adapted, atol=1e-5, rtol=0)
    if what != "reward":
        again = AutoModelForCausalLM.from_pretrained("exported").eval()
        base = models.load_policy(tiny.policy)
        beside = PeftModel.from_pretrained(base, f"exported/{weights_module.ADAPTER}").eval()
        with torch.no_grad():
            expected = again(input_ids=ids["input_ids"]).logits
            torch.testing.assert_close(beside(input_ids=ids["input_ids"]).logits, expected, atol=1e-5, rtol=0)
            assert (models.load_policy(tiny.policy)(input_ids=ids["input_ids"]).logits - expected).abs().max() > 1e-3


def test_two_runs_with_adapters_write_the_same_bytes(tiny, checkpoints, tmp_path):
    for name in ("a", "b"):
        export(sft_trainer(tiny, checkpoints, **LORA, lora_target_modules=["c_proj", "c_attn", "c_fc"]), "sft", name)
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")) for name in "ab"]
    assert files[0] == files[1]
    for file in files[0]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    config = json.loads((tmp_path / "a/adapter/adapter_config.json").read_text())
    assert config["target_modules"] == ["c_attn", "c_fc", "c_proj"] and config["r"] == 4


def test_dpo_on_adapters_starts_at_the_whole_sft_model(tiny, checkpoints):
    """The SFT model here was itself trained by adapters, which were merged: none of it is lost."""
    trainer = sft_trainer(tiny, checkpoints, **LORA, **RUN)
    training.run(trainer, checkpoints)
    export(trainer, "sft", "sft")
    pairs = dataset(pair_rows(), reference.COLUMNS)
    found, before = (
        reference.reference_logprobs(models.load_policy(model), models.load_tokenizer(model), pairs, 64, 4)
        for model in ("sft", tiny.policy)
    )
    moved = zip(found, before, strict=True)
    assert all(abs(one["ref_chosen_logps"] - other["ref_chosen_logps"]) > 1e-3 for one, other in moved)
    write_jsonl("reference.jsonl", found)
    pairs = dpo.with_reference(pairs, "reference.jsonl")
    policy = dpo.build(dpo_params(**LORA), 64, "sft", pairs, pairs, checkpoints)
    loss = policy.compute_loss(policy.model, batch_of(policy, range(9)))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    assert len(policy.model.peft_config) == 1  # no copy of the adapter as a reference


def test_dropout_of_adapters_is_in_training_alone(tiny, checkpoints):
    trainer = dpo_trainer(tiny, checkpoints, **LORA, lora_dropout=0.5, learning_rate=0.0)
    dropouts = [m for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
    assert dropouts and all(m.p == 0.5 for m in dropouts)
    export(trainer, "dpo", "exported")
    assert same(weights(models.load_policy("exported")), weights(models.load_policy(tiny.policy)))


def test_unknown_target_modules_are_told_in_one_line(tiny, checkpoints):
    for what, build in BUILD.items():
        with pytest.raises(ParamsError, match=rf"^params.yaml: {what}.lora_target_modules: .*q_proj") as error:
            build(tiny, checkpoints, **LORA, lora_target_modules=["q_proj"])
        assert "\n" not in str(error.value)


# ---- Frozen parts


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        (["embeddings"], ("wte", "wpe")),
        (["norms"], ("ln_",)),
        (["attention"], (".attn.",)),
        (["mlp"], (".mlp.",)),
        (["1"], (".h.1.",)),
        (["0-1", "embeddings"], (".h.", "wte", "wpe")),
        (["mlp:1"], (".h.1.mlp.",)),
        (["attention:0-1", "norms:0"], (".attn.", ".h.0.ln_")),
        (["outer_norms"], ("ln_f",)),
        (["head"], ("wte",)),  # tied to the embeddings
    ],
)
def test_frozen_parts_stay_and_the_others_move(tiny, checkpoints, parts, frozen):
    trainer = sft_trainer(tiny, checkpoints, freeze=parts, **RUN)
    before = weights(trainer.model)
    training.run(trainer, checkpoints)
    after = trainer.model.state_dict()
    for name in before.keys() - {"lm_head.weight"}:
        assert before[name].equal(after[name]) is any(part in name for part in frozen), name


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["7"], "7: the model has layers 0 to 1"),
        (["0-1", "embeddings", "norms"], "nothing is left to train"),
        (["1-0"], "1-0: the model has layers"),
        (["mlp:1-2"], "mlp:1-2: the model has layers 0 to 1"),
    ],
)
def test_parts_that_cannot_be_frozen_are_told(tiny, checkpoints, parts, told):
    with pytest.raises(ParamsError, match=f"^params.yaml: sft.freeze: {told}"):
        sft_trainer(tiny, checkpoints, freeze=parts)


def test_a_model_of_other_names_has_the_same_parts():
    for part, frozen in {"attention": "self_attn", "mlp": ".mlp.", "norms": "norm", "embeddings": "embed"}.items():
        model = LlamaForCausalLM(UNTIED)
        weights_module.freeze("sft", model, [part])
        assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
            n for n, _ in model.named_parameters() if frozen in n
        }
    with pytest.raises(ParamsError, match="0 to 2"):
        weights_module.freeze("sft", LlamaForCausalLM(UNTIED), ["3"])


def test_the_head_of_a_reward_model_is_its_score(tiny, checkpoints):
    trainer = reward_trainer(tiny, checkpoints, freeze=["head"])
    assert {n for n, p in trainer.model.named_parameters() if not p.requires_grad} == {"score.weight"}


@pytest.mark.parametrize(
    ("config", "part", "frozen"),
    [
        (DISTILBERT, "head", {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"}),
        (DISTILBERT, "outer_norms", {f"distilbert.embeddings.LayerNorm.{kind}" for kind in ("weight", "bias")}),
        (UNTIED, "head", {"lm_head.weight"}),
        (UNTIED, "outer_norms", {"model.norm.weight"}),
        (UNTIED, "norms:2", {f"model.layers.2.{kind}_layernorm.weight" for kind in ("input", "post_attention")}),
    ],
)
def test_a_part_of_another_architecture(config, part, frozen):
    kind = AutoModelForSequenceClassification if config is DISTILBERT else AutoModelForCausalLM
    model = kind.from_config(config)
    weights_module.freeze("sft", model, [part])
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"load_in_8bit": True}, "lora_r: must be a rank"),
        ({"load_in_8bit": True, "load_in_4bit": True, **LORA}, "load_in_4bit: must be false"),
        ({"freeze": ["mlp"], **LORA}, r"freeze: must be \[\]"),
        ({"freeze": ["heads"]}, "freeze: must name embeddings"),
        ({"freeze": ["embeddings:0-1"]}, "freeze: must name embeddings.*such as mlp:1-10; got 'embeddings:0-1'"),
        ({"freeze": ["mlp:"]}, "freeze: must name embeddings"),
    ],
)
def test_weights_that_do_not_go_together_are_told(changes, told):
    with pytest.raises(ValueError, match=f"^{told}"):
        SFTParams(**{**TRAINER, "max_length": 64, **changes})


def test_few_bits_need_a_gpu():
    params = SFTParams(**{**TRAINER, "max_length": 64, "load_in_4bit": True, **LORA})
    with pytest.raises(ParamsError, match=r"^params.yaml: sft.load_in_4bit: needs a CUDA GPU"):
        quantization("sft", params)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_of_few_bits_are_multiplied_in_the_precision_of_all_others(compute, monkeypatch, precision):
    compute(precision=precision)
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    params = SFTParams(**{**TRAINER, "max_length": 64, "load_in_4bit": True, **LORA})
    config = quantization("sft", params)["quantization_config"]
    assert config.bnb_4bit_compute_dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


# ---- Export of weights that were collected from shards


@pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "lora"])
def test_collected_weights_are_put_back_into_the_untrained_model(tiny, checkpoints, changes):
    trainer = sft_trainer(tiny, checkpoints, **changes, **RUN)
    training.run(trainer, checkpoints)
    state = weights(trainer.model)
    params = SFTParams(**{**TRAINER, "max_length": 64, **changes})
    untrained = weights_module.choose("sft", models.load_policy(tiny.policy), params, "CAUSAL_LM")
    assert not same(weights(untrained), state)
    assert same(weights(weights_module.restored(untrained, state)), state)
    with pytest.raises(RuntimeError, match="not the model's"):
        weights_module.restored(untrained, {**state, "odd": torch.zeros(1)})
