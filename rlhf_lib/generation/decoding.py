"""Sampling responses from a policy.

The loop is our own, not `generate()`, for four things: a row's draws depend on its own random numbers alone, so a
response is the same whatever the batch, the order or the number of processes; rows leave the batch when they end; a GPU
is waited for once in `LOOK_EVERY` tokens; and drawing by the inverse of the distribution function costs a tenth of
`torch.multinomial` on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common.chunks import chunks
from rlhf_lib.common.launching import num_processes
from rlhf_lib.generation.beams import beam_search
from rlhf_lib.generation.said import Said
from rlhf_lib.generation.sampling import Sampling, draw, repeats, restrict
from rlhf_lib.models import hardware
from rlhf_lib.models.forward import Steps
from rlhf_lib.models.logprobs import Response, by_length
from rlhf_lib.models.processes import with_bar
from rlhf_lib.models.proof import takes_cache, takes_left_padding
from rlhf_lib.models.stops import stop_ids
from rlhf_lib.models.support import as_bits

CHUNK = 8  # batches that are sampled before they are saved: the most that a kill costs
LOOK_EVERY = 16  # tokens between two looks at which rows have ended; on a CPU, which is never waited for, 1


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
    batches = batches_of(model, [len(prompt) for prompt in prompts], batch_size)
    for rows in with_bar(batches, progress):
        of_rows = [prompts[i] for i in rows]
        if sampling.is_beam_search:
            batch = beam_search(model, tokenizer, of_rows, sampling)
        else:
            batch = _Decoding(model, tokenizer, of_rows, sampling, noise[rows]).run()
        responses.update(zip(rows, batch, strict=True))
    for module, mode in modes:
        module.training = mode
    return [responses[i] for i in range(len(prompts))]


def prompts_at_once(batch_size: int, draws: int) -> int:
    """How many prompts, each with so many answers, a stage samples before it saves them, in all processes together."""
    return max(1, CHUNK * batch_size * num_processes() // draws)


def batches_of(model: PreTrainedModel, lengths: Sequence[int], batch_size: int, pads: bool = True) -> list[list[int]]:
    """Rows that are sampled together: of similar length or, where the model cannot read padding or `pads` is false, of
    one."""
    if pads and (len(set(lengths)) <= 1 or takes_left_padding(model)):
        return list(by_length(lengths, batch_size))
    of_one_length = ([row for row, length in enumerate(lengths) if length == wanted] for wanted in sorted(set(lengths)))
    return [batch for rows in of_one_length for batch in chunks(rows, batch_size)]


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
        self.model, self.sampling, self.device = model, sampling, model.device
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(self.device)
        self.read, self.mask = batch["input_ids"], batch["attention_mask"]  # (b, T) tokens so far
        self.noise = noise.to(self.device)
        self.look_every = LOOK_EVERY if hardware.favours_few_calls(self.device) else 1
        self.banned = torch.tensor(sorted(stop_ids(model)), device=self.device, dtype=torch.long)  # at first
        self.step_supports: list[Tensor] = []
        self.said = Said(tokenizer, len(prompts), sampling, stop_ids(model))

    def run(self) -> list[Response]:
        room = self.read.size(1) + self.sampling.max_new_tokens
        steps = Steps(self.model, room, takes_cache(self.model))
        step_ids, positions = self.read, (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        tokens: list[Tensor] = []
        for step in range(self.sampling.max_new_tokens):
            logits = steps(step_ids, self.mask, positions)
            tokens.append(self._choose(logits.float(), step))
            step_ids, positions = tokens[-1].unsqueeze(1), positions[:, -1:] + 1
            if self.sampling.no_repeat_ngram_size:
                self.read = torch.cat([self.read, step_ids], dim=1)
            self.mask = torch.cat([self.mask, torch.ones_like(step_ids)], dim=1)
            if (step + 1) % self.look_every and step + 1 < self.sampling.max_new_tokens:
                continue
            going_on = self.said.note(tokens, self.step_supports)
            tokens, self.step_supports = [], []
            if len(going_on) == 0:
                break
            if len(going_on) <= 0.875 * len(step_ids):  # to leave costs a copy of the cache
                kept = going_on.to(self.device)
                steps.keep(kept)
                step_ids, positions, self.read, self.mask, self.noise = (
                    x[kept] for x in (step_ids, positions, self.read, self.mask, self.noise)
                )
                self.said.keep(going_on)
        return self.said.responses()

    def _choose(self, logits: Tensor, step: int) -> Tensor:
        """(b,) the next tokens, from (b, V) logits."""
        sampling = self.sampling
        if step < sampling.min_new_tokens:
            logits.index_fill_(1, self.banned, torch.finfo(logits.dtype).min)
        if sampling.no_repeat_ngram_size:
            repeated = repeats(self.read, self.mask, sampling.no_repeat_ngram_size, logits.size(1))
            logits.masked_fill_(repeated, -torch.inf)
        if sampling.temperature == 0:
            return logits.argmax(dim=-1)
        logits /= sampling.temperature
        noise = self.noise[:, step : step + 1]
        if not sampling.is_restricted:
            return draw(logits.softmax(dim=-1), noise)
        trims = self.look_every == 1
        probabilities, support = restrict(logits, sampling.top_k, sampling.top_p, trims)
        kept = support if trims or sampling.top_k else as_bits(support, logits.size(1))
        self.step_supports.append(kept)
        return support.gather(1, draw(probabilities, noise).unsqueeze(1)).squeeze(1)
