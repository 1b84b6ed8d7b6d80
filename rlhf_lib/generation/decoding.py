"""Sampling responses from a policy.

The loop is our own, not `generate()`, for three things: a row's draws depend on its own random numbers alone, so a
response is the same whatever the batch, the order or the number of processes; rows leave the batch when they end; and
drawing by the inverse of the distribution function costs a tenth of `torch.multinomial` on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import NoRepeatNGramLogitsProcessor, StopStringCriteria

from rlhf_lib.generation.beams import beam_search
from rlhf_lib.generation.sampling import Sampling, draw, restrict
from rlhf_lib.models.forward import Steps
from rlhf_lib.models.logprobs import Response, by_length
from rlhf_lib.models.proof import takes_cache, takes_left_padding
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

    Batches hold prompts of similar length, or of one, where the model cannot read padding. The modules' modes are put
    back after. `progress` names a progress bar. Beam search draws nothing, and is transformers' own.
    """
    # each module's own: adapters around a model in eval mode are in training mode, which must not become the model's
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    responses: dict[int, Response] = {}
    batches = _batches(model, [len(prompt) for prompt in prompts], batch_size)
    for rows in tqdm(batches, desc=progress, disable=progress is None):
        of_rows = [prompts[i] for i in rows]
        if sampling.is_beam_search:
            batch = beam_search(model, tokenizer, of_rows, sampling)
        else:
            batch = _Decoding(model, tokenizer, of_rows, sampling, noise[rows]).run()
        responses.update(zip(rows, batch, strict=True))
    for module, mode in modes:
        module.training = mode
    return [responses[i] for i in range(len(prompts))]


def _batches(model: PreTrainedModel, lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Rows that are sampled together."""
    batches = by_length(lengths, batch_size)
    if len(set(lengths)) > 1 and not takes_left_padding(model):
        of_one_length = (
            [row for row, length in enumerate(lengths) if length == wanted] for wanted in sorted(set(lengths))
        )
        return [rows[k : k + batch_size] for rows in of_one_length for k in range(0, len(rows), batch_size)]
    return list(batches)


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
        room = self.input_ids.size(1) + self.sampling.max_new_tokens
        steps = Steps(self.model, room, takes_cache(self.model))
        step_ids, positions = self.input_ids, (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        for step in range(self.sampling.max_new_tokens):
            logits = steps(step_ids, self.mask, positions)
            tokens = self._choose(logits.float(), step)
            self._record(tokens)
            going_on = [k for k, row in enumerate(self.rows) if not self.finished[row]]
            if not going_on:
                break
            step_ids, positions = tokens.unsqueeze(1), positions[:, -1:] + 1
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
            if len(going_on) <= 0.875 * len(self.rows):  # to leave costs a copy of the cache
                kept = torch.tensor(going_on, device=logits.device)
                steps.keep(kept)
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
