"""Critics, adapters and references of PPO, and whole runs of other architectures."""

import pytest
import torch
from ppo_steps import CRITICS, assert_first_ratios_are_1
from ppo_trainers import TRAIN_ROWS, ppo_params
from safetensors.torch import load_file
from tiny_models import save_tiny
from trained import column, same, weights
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    Qwen2Config,
    set_seed,
)

from rlhf_lib.base import model as base
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.models.logprobs import Distribution, Response
from rlhf_lib.ppo import build as ppo
from rlhf_lib.ppo.model import ActorCritic, with_shared_critic
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.training import trainer as training
from rlhf_lib.training.weights import ADAPTER, save

LORA = {"lora_r": 4, "lora_alpha": 8}


def dialogues(tokenizer):
    prompts = [prompt_ids(tokenizer, row["prompt"]) for row in TRAIN_ROWS[:3]]
    prompts[1] = prompts[1][-4:]
    return prompts, [Response(ids, False) for ids in ([40, 41, 42], [50], [60, 61, 62, 63, 64])]


def states(prompts, responses):
    """The tokens before each response token, in the order in which a batch has them."""
    return [p + r.ids[:k] for p, r in zip(prompts, responses, strict=True) for k in range(len(r.ids))]


# ---- Critics


@pytest.mark.parametrize("critic", [{"critic": "separate"}, {"critic": "lora", **LORA}], ids=["separate", "lora"])
def test_a_critic_of_its_own_starts_as_the_normalised_reward_model(ending, tiny, critic):
    model, _ = ppo.policy_and_reference(ppo_params(**critic), str(ending), str(tiny.reward))
    reward, tokenizer = RewardModel.load(tiny.reward), models.load_tokenizer(tiny.reward)
    prompts, responses = dialogues(tokenizer)
    with torch.no_grad():
        batch = model.collate(prompts, responses, tokenizer.pad_token_id)
        values = model(batch, Distribution(0.8)).values
        scores = [reward.model(torch.tensor([ids])).logits.item() for ids in states(prompts, responses)]
    assert values.tolist() == pytest.approx([(score - reward.mean) / reward.std for score in scores], abs=1e-5)
    assert values.std() > 0.1


@pytest.mark.parametrize(
    ("of_policy", "of_critic", "context"), [(64, 32, 32), (32, 64, 32), (None, 32, 32), (None, None, None)]
)
def test_the_context_is_that_of_the_shorter_of_policy_and_critic(of_policy, of_critic, context):
    def small(length):
        if length is None:  # ALiBi
            return AutoModelForCausalLM.from_config(BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2))
        sizes = {"vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2}
        return AutoModelForCausalLM.from_config(GPT2Config(n_positions=length, **sizes))

    model = ActorCritic(small(of_policy), small(of_critic), torch.nn.Linear(8, 1))
    assert model.context_length == context


@pytest.mark.parametrize("lora", [{}, LORA], ids=["full", "lora"])
def test_a_shared_critic_is_a_head_on_the_policys_last_hidden_state(ending, tiny, lora):
    model, _ = ppo.policy_and_reference(ppo_params(critic="shared", **lora), str(ending), str(tiny.reward))
    tokenizer = models.load_tokenizer(ending)
    prompts, responses = dialogues(tokenizer)
    batch = model.collate(prompts, responses, tokenizer.pad_token_id)
    plain = AutoModelForCausalLM.from_pretrained(ending).eval()
    with torch.no_grad():
        assert model(batch, Distribution()).values.eq(0).all()
        torch.nn.init.normal_(model.value_head.weight)
        values = model(batch, Distribution()).values
        hidden = [
            plain(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
            for ids in states(prompts, responses)
        ]
        expected = model.value_head(torch.stack(hidden)).squeeze(-1)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)


def test_only_a_critic_of_its_own_moves_away_from_the_reward(build):
    trainer = build(critic="separate")
    (reward,) = (function.model for function in trainer.sampler.reward.functions.values())
    before, critic = weights(reward), weights(trainer.model.critic_trunk)
    trainer.train()
    assert same(before, weights(reward))
    assert not same(critic, weights(trainer.model.critic_trunk))


def test_a_separate_critic_needs_the_policys_tokenizer(tiny, ending, tmp_path):
    tokenizer = base.fresh_tokenizer(["other words entirely"], 300)
    models.save(AutoModelForSequenceClassification.from_pretrained(tiny.reward), tokenizer, tmp_path)
    with pytest.raises(ParamsError, match=r"^params.yaml: ppo\.critic: .*set it to shared$") as error:
        ppo.policy_and_reference(ppo_params(critic="separate"), str(ending), str(tmp_path))
    assert "\n" not in str(error.value)
    ppo.policy_and_reference(ppo_params(critic="shared"), str(ending), str(tmp_path))


def test_a_critic_by_adapters_needs_their_rank():
    with pytest.raises(ValueError, match="^critic: .*lora_r"):
        ppo_params(critic="lora", lora_r=None)


@CRITICS
def test_the_critics_learning_rate_is_of_its_own_parameters_only(build, critic):
    trainer = build(critic_learning_rate=3e-3, weight_decay=0.1, **critic)
    trainer.create_optimizer()
    rates = {p: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert rates.keys() == set(trained.values())
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len(trained)
    for name, parameter in trained.items():
        assert rates[parameter] == (1e-3 if name.startswith("policy.") else 3e-3), name
    decays = {p: group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert decays[trainer.model.value_head.weight] == 0.1 and decays[trainer.model.value_head.bias] == 0.0


@CRITICS
def test_a_critic_with_learning_rate_0_stays_while_the_policy_learns(build, critic):
    trainer = build(critic_learning_rate=0.0, **critic)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name.split(".")[0] for name, p in trainer.model.named_parameters() if not p.equal(before[name])}
    assert moved == {"policy"}


def test_learning_rates_of_both_follow_the_schedule(build):
    trainer = build(critic_learning_rate=4e-3)
    trainer.train()
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.0}
    assert column(trainer, "learning_rate") == pytest.approx([1e-3 * 5 / 8, 1e-3 / 8])  # the policy's


# ---- References


def test_the_reference_stays_as_it_was(build):
    trainer = build()
    with trainer.reference() as reference:
        before = weights(reference)
    trainer.train()
    with trainer.reference() as reference:
        assert same(before, weights(reference))
    assert not same(before, weights(trainer.model.policy))


def test_the_policy_without_its_adapter_is_the_reference(build, ending):
    trainer = build(learning_rate=1e-2, **LORA)
    plain, ids = models.load_policy(ending), torch.tensor([[5, 6, 7, 8]])
    trainer.train()
    with torch.no_grad():
        with trainer.reference() as reference:
            assert reference(ids).logits.equal(plain(ids).logits)
        assert not trainer.model.policy(ids).logits.equal(plain(ids).logits)


# ---- LoRA


def storages(*modules):
    return {p.data_ptr(): p.numel() for module in modules for p in module.parameters()}


@pytest.mark.parametrize("critic", [{"critic": "shared"}, {"critic": "lora"}], ids=["shared", "lora"])
def test_with_lora_only_adapters_and_value_head_learn(build, critic):
    trainer = build(**critic, **LORA)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained == {name for name in before if "lora_" in name or name.startswith("value_head.")}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert parameter.equal(before[name]) == (name not in trained), name


@pytest.mark.parametrize("critic", [{"critic": "shared"}, {"critic": "lora"}], ids=["shared", "lora"])
def test_lora_holds_one_trunk_for_policy_and_reference(build, ending, critic):
    trainer = build(**critic, **LORA)
    with trainer.reference() as reference:
        held = storages(trainer.model, reference)
        assert reference is trainer.model.policy
    trunk = models.load_policy(ending).num_parameters()
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    trunks = 1 if critic["critic"] == "shared" else 2
    assert sum(held.values()) == trunks * trunk + trained
    assert trained < trunk / 4
    full = build()
    with full.reference() as reference:
        assert sum(storages(full.model, reference).values()) == 2 * trunk + 33


def test_a_merged_policy_is_a_plain_model_with_the_adapters_logits(build, tmp_path):
    trainer = build(learning_rate=1e-2, **LORA)
    trainer.train()
    ids = torch.tensor([[5, 6, 7, 8, 9], [40, 41, 42, 43, 44]])
    with torch.no_grad():
        adapted = trainer.model.policy(ids).logits
        with trainer.reference() as reference:
            assert (reference(ids).logits - adapted).abs().max() > 1e-2
    save("ppo", trainer.model.policy, trainer.processing_class, tmp_path / "merged", load=None)
    beside = {file.name for file in (tmp_path / "merged" / ADAPTER).iterdir()}
    assert beside == {"adapter_config.json", "adapter_model.safetensors"}
    for file in (tmp_path / "merged").glob("*.json"):
        assert "lora" not in file.read_text() and "peft" not in file.read_text()
    names = load_file(tmp_path / "merged/model.safetensors")
    assert names.keys() and not any("lora" in name or "base_layer" in name for name in names)
    plain, info = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(ids).logits, adapted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("critic", [{"critic": "shared"}, {"critic": "lora"}], ids=["shared", "lora"])
def test_a_checkpoint_holds_the_trained_weights_only(build, checkpoints, critic):
    trainer = build(save_rollouts=1, **critic, **LORA)
    training.run(trainer, checkpoints)
    (checkpoint,) = checkpoints.path.glob("checkpoint-*")
    saved = load_file(checkpoint / "actor_critic.safetensors")
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert saved.keys() == trained.keys() and all(saved[name].equal(p) for name, p in trained.items())
    assert not (checkpoint / "model.safetensors").exists()


def test_adapters_go_where_they_are_asked_for(build):
    trainer = build(lora_target_modules=["c_fc"], **LORA)
    adapters = [name for name, p in trainer.model.policy.named_parameters() if p.requires_grad]
    assert len(adapters) == 2 * 2 and all(".mlp.c_fc.lora_" in name for name in adapters)
    assert_first_ratios_are_1(trainer)


def test_layers_that_the_model_does_not_have_are_told_in_one_line(build):
    with pytest.raises(ParamsError, match=r"^params\.yaml: ppo\.lora_target_modules: .*q_proj") as error:
        build(lora_target_modules=["q_proj"], **LORA)
    assert "\n" not in str(error.value)


# ---- Other architectures


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
ATTENTION = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
ARCHITECTURES = {
    "llama": LlamaConfig(**SIZES, **ATTENTION, vocab_size=512),
    "qwen2": Qwen2Config(**SIZES, **ATTENTION, vocab_size=512, tie_word_embeddings=True),
    "gpt_neo": GPTNeoConfig(
        **SIZES,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
        vocab_size=512,
    ),
}


@pytest.mark.parametrize(
    ("architecture", "critic"),
    [
        ("llama", {"critic": "shared"}),
        ("llama", {"critic": "lora", **LORA}),
        ("qwen2", {"critic": "shared"}),
        ("qwen2", {"critic": "separate"}),
        ("gpt_neo", {"critic": "shared"}),
    ],
)
def test_other_architectures_learn_from_a_first_ratio_of_1(build, tokenizer, tmp_path, architecture, critic):
    set_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture])
    other = save_tiny(model, tokenizer, tmp_path)
    trainer = build(other.policy, other.reward, learning_rate=1e-2, **critic)
    assert trainer.model.policy.config.model_type == architecture
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert_first_ratios_are_1(trainer)
    assert column(trainer, "kl")[1] != 0.0
    moved = [name for name, p in trainer.model.named_parameters() if p.requires_grad and not p.equal(before[name])]
    assert len(moved) > 0.9 * len(before)
    assert training.last(trainer.state.log_history, "eval_kl") != 0.0


def test_a_shared_critic_does_not_change_what_the_policy_says(ending):
    ids = torch.tensor([[5, 6, 7, 8]])
    plain, wrapped = models.load_policy(ending), with_shared_critic(models.load_policy(ending)).policy
    with torch.no_grad():
        assert wrapped(ids).logits.equal(plain(ids).logits)
