"""What a critic reads of a batch, and in which precision its values are computed."""

import pytest
import torch
from ppo_trainers import TRAIN_ROWS, ppo_params
from tiny_models import save_tiny
from transformers import AutoModelForCausalLM, GPTNeoConfig, LlamaConfig, set_seed

from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.models.logprobs import Distribution, Response
from rlhf_lib.ppo import build as ppo
from rlhf_lib.scoring.reward_model import RewardModel

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64, "vocab_size": 512}
PACKS = LlamaConfig(**SIZES, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
PADS = GPTNeoConfig(
    **SIZES,
    num_layers=2,
    num_heads=2,
    attention_types=[[["global", "local"], 1]],
    window_size=8,
    resid_dropout=0.0,
    embed_dropout=0.0,
    attention_dropout=0.0,
)
ANSWERS = [Response(ids, False) for ids in ([40, 41, 42], [50], [60, 61, 62, 63, 64])]


def rows(tokenizer):
    prompts = [prompt_ids(tokenizer, row["prompt"]) for row in TRAIN_ROWS[:3]]
    return [prompts[0], prompts[1][-4:], prompts[2]], ANSWERS


def drawn(config, tokenizer, folder):
    set_seed(0)
    return save_tiny(AutoModelForCausalLM.from_config(config), tokenizer, folder)


@pytest.mark.parametrize("critic", [{"critic": "separate"}, {"critic": "lora", "lora_r": 4}], ids=["full", "lora"])
@pytest.mark.parametrize("configs", [(PACKS, PADS), (PADS, PACKS)], ids=["padded-critic", "packed-critic"])
def test_a_critic_of_another_architecture_reads_rows_in_its_own_layout(tokenizer, tmp_path, configs, critic):
    """Values of rows in a batch are those of each row alone, and of the reward model that the critic starts from."""
    policy, other = (drawn(config, tokenizer, tmp_path / config.model_type) for config in configs)
    model, _ = ppo.policy_and_reference(ppo_params(**critic), str(policy.policy), str(other.reward))
    assert takes_packing(model.policy) != takes_packing(model.critic_trunk)
    prompts, responses = rows(tokenizer)
    with torch.no_grad():
        together = model(model.collate(prompts, responses, tokenizer.pad_token_id), Distribution())
        alone = [
            model(model.collate([p], [r], tokenizer.pad_token_id), Distribution())
            for p, r in zip(prompts, responses, strict=True)
        ]
        states = [p + r.ids[:k] for p, r in zip(prompts, responses, strict=True) for k in range(len(r.ids))]
        trunk = AutoModelForCausalLM.from_pretrained(other.policy).eval().base_model
        hidden = torch.stack([trunk(torch.tensor([ids])).last_hidden_state[0, -1] for ids in states])
    for name in ("values", "logprobs"):
        expected = torch.cat([getattr(output, name) for output in alone])
        torch.testing.assert_close(getattr(together, name), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.values, model.value_head(hidden).squeeze(-1), atol=1e-5, rtol=1e-5)
    assert together.values.std() > 0.1


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("critic", [{"critic": "separate"}, {"critic": "lora", "lora_r": 4}], ids=["full", "lora"])
def test_a_critic_starts_from_the_rewards_that_ppo_gets(ending, tiny, tokenizer, critic, normalize):
    """The value of a state is the reward of what was said until then, in the same units."""
    model, _ = ppo.policy_and_reference(
        ppo_params(normalize_rewards=normalize, **critic), str(ending), str(tiny.reward)
    )
    reward = RewardModel.load(tiny.reward, normalize=normalize)
    prompts, responses = rows(tokenizer)
    with torch.no_grad():
        values = model(model.collate(prompts, responses, tokenizer.pad_token_id), Distribution()).values
        scores = torch.cat([reward.model(torch.tensor([ids])).logits[0] for ids in prompts])
    firsts = torch.tensor([0, *(len(response.ids) for response in responses[:-1])]).cumsum(0)
    torch.testing.assert_close(values[firsts], (scores - reward.mean) / reward.std, atol=1e-5, rtol=1e-5)
    assert (reward.mean, reward.std) == ((0.1, 0.5) if normalize else (0.0, 1.0))


@pytest.mark.parametrize("configs", [(PACKS, PADS), (PADS, PACKS)], ids=["padded-critic", "packed-critic"])
def test_a_run_with_a_critic_of_another_architecture_learns_in_batches_as_in_single_rows(
    build, tokenizer, tmp_path, configs
):
    policy, other = (drawn(config, tokenizer, tmp_path / config.model_type) for config in configs)
    losses = []
    for size in (4, 1):
        trainer = build(policy.policy, other.reward, critic="separate", per_device_train_batch_size=size)
        trainer.train()
        losses.append([row["value_loss"] for row in trainer.state.log_history if "loss" in row])
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_prompts_are_cut_to_what_a_critic_of_a_shorter_context_can_read(build, tokenizer, tmp_path):
    short = GPTNeoConfig(**{**PADS.to_dict(), "max_position_embeddings": 16})
    policy, other = drawn(PACKS, tokenizer, tmp_path / "policy"), drawn(short, tokenizer, tmp_path / "critic")
    constant = {"r": lambda prompts, **columns: [0.5] * len(prompts)}
    trainer = build(policy.policy, other.reward, critic="separate", functions=constant, response_length=8)
    whole = [prompt_ids(tokenizer, row["prompt"]) for row in TRAIN_ROWS]
    assert min(map(len, whole)) > 8 and trainer.train_prompts.ids == [ids[-8:] for ids in whole]
    trainer.train()


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_values_and_their_gradients_are_computed_in_fp32_under_bf16(compute, ending, tiny, tokenizer, critic):
    compute(precision="bf16")
    model, _ = ppo.policy_and_reference(ppo_params(critic=critic), str(ending), str(tiny.reward))
    torch.manual_seed(0)
    torch.nn.init.normal_(model.value_head.weight)
    torch.nn.init.constant_(model.value_head.bias, 10.0)  # where neighbours in bf16 are 1/16 apart
    read = []
    model.value_head.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].detach().float()))
    prompts, responses = rows(models.load_tokenizer(ending))
    with hardware.autocast():
        values = model(model.collate(prompts, responses, tokenizer.pad_token_id), Distribution()).values
    assert values.dtype == torch.float32
    (hidden,) = read
    weight, bias = model.value_head.weight.detach(), model.value_head.bias.detach()
    torch.testing.assert_close(values.detach(), hidden @ weight[0] + bias, atol=1e-5, rtol=1e-6)
    errors = torch.linspace(-1.0, 1.0, len(values))  # of the values, as a loss would have them
    (values * errors).sum().backward()
    torch.testing.assert_close(model.value_head.weight.grad[0], errors @ hidden, atol=1e-5, rtol=1e-5)
