"""Answers of the SFT model to prompts, with their rewards: what rft chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.candidates.params import CandidatesParams
from rlhf_lib.common import paths
from rlhf_lib.common.chunks import chunks, work_through
from rlhf_lib.common.rows import JsonObject, clean_text
from rlhf_lib.generation.decoding import generate, prompts_at_once
from rlhf_lib.generation.sampling import Sampling, encode_prompts, response_text
from rlhf_lib.models import frozen
from rlhf_lib.models.loading import context_length
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.processes import shared_out
from rlhf_lib.models.seeds import seeded
from rlhf_lib.scoring.reward_model import RewardModel, shared

PROMPTS = {part: paths.split(f"prompts_{part}") for part in ("train", "validation")}


@dataclass(frozen=True)
class Candidates:
    """What it takes to draw them: the model that answers, its tokenizer, and the reward model that scores."""

    params: CandidatesParams
    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    scorer: RewardModel

    def draw(self, rows: Sequence[JsonObject], file: Path) -> list[JsonObject]:
        """`n` answers to each row's prompt, in the order of the rows: {id, source, prompt, draw, response, length
        (tokens, with the stop), finished, reward}.

        Which ones depends on the prompt, its id and the seed alone: the first of more are the same. `file` gets them as
        they come; those that a killed run with the same params left there are kept. Every process must call this.
        """
        size = prompts_at_once(self.params.per_device_eval_batch_size, self.params.n)
        drawn = work_through(rows, size, self._draw, file, "Candidates", "prompt")
        return [candidate for of_prompt in drawn for candidate in of_prompt]

    def _draw(self, rows: Sequence[JsonObject]) -> list[list[JsonObject]]:
        """Those of each prompt."""
        params, context = self.params, context_length(self.policy)
        of_answers = [(row, number) for row in rows for number in range(params.n)]
        messages = [row["prompt"] for row, _ in of_answers]
        prompts = encode_prompts(self.tokenizer, messages, params.max_new_tokens, context, "candidates.max_new_tokens")
        shape = params.n, params.max_new_tokens
        noise = torch.cat([torch.rand(*shape, generator=seeded("candidates", params.seed, row["id"])) for row in rows])
        sampling = Sampling(params.max_new_tokens, params.temperature, params.top_k, params.top_p)

        def respond(places: list[int]) -> list[Response]:
            mine, size = [prompts[i] for i in places], params.per_device_eval_batch_size
            with frozen.autocast(self.policy):
                return generate(self.policy, self.tokenizer, mine, sampling, noise[places], size)

        responses = shared_out(range(len(prompts)), respond)
        texts = [clean_text(response_text(self.tokenizer, response)) for response in responses]
        rewards = self._rewards([(row, text) for (row, _), text in zip(of_answers, texts, strict=True)])
        drawn = [
            {
                **{key: row[key] for key in ("id", "source", "prompt")},
                "draw": number,
                "response": text,
                "length": len(response.ids),
                "finished": response.finished,
                "reward": reward,
            }
            for (row, number), text, response, reward in zip(of_answers, texts, responses, rewards, strict=True)
        ]
        return list(chunks(drawn, params.n))

    def _rewards(self, answers: Sequence[tuple[JsonObject, str]]) -> list[float]:
        """The reward of each answer; one that a prompt was given several times is scored once, and so gets one."""
        texts = {(row["id"], text): (row["prompt"], text) for row, text in answers}
        prompts, completions = [prompt for prompt, _ in texts.values()], [text for _, text in texts.values()]
        rewards = dict(zip(texts, shared(self.scorer)(prompts, completions), strict=True))
        return [rewards[row["id"], text] for row, text in answers]
