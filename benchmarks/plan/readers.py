"""What the stages do that only read and sample, and what sft and reward do after their training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]


def reference(params: Any, pairs: int, folder: Path, rows: Rows) -> None:
    """The reference log-probs of rows; `pairs` are not scored here."""
    from rlhf_lib.dpo.reference import reference_logprobs
    from rlhf_lib.models.loading import load_policy, load_tokenizer

    path = folder / "policy"
    limits = params.max_length, params.precompute_ref_batch_size
    reference_logprobs(load_policy(path), load_tokenizer(path), list(rows), *limits)


def evaluate(params: Any, pairs: int, folder: Path, rows: Rows) -> None:
    """Answers to the rows' prompts, log-probs under two models, and two models' scores of so many pairs at once."""
    from rlhf_lib.evaluation.sampling import Evaluator
    from rlhf_lib.models.loading import load_policy, load_tokenizer
    from rlhf_lib.scoring.reward_model import RewardModel

    path, size = folder / "policy", RewardModel.ANSWERS * pairs
    scorers = {name: RewardModel.load(folder / "reward", batch_size=size) for name in ("reward", "judge")}
    # Weights are mapped from their files, and come into memory where they are read. These rows have few of the
    # vocabulary's tokens, so that most of the scorers' embeddings would not be, as those of real rows are.
    for scorer in scorers.values():
        scorer.model.get_input_embeddings().weight.sum()
    evaluator = Evaluator(params, load_policy(path), load_policy(path), scorers, load_tokenizer(path))
    evaluator.samples(rows)


def after(params: Any, stage: str, trainer: Any, folder: Path, rows: Rows) -> None:
    """The token loss of the model that the training began with, or scores by the trained reward model."""
    from rlhf_lib.models.loading import load_policy
    from rlhf_lib.scoring.reward_model import RewardModel
    from rlhf_lib.sft import trainer as sft

    made, size = trainer.processing_class, params.per_device_eval_batch_size
    if stage == "sft":
        sft.token_loss(load_policy(folder / "policy"), made, rows, params.max_length, size)
    elif stage == "reward":
        answers = [row[side][0]["content"] for side in ("chosen", "rejected") for row in rows]
        model = RewardModel(trainer.model, made, batch_size=RewardModel.ANSWERS * size)
        model.scores([row["prompt"] for row in rows] * 2, answers)


READ: dict[str, Callable[[Any, int, Path, Rows], None]] = {"reference": reference, "evaluate": evaluate}
