"""Sampling responses from a policy.

The loop is our own, not `generate()`, for three things: a row's draws depend on its own random numbers alone, so a
response is the same whatever the batch, the order or the number of processes; rows leave the batch when they end; and
drawing by the inverse of the distribution function costs a tenth of `torch.multinomial` on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer
from transformers.generation import NoRepeatNGramLogitsProcessor, StopStringCriteria

from rlhf_lib.generation.beams import beam_search
from rlhf_lib.generation.sampling import Sampling, draw, restrict
from rlhf_lib.models.logprobs import Response, by_length
from rlhf_lib.models.stops import stop_ids


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    noise: Tensor,
    batch_size: int,
    progress: str | None = None,
) -> list[Response]:
    """One response to each prompt, in the given order. `noise` is (len(prompts), max_new_tokens), uniform in [0, 1).

    Batches hold prompts of similar length. The modules' modes are put back after. `progress` names a progress bar.
    Beam search draws nothing, and is transformers' own.
    """
    # each module's own: adapters around a model in eval mode are in training mode, which must not become the model's
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    responses: dict[int, Response] = {}
    for rows in tqdm(list(by_length(map(len, prompts), batch_size)), desc=progress, disable=progress is None):
        of_rows = [prompts[i] for i in rows]
        if sampling.is_beam_search:
            batch = beam_search(model, tokenizer, of_rows, sampling)
        else:
            batch = _Decoding(model, tokenizer, of_rows, sampling, noise[rows]).run()
        responses.update(zip(rows, batch, strict=True))
    for module, mode in modes:
        module.training = mode
    return [responses[i] for i in range(len(prompts))]


class _BufferLayer(DynamicLayer):
    """A layer's keys and values in room for all tokens to come: a plain dynamic layer copies them at every step."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [x.new_empty(*x.shape[:2], self.room, x.size(3)) for x in (key_states, value_states)]
        first, self.length = self.length, self.length + key_states.size(2)
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, first : self.length] = new
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)
        return self.keys, self.values


def _cache(model: PreTrainedModel, room: int) -> DynamicCache:
    """The model's cache, whose plain layers have `room` tokens of room; sliding windows, say, keep their own kind."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_BufferLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _Decoding:
    """One batch of responses in the making."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: list[list[int]],
        sampling: Sampling,
        noise: Tensor,
    ) -> None:
        self.model, self.tokenizer, self.sampling, self.prompts = model, tokenizer, sampling, prompts
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
        self.input_ids, self.mask = batch["input_ids"], batch["attention_mask"]
        self.noise = noise.to(model.device)
        self.ids: list[list[int]] = [[] for _ in prompts]
        self.finished = [False] * len(prompts)
        self.stopped = [False] * len(prompts)  # by a token, not by a text
        self.stops = frozenset(stop_ids(model))
        self.banned = torch.tensor(sorted(self.stops), device=model.device, dtype=torch.long)  # at first
        self.supports: list[list[Tensor]] = [[] for _ in prompts]
        self.rows = list(range(len(prompts)))  # those still in the batch
        size = sampling.no_repeat_ngram_size
        self.no_repeats = NoRepeatNGramLogitsProcessor(size) if size else None
        self.stop = StopStringCriteria(tokenizer, list(sampling.stop_strings)) if sampling.stop_strings else None

    def run(self) -> list[Response]:
        cache = _cache(self.model, self.input_ids.size(1) + self.sampling.max_new_tokens)
        step_ids, positions = self.input_ids, (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        # An index, not a number: of a slice of the hidden states PyTorch makes a batch of products, for which it
        # copies the output layer once a row.
        last = torch.tensor([-1], device=self.input_ids.device)
        for step in range(self.sampling.max_new_tokens):
            logits = self.model(
                input_ids=step_ids,
                attention_mask=self.mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=last,
            ).logits[:, -1]
            tokens = self._choose(logits.float(), step)
            self._record(tokens)
            going_on = [k for k, row in enumerate(self.rows) if not self.finished[row]]
            if not going_on:
                break
            step_ids, positions = tokens.unsqueeze(1), positions[:, -1:] + 1
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
            if len(going_on) <= 0.875 * len(self.rows):  # to leave costs a copy of the cache
                kept = torch.tensor(going_on, device=logits.device)
                cache.batch_select_indices(kept)
                step_ids, positions, self.mask, self.noise = (
                    x[kept] for x in (step_ids, positions, self.mask, self.noise)
                )
                self.rows = [self.rows[k] for k in going_on]
        supports = [_stack(support) for support in self.supports]
        parts = zip(self.ids, self.finished, supports, self.stopped, strict=True)
        return [Response(*of_response) for of_response in parts]

    def _choose(self, logits: Tensor, step: int) -> Tensor:
        """(B,) the next tokens, from (B, V) logits."""
        sampling = self.sampling
        if step < sampling.min_new_tokens:
            logits.index_fill_(1, self.banned, torch.finfo(logits.dtype).min)
        if self.no_repeats is not None:
            for k, row in enumerate(self.rows):
                so_far = torch.tensor([self.prompts[row] + self.ids[row]], device=logits.device)
                logits[k] = self.no_repeats(so_far, logits[k : k + 1])[0]
        if sampling.temperature == 0:
            return logits.argmax(dim=-1)
        logits /= sampling.temperature
        noise = self.noise[:, step : step + 1]
        if not sampling.is_restricted:
            return draw(logits.softmax(dim=-1), noise)
        probabilities, support = restrict(logits, sampling.top_k, sampling.top_p)
        for k, row in enumerate(self.rows):
            if not self.finished[row]:
                self.supports[row].append(support[k][support[k] >= 0])
        return support.gather(1, draw(probabilities, noise).unsqueeze(1)).squeeze(1)

    def _record(self, tokens: Tensor) -> None:
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            if not self.finished[row]:
                self.ids[row].append(token)
                self.finished[row] = self.stopped[row] = token in self.stops
        if self.stop is not None and len(self.rows):
            for row in self.rows:
                if not self.finished[row]:
                    self.finished[row] = bool(self.stop(torch.tensor([self.ids[row]]), None)[0])


def _stack(supports: list[Tensor]) -> Tensor | None:
    """(R, K) token ids of R steps, filled up with -1."""
    if not supports:
        return None
    return torch.nn.utils.rnn.pad_sequence(supports, batch_first=True, padding_value=-1).cpu()
