"""The cases of the PPO benchmark: which models, how much work, and the settings of both sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_lib.models.params import Choice, Frozen

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": 4096},
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257},
    "quick": {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 512},
}

# The settings of TRL's PPOTrainer, in our names. Where a case does not say otherwise, both sides run these.
LIKE_FOR_LIKE: dict[str, Any] = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "max_grad_norm": 0.0,  # TRL's PPOTrainer does not clip gradients
    "temperature": 0.7,
    "vf_coef": 0.1,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "gamma": 1.0,
    "lam": 0.95,
    "whiten_advantages": True,
    "kl_estimator": "k1",
    "kl_coef": 0.05,
    "kl_target": None,
    "missing_eos_penalty": None,
}

# What TRL's trainer has no counterpart of, switched off.
PLAIN: dict[str, Any] = {
    "num_generations": 1,
    "min_new_tokens": 0,
    "top_k": 0,
    "top_p": 1.0,
    "stop_strings": [],
    "normalize_rewards": False,
    "scale_rewards": "none",
    "reward_clip": None,
    "missing_eos_replaces": False,
    "length_penalty": 0.0,
    "critic_learning_rate": None,
    "advantage_estimator": "gae",
    "loss_aggregation": "token",
    "kl_in": "reward",
    "use_bias_correction_kl": False,
    "max_kl": None,
    "max_approx_kl": None,
    "whiten_rewards": False,
    "cliprange_high": None,
    "dual_clip": None,
    "entropy_coef": 0.0,
    "ptx_coef": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    about: str
    ours: Mapping[str, Any]  # over the `ppo` section of params.yaml; the amount of work comes on top
    precision: Choice = "fp32"  # of ours
    frozen_dtype: Frozen = "auto"  # of ours
    peer_bf16: bool = False
    size: str = "tiny"
    batch: int = 64  # prompts per rollout, with one response each
    response_length: int = 64
    epochs: int = 4
    minibatches: int = 4
    prompt_lengths: tuple[int, int] = (16, 64)  # tokens of a templated prompt, uniform between these
    eos_probability: float | None = None  # of each sampled token; None: the model is left as drawn
    seed: int = 0

    @property
    def needs_bf16(self) -> bool:
        """Whether a side asks for bf16, which a processor without instructions for it emulates very slowly."""
        return self.peer_bf16 or self.precision == "bf16"

    def quick(self) -> Case:
        """The same settings on so little work that it only shows whether both sides run."""
        return dataclasses.replace(self, size="quick", batch=8, response_length=8, epochs=2, minibatches=2)

    def work(self, updates: int) -> dict[str, Any]:
        """The amount of work in the names of the `ppo` section: nothing but rollouts and their updates."""
        never = 1_000_000
        return {
            "seed": self.seed,
            "total_rollouts": updates,
            "rollout_batch_size": self.batch,
            "num_ppo_epochs": self.epochs,
            "num_minibatches": self.minibatches,
            # Memory only: the gradient is that of the whole minibatch, which TRL takes at once.
            "per_device_train_batch_size": min(8, self.batch // self.minibatches),
            "response_length": self.response_length,
            "eval_rollouts": never,
            "save_rollouts": never,
            "load_best_model_at_end": False,
            "early_stopping_patience": None,
            "num_completions_to_log": 0,
        }


LIKE_TRL = {**LIKE_FOR_LIKE, **PLAIN, "critic": "separate", "lora_r": None}
LORA = {**LIKE_TRL, "critic": "shared", "lora_r": 8, "lora_alpha": 16, "lora_target_modules": ["c_attn"]}

CASES: dict[str, Case] = {
    "fp32": Case(about="the same algorithm, fp32", ours=LIKE_TRL),
    "bf16": Case(about="the same algorithm, bf16 autocast", ours=LIKE_TRL, precision="bf16", peer_bf16=True),
    "default": Case(
        about="each side as it comes: ours as in params.yaml, TRL fp32 with a value model", ours={}, precision="auto"
    ),
    "early_eos": Case(about="fp32, responses that end early", ours=LIKE_TRL, eos_probability=0.03),
    "early_eos_bf16": Case(
        about="bf16 autocast, responses that end early",
        ours=LIKE_TRL,
        precision="bf16",
        peer_bf16=True,
        eos_probability=0.03,
    ),
    "gpt2_fp32": Case(about="GPT-2 of 124 million parameters, fp32", ours=LIKE_TRL, size="gpt2", batch=8),
    "gpt2_bf16": Case(
        about="GPT-2 of 124 million parameters, bf16 autocast",
        ours=LIKE_TRL,
        precision="bf16",
        peer_bf16=True,
        size="gpt2",
        batch=8,
    ),
    "gpt2_lora_fp32": Case(
        about="GPT-2: our LoRA with a shared critic against full fine-tuning, fp32",
        ours=LORA,
        size="gpt2",
        batch=8,
    ),
    "gpt2_lora": Case(
        about="GPT-2: our LoRA with a shared critic, all in bf16, against full fine-tuning in fp32",
        ours=LORA,
        precision="bf16",
        frozen_dtype="bf16",
        size="gpt2",
        batch=8,
    ),
}
