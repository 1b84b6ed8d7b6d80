"""The shapes of the models whose launches are counted, and the amounts of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.trainers.cases import TrainerCase

Side = Literal["ours", "trl"]
SIDES: tuple[Side, ...] = ("ours", "trl")

PROMPT, ANSWER = 16, 64  # tokens of every row; those of the answer are the ones with a label
NEW_TOKENS = 16  # that are sampled, and twice as many; the difference is what these cost
ROWS = 4  # of a forward pass: 256 tokens with a label; 2 pairs where a stage learns from pairs
MICRO_BATCHES = 2  # of PPO's optimizer step
LONG = 16_000  # tokens with a label, for which the memory of the output layer is told
NEVER = 1_000_000


@dataclass(frozen=True)
class Shape:
    """A published model's vocabulary and kind of layers, so narrow that its output layer is nearly all of the work."""

    about: str
    kind: str  # transformers' model type
    vocab_size: int
    layers: int  # of the published model
    depth: str  # the config's name of their number
    sizes: Mapping[str, Any]

    def config(self, layers: int, tokenizer: Any) -> Any:
        """transformers' config with so many layers."""
        from transformers import AutoConfig

        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return AutoConfig.for_model(
            self.kind, vocab_size=self.vocab_size, num_labels=1, **self.sizes, **ids, **{self.depth: layers}
        )


# No power of 2: a piece of the logits with as many rows is not taken for a weight's gradient.
WIDTH = 48
_GROUPED = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 1024}
_NO_DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.0)

SHAPES: dict[str, Shape] = {
    "gpt2": Shape("GPT-2", "gpt2", 50257, 12, "n_layer", {"n_embd": WIDTH, "n_head": 4, **_NO_DROPOUT}),
    "qwen2.5-0.5b": Shape(
        "Qwen2.5-0.5B",
        "qwen2",
        151936,
        24,
        "num_hidden_layers",
        {**_GROUPED, "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "gemma-3-270m": Shape(
        "Gemma-3-270m",
        "gemma3_text",
        262144,
        18,
        "num_hidden_layers",
        {**_GROUPED, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12, "sliding_window": 512},
    ),
}
QUICK_VOCABULARY = 5000  # at least HEAD_WIDTH of the counter


@dataclass(frozen=True, kw_only=True)
class LaunchCase(TrainerCase):
    """Rows of one length, a step without a log: a log waits for the loss and the norm of the gradient."""

    def work(self, task: str, blocks: int) -> dict[str, Any]:
        return {**super().work(task, blocks), "logging_steps": NEVER}


def trainer_case(rows: int) -> LaunchCase:
    """Two steps of so many rows or pairs; like for like: fp32, and TRL without gradient checkpointing."""
    from benchmarks.trainers.cases import LEAN

    return LaunchCase(about="", peer=LEAN, precision="fp32", batch=rows, steps=2, max_length=PROMPT + ANSWER)


def ppo_overrides(rows: int, micro_batches: int) -> dict[str, Any]:
    """Over the section `ppo` of params.yaml: two optimizer steps on a rollout, of so many micro-batches of rows."""
    return {
        "total_rollouts": 2,
        "rollout_batch_size": rows * micro_batches,
        "num_ppo_epochs": 2,
        "num_minibatches": 1,
        "per_device_train_batch_size": rows,
        "response_length": ANSWER,
        "eval_rollouts": NEVER,
        "save_rollouts": NEVER,
        "num_completions_to_log": 0,
    }
