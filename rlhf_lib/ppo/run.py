"""The PPO stage's trainer from model directories and params."""

from __future__ import annotations

from transformers import TrainingArguments, set_seed

from rlhf_lib import training
from rlhf_lib.chat import Message
from rlhf_lib.checkpoint import CheckpointDir
from rlhf_lib.models import load_policy, load_tokenizer
from rlhf_lib.params.ppo import PPOParams
from rlhf_lib.params.schema import ParamsError
from rlhf_lib.ppo.model import ActorCritic, with_separate_critic, with_shared_critic
from rlhf_lib.ppo.trainer import PPOTrainer
from rlhf_lib.rewards import RewardModel


def build(
    params: PPOParams,
    sft: str,
    reward: str,
    train_prompts: list[list[Message]],
    eval_prompts: list[list[Message]],
    checkpoints: CheckpointDir,
) -> PPOTrainer:
    """A trainer of the policy in directory `sft` against the reward model in directory `reward`."""
    set_seed(params.seed)
    args = TrainingArguments(
        eval_strategy="steps",
        ignore_data_skip=True,  # the loader knows from the step where to go on
        **params.trainer_config(),
        **training.trainer_kwargs(checkpoints),
    )
    return PPOTrainer(
        params,
        actor_critic(params, sft, reward),
        reference=load_policy(sft),
        reward=RewardModel.load(reward),
        tokenizer=load_tokenizer(sft),
        args=args,
        train_prompts=train_prompts,
        eval_prompts=eval_prompts,
    )


def actor_critic(params: PPOParams, sft: str, reward: str) -> ActorCritic:
    """The policy in directory `sft` with the critic that the params ask for."""
    policy = load_policy(sft)
    if params.critic == "shared":
        return with_shared_critic(policy)
    if load_tokenizer(reward).get_vocab() != load_tokenizer(sft).get_vocab():
        raise ParamsError(
            "params.yaml: ppo.critic: a separate critic starts from the reward model, which has another tokenizer "
            "than the policy; set it to shared"
        )
    return with_separate_critic(policy, RewardModel.load(reward))
