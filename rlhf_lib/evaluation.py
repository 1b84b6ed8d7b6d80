"""Sampling a policy on the test prompts and measuring what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib import generation, scorers
from rlhf_lib.chat import dialogue_ids, prompt_ids
from rlhf_lib.comparison import Sample, mode_name, order_accuracy
from rlhf_lib.generation import Sampling
from rlhf_lib.logprobs import Distribution, Response, sequence_logprobs
from rlhf_lib.models import context_length
from rlhf_lib.params.evaluate import EvaluateParams
from rlhf_lib.rewards import RewardModel

Row = dict[str, Any]


class Evaluator:
    """What it takes to measure one policy: the policy, the SFT model from which its KL is taken, and a reward."""

    def __init__(
        self,
        params: EvaluateParams,
        policy: PreTrainedModel,
        sft: PreTrainedModel,
        reward: RewardModel,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.params, self.policy, self.sft, self.reward, self.tokenizer = params, policy, sft, reward, tokenizer

    def samples(self, rows: Sequence[Row], temperature: float) -> list[Sample]:
        """The policy's draws for each row's prompt at one temperature; one draw where it is greedy."""
        draws = self.params.samples_per_prompt if temperature > 0 else 1
        drawn = [(row, draw) for row in rows for draw in range(draws)]
        messages = [row["prompt"] for row, _ in drawn]
        length = self.params.max_new_tokens
        context = context_length(self.policy)
        prompts = generation.encode_prompts(self.tokenizer, messages, length, context, "evaluate.max_new_tokens")
        sampling = Sampling(length, temperature)
        # Every policy and temperature draws with the same random numbers.
        noise = generation.random_numbers(len(prompts), sampling, self.params.seed)
        size = self.params.per_device_eval_batch_size
        mode = mode_name(temperature)
        responses = generation.generate(
            self.policy, self.tokenizer, prompts, sampling, noise, size, progress=f"Sampling {mode}"
        )
        texts = [generation.text(self.tokenizer, response) for response in responses]
        logprob, ref_logprob = (
            self._logprobs(model, prompts, responses, temperature or 1.0) for model in (self.policy, self.sft)
        )
        columns: dict[str, list[Any]] = {
            "id": [row["id"] for row, _ in drawn],
            "source": [row["source"] for row, _ in drawn],
            "draw": [draw for _, draw in drawn],
            "mode": [mode] * len(drawn),
            "prompt": messages,
            "response": texts,
            "reward": self.reward(messages, texts),
            "logprob": logprob,
            "ref_logprob": ref_logprob,
            "length": [len(response.ids) for response in responses],
            "finished": [response.finished for response in responses],
        }
        if scorers.known(rows):
            columns["gold"] = scorers.gold(messages, texts)
            columns["format"] = [scorers.answer_format(prompt) for prompt in messages]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def preference_accuracy(self, rows: Sequence[Row]) -> float | None:
        """How often the policy's implicit reward, log(policy / SFT) of an answer [Rafailov 2023, arXiv:2305.18290],
        orders two answers to a prompt as their scores do. The SFT model itself has 0.5: all its rewards are 0."""
        pairs = [(row, response) for row in rows for response in row["responses"]]
        limit = context_length(self.policy)
        dialogues = [dialogue_ids(self.tokenizer, row["prompt"], r["content"])[:limit] for row, r in pairs]
        # A prompt that fills the context leaves one token, so that no response is empty.
        starts = [
            min(len(prompt_ids(self.tokenizer, row["prompt"])), len(d) - 1)
            for (row, _), d in zip(pairs, dialogues, strict=True)
        ]
        prompts = [d[:start] for d, start in zip(dialogues, starts, strict=True)]
        answers = [Response(d[start:], True) for d, start in zip(dialogues, starts, strict=True)]
        policy, sft = (self._logprobs(model, prompts, answers, 1.0) for model in (self.policy, self.sft))
        rewards = iter(p - s for p, s in zip(policy, sft, strict=True))
        truth = [[response["score"] for response in row["responses"]] for row in rows]
        return order_accuracy(truth, [[next(rewards) for _ in scores] for scores in truth])[0]

    def _logprobs(
        self, model: PreTrainedModel, prompts: list[list[int]], responses: list[Response], temperature: float
    ) -> list[float]:
        size, distribution = self.params.per_device_eval_batch_size, Distribution(temperature)
        return sequence_logprobs(model, prompts, responses, self.tokenizer.pad_token_id, distribution, size)
