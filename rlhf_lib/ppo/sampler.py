"""Responses of the policy as it stands, and their rewards, shared out over the processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerState

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers, response_text
from rlhf_lib.models.logprobs import Distribution, Response, token_logprobs
from rlhf_lib.models.processes import shared_out
from rlhf_lib.ppo.data import Prompts
from rlhf_lib.ppo.model import Model
from rlhf_lib.ppo.rewards import RewardFunctions, Rewards
from rlhf_lib.ppo.sharded import Shards


@dataclass(frozen=True)
class Answers:
    """A response to each of some prompts. Log-probs are (R,) of each response's tokens."""

    prompts: Prompts
    responses: list[Response]
    texts: list[str]
    rewards: Rewards
    logprobs: list[Tensor]
    ref_logprobs: list[Tensor]

    @property
    def kl(self) -> Tensor:
        """(B,) log(policy / reference) of each response, in nats."""
        sums = [[one.sum().item() for one in tokens] for tokens in (self.logprobs, self.ref_logprobs)]
        of_policy, of_reference = torch.tensor(sums, dtype=torch.float64)
        return of_policy - of_reference

    def means(self) -> dict[str, float]:
        """Means over the responses of reward, KL (nats), length (tokens) and EOS rate."""
        responses = self.responses
        return {
            **mean_rewards(self.rewards),
            "kl": self.kl.mean().item(),
            "length": sum(len(response.ids) for response in responses) / len(responses),
            "eos_rate": sum(response.finished for response in responses) / len(responses),
        }

    def rows(self) -> list[JsonObject]:
        """Of each prompt the completion, its reward and KL, beside the row's id, source and prompt."""
        columns = zip(self.prompts.rows, self.texts, self.rewards.total, self.kl.tolist(), strict=True)
        return [
            {**{name: row.get(name) for name in ("id", "source", "prompt")}, "completion": text, "reward": r, "kl": k}
            for row, text, r, k in columns
        ]


class Sampler:
    """Samples from a policy and measures what it said. Every process does its share, and gets everything.

    shards: of policy and reference. state: gives the trainer's state, which reward functions may ask for. seed: of the
    draws. batch_size: responses sampled at once. forward_batch_size: responses to a forward pass.
    """

    def __init__(
        self,
        policy: Model,
        shards: Shards,
        reward: RewardFunctions,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        state: Callable[[], TrainerState],
        seed: int,
        batch_size: int,
        forward_batch_size: int,
    ) -> None:
        self.policy, self.shards, self.reward, self.tokenizer = policy, shards, reward, tokenizer
        self.reference = shards.reference
        self.accelerator, self.state, self.seed = accelerator, state, seed
        self.batch_size, self.forward_batch_size = batch_size, forward_batch_size

    @property
    def share(self) -> slice:
        """This process's part of a list: every n-th item of n processes, so that each gets short and long ones."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def summed(self, x: Tensor) -> Tensor:
        """The sum of a CPU tensor over the processes."""
        if self.accelerator.num_processes == 1:
            return x  # Apple's GPUs have no float64
        return self.accelerator.reduce(x.to(self.accelerator.device), "sum").cpu()

    def respond(self, prompts: Prompts, sampling: Sampling, *draw: int) -> tuple[list[Response], Rewards]:
        """A response to each prompt, and its rewards. The same draw gives every prompt the same random numbers."""
        noise = random_numbers(len(prompts), sampling, self.seed, *draw)

        def rewarded(rows: list[int]) -> list[tuple[Response, float, dict[str, float | None]]]:
            mine = prompts.pick(rows)
            with self.accelerator.autocast(), self.shards.sampling():
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

    def measure(self, prompts: Prompts, sampling: Sampling, distribution: Distribution) -> Answers:
        """A response to each prompt, and what is measured of it. The draws are always the same."""
        responses, rewards = self.respond(prompts, sampling)

        def logprobs(rows: list[int]) -> list[tuple[Tensor, Tensor]]:
            ids, mine = prompts.pick(rows).ids, [responses[i] for i in rows]
            options = (self.tokenizer.pad_token_id, distribution, self.forward_batch_size)
            with self.accelerator.autocast():
                with self.shards.reading():
                    of_policy = token_logprobs(self.policy, ids, mine, *options)
                with self.reference() as reference:
                    return list(zip(of_policy, token_logprobs(reference, ids, mine, *options), strict=True))

        of_policy, of_reference = zip(*shared_out(range(len(prompts)), logprobs), strict=True)
        return Answers(prompts, responses, self.texts(responses), rewards, list(of_policy), list(of_reference))


def mean_rewards(rewards: Rewards) -> dict[str, float]:
    """Mean of the summed reward and, if there are several reward functions, of each over the rows that it scored."""
    means = {"reward": sum(rewards.total) / len(rewards.total)}
    if len(rewards.by_name) > 1:
        scored = {name: [v for v in values if v is not None] for name, values in rewards.by_name.items()}
        means |= {f"rewards/{name}": sum(values) / len(values) for name, values in scored.items() if values}
    return means
