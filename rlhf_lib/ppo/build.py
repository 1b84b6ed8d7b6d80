"""The PPO stage's trainer from model directories and params."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed

from rlhf_lib.common import paths
from rlhf_lib.common.launching import num_processes
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import frozen, hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.lengths import Limit, no_rows, say, tell_long_answers
from rlhf_lib.models.templates import check_rows
from rlhf_lib.ppo.data import columns_of
from rlhf_lib.ppo.model import (
    ActorCritic,
    Reference,
    adapter_off,
    frozen_copy,
    with_separate_critic,
    with_shared_critic,
    without_critic,
)
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.ppo.rewards import RewardFunctions
from rlhf_lib.ppo.trainer import PPOTrainer
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.training import best, weights
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.quantization import quantization


def build(
    params: PPOParams,
    sft: str,
    reward: str,
    train_rows: Sequence[JsonObject],
    eval_rows: Sequence[JsonObject],
    ptx_rows: Sequence[JsonObject],
    checkpoints: CheckpointDir,
) -> PPOTrainer:
    """A trainer of the policy in directory `sft`; a separate critic starts from the reward model in `reward`."""
    if not train_rows:
        raise no_rows(paths.split("prompts_train"))
    set_seed(params.seed)
    args = training_arguments(params, checkpoints, has_validation(params, eval_rows))
    model, reference = policy_and_reference(params, sft, reward)
    rewards = RewardFunctions.load(
        params.reward_funcs, params.reward_weights, params.normalize_rewards, params.forward_batch_size
    )
    rewards.check(columns_of(train_rows))
    for model_of_reward in (model for model in rewards.functions.values() if isinstance(model, RewardModel)):
        for rows, name in ((train_rows, "prompts_train"), (eval_rows, "prompts_validation")):
            check_rows(model_of_reward.tokenizer, (row["prompt"] for row in rows), paths.split(name))
    tokenizer = models.load_tokenizer(sft)
    tell_long_answers(
        tokenizer, ptx_rows, Limit("ppo.response_length", params.response_length), params.missing_eos_penalty
    )
    trainer = PPOTrainer(
        params,
        model,
        reference,
        rewards,
        tokenizer,
        args,
        list(train_rows),
        list(eval_rows),
        list(ptx_rows),
    )
    size = params.per_device_train_batch_size, max(map(len, trainer.train_prompts.ids)) + params.response_length
    checkpointing = any(training.wants_checkpointing(trunk, *size) for trunk in model.trunks)
    if checkpointing:
        model.checkpoint_activations()
    training.settle_heap(checkpointing)
    trainer.keep_best(params)
    return trainer


def has_validation(params: PPOParams, eval_rows: Sequence[JsonObject]) -> bool:
    """Whether there are prompts to evaluate on; a line where there are none, or a `ParamsError` where params need
    them."""
    if eval_rows:
        return True
    file = paths.split("prompts_validation")
    best.check("ppo", params, file)
    say(f"ppo: no validation: {file}: no rows")
    return False


def training_arguments(params: PPOParams, checkpoints: CheckpointDir, validates: bool = True) -> TrainingArguments:
    """The trainer's arguments, in as many processes as this one was started with."""
    kwargs = training.trainer_kwargs(checkpoints)
    try:
        config = params.trainer_config(num_processes())
    except ValueError as error:
        raise ParamsError(f"params.yaml: ppo.{error}") from None
    evaluations: dict[str, Any] = {} if validates else {"eval_strategy": "no"}
    # the loader knows where to go on
    return TrainingArguments(**{"ignore_data_skip": True, **kwargs, **config, **evaluations})


def policy_and_reference(params: PPOParams, sft: str, reward: str) -> tuple[ActorCritic, Reference]:
    """The policy in directory `sft` with the critic that the params ask for, if any, and its reference.

    With LoRA, the reference is the policy without its adapter; else it is a second model.
    """
    loaded = models.load_policy(sft, **quantization("ppo", params))
    policy = weights.choose("ppo", loaded, params, "CAUSAL_LM")
    weights.hold_frozen(policy)
    if isinstance(policy, PeftModel):
        reference = adapter_off(policy)
    else:
        # frozen in the same parts: PyTorch chooses its matrix products by what has a gradient
        copy = weights.choose("ppo", models.load_policy(sft), params, "CAUSAL_LM")
        # the policy's tables are trained in fp32: held ones would be of another model
        if not hardware.shards():
            frozen.hold(copy, hardware.frozen_dtype(), tables=False)
        reference = frozen_copy(copy)
    if not params.has_own_critic:
        return (with_shared_critic if params.has_critic else without_critic)(policy), reference
    critic = RewardModel.load(reward, normalize=params.normalize_rewards)  # values are in the rewards' units
    check_tokenizers(critic.tokenizer, models.load_tokenizer(sft))
    if critic.bounds is not None:
        raise ParamsError(
            "params.yaml: ppo.critic: a critic of its own starts from the reward model, whose rewards are bounded "
            "(reward.bounded), as values are not; set it to shared"
        )
    models.run_fast(critic.model)
    adapters = weights.lora_config(params, critic.model, "FEATURE_EXTRACTION") if params.critic == "lora" else None
    return with_separate_critic(policy, critic, adapters), reference


def check_tokenizers(of_reward: PreTrainedTokenizerBase, of_policy: PreTrainedTokenizerBase) -> None:
    """A `ParamsError` when the critic would read other tokens than those that it was trained on."""
    if of_reward.get_vocab() != of_policy.get_vocab():
        raise ParamsError(
            "params.yaml: ppo.critic: a critic of its own starts from the reward model, which has another tokenizer "
            "than the policy; set it to shared"
        )
