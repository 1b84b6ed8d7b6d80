"""Rewards of prompts and answers as text, each by the reward model's own tokenizer and template."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common import left_out, paths
from rlhf_lib.common.rows import Message
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import frozen
from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.chat import dialogue_ids, hashable, last_tokens
from rlhf_lib.models.loading import context_length
from rlhf_lib.models.logprobs import by_length
from rlhf_lib.models.processes import shared_out
from rlhf_lib.scoring.classifier import load_classifier

STATISTICS_FILE = "reward_statistics.json"

Bounds = tuple[float, float]  # the lowest and the highest reward


class Encoded(NamedTuple):
    """A row as the model reads it."""

    ids: list[int]
    type_ids: list[int] | None  # 0 in the prompt and 1 in the completion, for models that embed them


class RewardModel:
    """A reward model as a function of texts.

    Rewards are raw scores less `mean`, in units of `std`: the spread of the answers that the reward stage measured,
    so that a KL coefficient means the same for every reward model. With `bounds`, a raw score is the model's output
    pressed between them (see `raw_scores`); else it is the output itself.

    A tokenizer with a chat template renders prompt and completion as one dialogue. One without, such as an encoder's,
    gets them as a pair of texts with the special tokens that it puts around pairs.

    `batch_size` rows go through a forward pass: `ANSWERS` times the pairs of the model's own validation.
    """

    ANSWERS = 2  # of a pair

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        mean: float = 0.0,
        std: float = 1.0,
        batch_size: int = 64,
        bounds: Bounds | None = None,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.mean, self.std, self.bounds = mean, std, bounds
        self.batch_size = batch_size
        self.pad_id = _pad_id(model, tokenizer)
        if tokenizer.chat_template is None:
            tokenizer.truncation_side = "left"  # there is no such argument to a call

    @classmethod
    def load(
        cls,
        path: str | Path,
        revision: str | None = None,
        normalize: bool = True,
        batch_size: int = 64,
        dtype: torch.dtype = torch.float32,
    ) -> RewardModel:
        """The reward model in a directory, or at a commit of a hub id.

        Rewards are normalised by the directory's `reward_statistics.json` where there is one and `normalize` is true;
        else they are the raw scores. The file also names the bounds of the raw scores, if there are any. `dtype` is
        what the matrices of a model that only scores are held in. A `ParamsError` when the model cannot be had, or is
        no reward model.
        """
        name, statistics = os.path.expanduser(path), {"mean": 0.0, "std": 1.0}
        bounds = None
        if revision is None:
            if not os.path.isdir(name):
                raise ParamsError(
                    f"{path}: no such directory; stage reward writes models/reward (dvc repro reward), and "
                    "ppo.reward_funcs in params.yaml names other reward models"
                )
            file = Path(name) / STATISTICS_FILE
            if file.is_file():
                measured = json.loads(file.read_text(encoding="utf-8"))
                statistics = measured if normalize else statistics
                bounds = tuple(measured["bounds"]) if "bounds" in measured else None
        model, tokenizer = load_classifier(name, revision, dtype)
        return cls(model, tokenizer, statistics["mean"], statistics["std"], batch_size, bounds)

    def __call__(
        self, prompts: Sequence[list[Message]], completions: Sequence[str], progress: str | None = None
    ) -> list[float]:
        """One normalised reward a row, in the given order. progress: as in `scores`."""
        return [(score - self.mean) / self.std for score in self.scores(prompts, completions, progress)]

    @torch.no_grad()
    def scores(
        self, prompts: Sequence[list[Message]], completions: Sequence[str], progress: str | None = None
    ) -> list[float]:
        """One raw score a row, in the given order. A dialogue longer than the model's context loses its beginning.
        progress: as in `by_length`.

        A `ParamsError` where a score is not finite: neither PPO nor a mean could use it.
        """
        segments = has_segments(self.model)
        rows = [encode(self.tokenizer, p, c, self.limit, segments) for p, c in zip(prompts, completions, strict=True)]
        scores = [0.0] * len(rows)
        size = 1 if self.pad_id is None else self.batch_size
        together = [hashable(prompt) for prompt in prompts] if takes_packing(self.model) else None
        for indices in by_length([len(row.ids) for row in rows], size, together, progress):
            batch = padded([rows[i] for i in indices], self.pad_id or 0)
            batch = {key: tensor.to(self.model.device) for key, tensor in batch.items()}
            with frozen.autocast(self.model):
                rewards = raw_scores(self.model, batch, self.bounds)
            for i, score in zip(indices, rewards.tolist(), strict=True):
                scores[i] = score
        if broken := [score for score in scores if not math.isfinite(score)]:
            raise ParamsError(
                f"{self.model.name_or_path}: scores {len(broken)} of {len(scores)} answers as {broken[0]}; numbers "
                "that are too large for compute.precision may do that: try fp32"
            )
        return scores

    @property
    def limit(self) -> int | None:
        """The most tokens that the model reads, where that is known."""
        limit = context_length(self.model)
        if self.tokenizer.chat_template is not None:
            return limit
        # A RoBERTa has more position embeddings than positions that its tokenizer may use.
        return min(limit or self.tokenizer.model_max_length, self.tokenizer.model_max_length)


def load_scorers(pairs: Mapping[str, int], dtype: torch.dtype) -> dict[str, RewardModel]:
    """The reward model and the judge that the pipeline trained, by the names of their numbers, but for those that were
    left out. A `ParamsError` where one should be there and is not.

    pairs: what of each section is `per_device_eval_batch_size`. dtype: what their matrices are held in.
    """
    trained = {"reward": paths.REWARD, "judge": paths.JUDGE}
    return {
        name: RewardModel.load(path, batch_size=RewardModel.ANSWERS * pairs[name], dtype=dtype)
        for name, path in trained.items()
        if left_out.reason(path) is None
    }


def shared(
    model: RewardModel, progress: str | None = None
) -> Callable[[Sequence[list[Message]], Sequence[str]], list[float]]:
    """The model as a function whose rows are shared out over the processes; each of them must call it. progress: as in
    `RewardModel.scores`."""

    def rewards(prompts: Sequence[list[Message]], completions: Sequence[str]) -> list[float]:
        answers = list(zip(prompts, completions, strict=True))
        return shared_out(
            answers, lambda part: model([prompt for prompt, _ in part], [text for _, text in part], progress)
        )

    return rewards


def raw_scores(model: PreTrainedModel, batch: Mapping[str, Tensor], bounds: Bounds | None) -> Tensor:
    """(B,) scores of a batch as `padded` makes it, in fp32: the model's outputs or, where there are bounds,
    low + (high - low) * sigmoid(output)."""
    outputs = model(**batch).logits.float().squeeze(-1)
    if bounds is None:
        return outputs
    low, high = bounds
    return low + (high - low) * outputs.sigmoid()


def has_segments(model: PreTrainedModel) -> bool:
    """Whether the model embeds which of two texts a token belongs to."""
    return (getattr(model.config, "type_vocab_size", None) or 0) > 1


def encode(
    tokenizer: PreTrainedTokenizerBase, prompt: list[Message], completion: str, limit: int | None, segments: bool
) -> Encoded:
    """A prompt and its answer as token ids, of which a row of more than `limit` keeps the last.

    Without a chat template they are a pair of texts, with type ids if the model `has_segments`.
    """
    if tokenizer.chat_template is not None:
        return Encoded(last_tokens(tokenizer, dialogue_ids(tokenizer, prompt, completion), limit or 0), None)
    pair = encode_pair(tokenizer, prompt_text(prompt), completion, limit or tokenizer.model_max_length)
    return Encoded(pair["input_ids"], pair.get("token_type_ids") if segments else None)


def padded(rows: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    """(B, L) tensors of rows, padded on the right."""
    width = max(len(row.ids) for row in rows)

    def fill(lists: Sequence[list[int]], value: int) -> Tensor:
        return torch.tensor([ids + [value] * (width - len(ids)) for ids in lists])

    batch = {
        "input_ids": fill([row.ids for row in rows], pad_id),
        "attention_mask": fill([[1] * len(row.ids) for row in rows], 0),
    }
    if all(row.type_ids is not None for row in rows):
        batch["token_type_ids"] = fill([row.type_ids or [] for row in rows], 0)
    return batch


def prompt_text(prompt: Sequence[Message]) -> str:
    """A prompt for a tokenizer without a chat template: its content, or a line `role: content` for each of several
    turns."""
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, limit: int) -> dict[str, list[int]]:
    """`input_ids`, and `token_type_ids` where the tokenizer gives them, of at most `limit` tokens.

    The prompt loses its beginning to make room; the completion loses its own only where it fills the context alone.
    Wants a tokenizer with `truncation_side` left.
    """
    prompt, completion = _as_text(tokenizer, prompt), _as_text(tokenizer, completion)
    pair = _tokenize(tokenizer, prompt, completion, verbose=False)
    if len(pair["input_ids"]) <= limit:
        return pair
    room = limit - tokenizer.num_special_tokens_to_add(pair=True)
    # only_first refuses to leave nothing of the prompt
    alone = tokenizer(completion, add_special_tokens=False, split_special_tokens=True, verbose=False)
    if len(alone["input_ids"]) < room:
        return _tokenize(tokenizer, prompt, completion, truncation="only_first", max_length=limit)
    return _tokenize(tokenizer, "", completion, truncation="only_second", max_length=limit)


def _tokenize(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, **options: Any) -> dict[str, list[int]]:
    """A pair as a batch of one: outside a batch, transformers takes an empty second text for none.

    A special token that a text spells out, such as [SEP], is read as text: the tokenizer puts in its own.
    """
    pairs = tokenizer([prompt], [completion], split_special_tokens=True, **options)
    return {key: rows[0] for key, rows in pairs.items()}


def _as_text(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text, in which a special token is broken up by a space where the tokenizer reads it into texts all the same:
    SentencePiece's vocabularies hold theirs as pieces (DeBERTa v3, XLM-RoBERTa)."""
    for token in tokenizer.all_special_tokens:
        if len(token) > 1 and token in text:
            read = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
            if tokenizer.convert_tokens_to_ids(token) in read:
                text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token id to pad with, which becomes the model's; None where rows must go one by one.

    A decoder's classifier reads the score at the last token that is not its config's pad token, so only that token
    pads without changing a score. Where the config has none, the score is read at the last token whatever it is; the
    tokenizer's pad token leaves that so unless it is the EOS, with which dialogues end.
    """
    config, vocabulary = model.config.get_text_config(), model.get_input_embeddings().num_embeddings
    pad, eos = getattr(config, "pad_token_id", None), tokenizer.eos_token_id
    if pad is not None and 0 <= pad < vocabulary:
        return pad
    pad = tokenizer.pad_token_id
    config.pad_token_id = pad if pad is not None and pad != eos and pad < vocabulary else None
    return config.pad_token_id
