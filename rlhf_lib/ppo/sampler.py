"""Responses of the policy as it stands, and their rewards, shared out over the processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerState

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers, response_text
from rlhf_lib.models.logprobs import Distribution, Response, sequence_logprobs
from rlhf_lib.models.processes import shared_out
from rlhf_lib.ppo.data import Prompts
from rlhf_lib.ppo.model import Model, Reference
from rlhf_lib.ppo.rewards import RewardFunctions, Rewards


class Sampler:
    """Samples from a policy and measures what it said. Every process does its share, and gets everything.

    state: gives the trainer's state, which reward functions may ask for.
    seed: of the draws. batch_size: responses sampled at once. forward_batch_size: responses to a forward pass.
    """

    def __init__(
        self,
        policy: Model,
        reference: Reference,
        reward: RewardFunctions,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        state: Callable[[], TrainerState],
        seed: int,
        batch_size: int,
        forward_batch_size: int,
    ) -> None:
        self.policy, self.reference, self.reward, self.tokenizer = policy, reference, reward, tokenizer
        self.accelerator, self.state, self.seed = accelerator, state, seed
        self.batch_size, self.forward_batch_size = batch_size, forward_batch_size

    @property
    def share(self) -> slice:
        """This process's part of a list: every n-th item of n processes, so that each gets short and long ones."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def summed(self, x: Tensor) -> Tensor:
        """The sum of a CPU tensor over the processes."""
        return self.accelerator.reduce(x.to(self.accelerator.device), "sum").cpu()

    def respond(self, prompts: Prompts, sampling: Sampling, *draw: int) -> tuple[list[Response], Rewards]:
        """A response to each prompt, and its rewards. The same draw gives every prompt the same random numbers."""
        noise = random_numbers(len(prompts), sampling, self.seed, *draw)

        def rewarded(rows: list[int]) -> list[tuple[Response, float, dict[str, float | None]]]:
            mine = prompts.pick(rows)
            with self.accelerator.autocast():
                responses = generate(self.policy, self.tokenizer, mine.ids, sampling, noise[rows], self.batch_size)
            columns = {**mine.columns(), "completion_ids": [response.ids for response in responses]}
            asked = [row["prompt"] for row in mine.rows]
            rewards = self.reward(asked, self.texts(responses), columns, self.state())
            by_row = zip(*rewards.by_name.values(), strict=True)
            named = [dict(zip(rewards.by_name, values, strict=True)) for values in by_row]
            return list(zip(responses, rewards.total, named, strict=True))

        responses, total, named = zip(*shared_out(range(len(prompts)), rewarded), strict=True)
        return list(responses), Rewards(list(total), {name: [row[name] for row in named] for name in named[0]})

    def texts(self, responses: list[Response]) -> list[str]:
        """The responses as text."""
        return [response_text(self.tokenizer, response) for response in responses]

    def kl(self, prompts: Prompts, responses: list[Response], distribution: Distribution) -> Tensor:
        """(B,) log(policy / reference) of each response, in nats."""
        rows = list(range(len(prompts))[self.share])
        ids, mine = prompts.pick(rows).ids, [responses[i] for i in rows]
        kl = torch.zeros(len(prompts), dtype=torch.float64)
        with self.accelerator.autocast():
            logprobs = self._sequence_logprobs(self.policy, ids, mine, distribution)
            with self.reference() as reference:
                kl[rows] = logprobs - self._sequence_logprobs(reference, ids, mine, distribution)
        return self.summed(kl)

    def measure(
        self, prompts: Prompts, sampling: Sampling, distribution: Distribution
    ) -> tuple[dict[str, float], list[JsonObject]]:
        """Means over a response to each prompt of reward, KL (nats), length (tokens) and EOS rate; and of each prompt
        the completion, its reward and KL, beside the row's id, source and prompt. The draws are always the same."""
        responses, rewards = self.respond(prompts, sampling)
        kl = self.kl(prompts, responses, distribution)
        means = {
            **mean_rewards(rewards),
            "kl": kl.mean().item(),
            "length": sum(len(response.ids) for response in responses) / len(responses),
            "eos_rate": sum(response.finished for response in responses) / len(responses),
        }
        columns = zip(prompts.rows, self.texts(responses), rewards.total, kl.tolist(), strict=True)
        return means, [
            {**{name: row.get(name) for name in ("id", "source", "prompt")}, "completion": text, "reward": r, "kl": k}
            for row, text, r, k in columns
        ]

    def _sequence_logprobs(
        self, model: Model, ids: list[list[int]], responses: list[Response], distribution: Distribution
    ) -> Tensor:
        pad_id, size = self.tokenizer.pad_token_id, self.forward_batch_size
        return torch.tensor(sequence_logprobs(model, ids, responses, pad_id, distribution, size), dtype=torch.float64)


def mean_rewards(rewards: Rewards) -> dict[str, float]:
    """Mean of the summed reward and, if there are several reward functions, of each over the rows that it scored."""
    means = {"reward": sum(rewards.total) / len(rewards.total)}
    if len(rewards.by_name) > 1:
        scored = {name: [v for v in values if v is not None] for name, values in rewards.by_name.items()}
        means |= {f"rewards/{name}": sum(values) / len(values) for name, values in scored.items() if values}
    return means
