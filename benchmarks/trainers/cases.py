"""The cases of the benchmark of SFT, reward model and DPO: shapes, rows, and the settings of both sides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Lengths = tuple[int, int]

TASKS = ("sft", "reward", "dpo")

# Peak learning rates, of both sides. TRL's own, for pretrained models, would hardly move these random ones: curves
# that stay where they begin would agree whatever the trainers do.
LEARNING_RATES = {"sft": 5e-4, "reward": 1e-4, "dpo": 5e-5}

# TRL's defaults in the names of params.yaml, where a section of ours has another value.
TRL_DEFAULTS: dict[str, Any] = {
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1,
    "lora_r": None,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "freeze": [],
}
TASK_DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {},
    "reward": {"loss_type": "bradley_terry", "bounded": False, "center_rewards_coefficient": None},
    "dpo": {"beta": 0.1, "loss_type": "sigmoid", "label_smoothing": 0.0},
}


@dataclass(frozen=True, kw_only=True)
class TrainerCase:
    """A block is one pass over all rows: the same tokens on both sides, in whatever batches."""

    about: str
    peer: dict[str, Any] = dataclasses.field(default_factory=dict)  # over TRL's defaults
    precision: Literal["auto", "fp32"] = "auto"  # ours
    checkpointing: bool = False  # ours: activations are computed again in the backward pass, as TRL's default is
    sampling: Literal["random", "group_by_length"] = "random"  # ours; TRL's is random
    size: str = "tiny"
    batch: int = 16  # rows or pairs
    steps: int = 3  # to a block
    prompt_lengths: Lengths = (16, 128)  # tokens, templated
    answer_lengths: Lengths = (16, 200)  # tokens, the EOS included
    max_length: int = 256
    seed: int = 0

    @property
    def rows(self) -> int:
        return self.batch * self.steps

    @property
    def same_order(self) -> bool:
        """Whether both sides take the same rows in the same step."""
        return self.sampling == "random"

    @property
    def needs_bf16(self) -> bool:
        """Whether a side computes in bf16, which a processor without instructions for it emulates very slowly."""
        return self.peer.get("bf16", True)

    def quick(self) -> TrainerCase:
        """The same settings on so little work that it only shows whether both sides run."""
        return dataclasses.replace(
            self, size="quick", batch=4, steps=2, prompt_lengths=(8, 24), answer_lengths=(4, 24), max_length=48
        )

    def work(self, task: str, blocks: int) -> dict[str, Any]:
        """All that both sides set, in TRL's names, which are those of params.yaml.

        One pass more than is measured: a trainer that came to its end would save and evaluate there.
        """
        return {
            "seed": self.seed,
            "learning_rate": LEARNING_RATES[task],
            "per_device_train_batch_size": self.batch,
            "num_train_epochs": blocks + 1,
            "max_length": self.max_length,
            "logging_steps": 1,
        }

    def ours(self, task: str, blocks: int) -> dict[str, Any]:
        """The case in the names of the section `task` of params.yaml; all that matters to speed is in it."""
        never = 1_000_000
        section = {
            **TRL_DEFAULTS,
            **TASK_DEFAULTS[task],
            **self.work(task, blocks),
            "max_steps": -1,
            "train_sampling_strategy": self.sampling,
            "eval_steps": never,
            "save_steps": never,
        }
        return {key: value for key, value in section.items() if not (task == "dpo" and key == "max_length")}


LEAN = {"bf16": False, "gradient_checkpointing": False}
GPT2: dict[str, Any] = {"size": "gpt2", "batch": 8, "steps": 1}

CASES: dict[str, TrainerCase] = {
    "tiny": TrainerCase(about="4 layers, 256 wide; TRL as it comes"),
    "tiny_fp32": TrainerCase(
        about="4 layers, 256 wide; TRL without gradient checkpointing, both in fp32", peer=LEAN, precision="fp32"
    ),
    "tiny_grouped": TrainerCase(
        about="4 layers, 256 wide; TRL as it comes, our batches of rows of like length",
        sampling="group_by_length",
    ),
    "gpt2": TrainerCase(about="GPT-2 of 124 million parameters; TRL as it comes", **GPT2),
    "gpt2_checkpointing": TrainerCase(
        about="GPT-2 of 124 million parameters; both in bf16 and with gradient checkpointing",
        checkpointing=True,
        **GPT2,
    ),
    "gpt2_fp32": TrainerCase(
        about="GPT-2 of 124 million parameters; TRL without gradient checkpointing, both in fp32",
        peer=LEAN,
        precision="fp32",
        **GPT2,
    ),
}
