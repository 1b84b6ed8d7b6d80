"""PPO trainers of tiny models: params, rows, and the fixture `build` for the conftest.py of a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_models import TEXTS, Tiny

from rlhf_lib.ppo.params import PPOParams

if TYPE_CHECKING:
    from rlhf_lib.ppo.trainer import PPOTrainer
    from rlhf_lib.training.checkpoint import CheckpointDir

# What PPO reads: rows with columns beside the prompt, and SFT rows
TRAIN_ROWS = [
    {
        "id": f"train-{i}",
        "source": "demo/facts",
        "prompt": [{"role": "user", "content": text}],
        "answer": text.split()[2],
    }
    for i, text in enumerate(TEXTS)
]
EVAL_ROWS = [
    {
        "id": f"eval-{noun}",
        "source": "other",
        "prompt": [{"role": "user", "content": f"What is a {noun}?"}],
        "answer": noun,
    }
    for noun in ("cat", "dog", "sky")
]
PTX_ROWS = [
    {"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": answer}]}
    for text, answer in zip(TEXTS, ("Cat.", "A dog, in one word.", "sky", "Paint the cat.", "one"), strict=False)
]


@pytest.fixture
def build(tiny: Tiny, ending: Path, checkpoints: CheckpointDir) -> Callable[..., PPOTrainer]:
    """A function of params that gives a trainer. `functions`, with their weights, take the place of reward_funcs."""
    from rlhf_lib.ppo import build as ppo
    from rlhf_lib.ppo.rewards import RewardFunctions

    defaults = {"temperature": 0.8, "eval_rollouts": 100, "save_rollouts": 100, "max_grad_norm": 0.0}

    def build(
        policy: Path = ending,
        reward: Path = tiny.reward,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        weights: Sequence[float] | None = None,
        **changes: Any,
    ) -> PPOTrainer:
        params = ppo_params(**{**defaults, "reward_funcs": [str(reward)], **changes})
        trainer = ppo.build(params, str(policy), str(reward), TRAIN_ROWS, EVAL_ROWS, PTX_ROWS, checkpoints)
        if functions is not None:
            trainer.sampler.reward = RewardFunctions(functions, weights or [1.0] * len(functions))
        return trainer

    return build


PARAMS = {
    "seed": 0,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": {},
    "warmup_steps": 0.0,
    "optim": "adamw_torch_fused",
    "optim_args": None,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "per_device_train_batch_size": 2,
    "total_rollouts": 2,
    "rollout_batch_size": 8,
    "generation_batch_size": None,
    "local_rollout_forward_batch_size": None,
    "num_generations": 1,
    "num_ppo_epochs": 2,
    "num_minibatches": 2,
    "response_length": 8,
    "min_new_tokens": 0,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "stop_strings": [],
    "gather_for_generation": True,
    "reward_funcs": ["models/reward"],
    "reward_weights": None,
    "normalize_rewards": True,
    "scale_rewards": "none",
    "reward_clip": None,
    "missing_eos_penalty": None,
    "missing_eos_replaces": False,
    "length_penalty": 0.0,
    "lora_r": None,
    "lora_alpha": 16,
    "lora_target_modules": None,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "freeze": [],
    "critic": "shared",
    "critic_learning_rate": None,
    "kl_estimator": "k1",
    "kl_in": "reward",
    "use_bias_correction_kl": False,
    "kl_clip": None,
    "kl_coef": 0.1,
    "kl_target": None,
    "kl_horizon": 1000.0,
    "max_kl": None,
    "max_approx_kl": None,
    "advantage_estimator": "gae",
    "gamma": 0.9,
    "lam": 0.5,
    "whiten_rewards": False,
    "whiten_advantages": False,
    "loss_aggregation": "token",
    "cliprange": 0.2,
    "cliprange_high": None,
    "dual_clip": None,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "entropy_coef": 0.0,
    "ptx_coef": 0.0,
    "eval_rollouts": 1,
    "max_eval_prompts": None,
    "save_rollouts": 1,
    "load_best_model_at_end": False,
    "metric_for_best_model": "reward",
    "early_stopping_patience": None,
    "save_total_limit": 1,
    "num_completions_to_log": 2,
}


def ppo_params(**changes):
    return PPOParams(**{**PARAMS, **changes})
