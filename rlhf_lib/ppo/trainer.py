"""PPO as a transformers.Trainer whose training data are its own rollouts.

Trainer gives the loop, the optimizer and its schedule, accumulation, clipping, precision, logging and resume. What
PPO adds is here: the data loader samples rollouts from the policy as it stands, and the loss is PPO's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerControl, TrainingArguments

from rlhf_lib import generation
from rlhf_lib.chat import Message
from rlhf_lib.logprobs import response_logprobs, sequence_logprobs
from rlhf_lib.models import context_length
from rlhf_lib.params.ppo import PPOParams
from rlhf_lib.ppo import algos
from rlhf_lib.ppo.model import ActorCritic
from rlhf_lib.ppo.rollout import Rollout, minibatches, update_inputs

Reward = Callable[[Sequence[list[Message]], Sequence[str]], Sequence[float]]

_WEIGHTS = "actor_critic.safetensors"
_STATE = "rollout.json"


class RolloutLoader:
    """The trainer's data: rollouts collected when they are asked for, as the micro-batches of their updates.

    It is not handed to accelerate, whose loader reads one batch ahead: the next rollout would be sampled before the
    last optimizer step on this one.
    """

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer

    def __len__(self) -> int:
        params = self.trainer.params
        return params.total_rollouts * params.steps_per_rollout * self.trainer.args.gradient_accumulation_steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        params = self.trainer.params
        done = self.trainer.state.global_step // params.steps_per_rollout
        for index in range(done, params.total_rollouts):
            yield from self.trainer.updates(index)


class PPOTrainer(Trainer):
    """Proximal policy optimisation of `model.policy` against `reward`, held near `reference`.

    Args:
        params: the `ppo` section; its lengths are in tokens, its rollouts count responses.
        model: policy and critic.
        reference: the frozen policy from which the KL is measured.
        reward: a function of prompts (as messages) and completions (as text) that gives one number a row.
        args: `TrainingArguments(**params.trainer_config(), ...)`.
        train_prompts, eval_prompts: prompts as messages.

    Raises:
        ParamsError: no prompt would fit beside `response_length` new tokens.
    """

    # compute_loss divides by the tokens of the whole minibatch, so Trainer must not divide by the micro-batches.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        params: PPOParams,
        model: ActorCritic,
        reference: PreTrainedModel,
        reward: Reward,
        tokenizer: PreTrainedTokenizerBase,
        args: TrainingArguments,
        train_prompts: list[list[Message]],
        eval_prompts: list[list[Message]],
    ) -> None:
        self.params = params
        self.reference = reference
        self.reward = reward
        self.kl_coef = params.kl_coef
        self.train_prompts, self.eval_prompts = train_prompts, eval_prompts
        context = context_length(model.policy)
        self.train_ids, self.eval_ids = (
            generation.encode_prompts(tokenizer, prompts, params.response_length, context, "ppo.response_length")
            for prompts in (train_prompts, eval_prompts)
        )
        self._metrics: dict[str, float] = defaultdict(float)
        super().__init__(model=model, args=args, eval_dataset=eval_prompts, processing_class=tokenizer)

    # Rollouts

    def get_train_dataloader(self) -> RolloutLoader:
        return RolloutLoader(self)

    def updates(self, index: int) -> Iterator[dict[str, Any]]:
        """Collect rollout number `index`, then give the micro-batches of all its epochs."""
        rollout = self.sample(self.prompt_rows(index))
        lengths = [len(p) + len(r.ids) for p, r in zip(rollout.prompts, rollout.responses, strict=True)]
        split = minibatches(torch.randperm(len(lengths)).tolist(), lengths, self.params)
        self.score(rollout, split)
        for epoch in range(self.params.num_ppo_epochs):
            if epoch > 0:
                split = minibatches(torch.randperm(len(lengths)).tolist(), lengths, self.params)
            for minibatch in split:
                yield from update_inputs(rollout, minibatch, self._pad_id, self.args.device)

    def prompt_rows(self, index: int) -> list[int]:
        """The training prompts of rollout `index`: a walk through shuffled passes, the same whenever it is asked."""
        size, total = self.params.rollout_batch_size, len(self.train_ids)
        first, last = index * size, (index + 1) * size
        walk: list[int] = []
        for pass_number in range(first // total, (last - 1) // total + 1):
            order = torch.Generator().manual_seed(self.params.seed * 1_000_003 + pass_number)
            walk += torch.randperm(total, generator=order).tolist()
        return walk[first % total : first % total + size]

    def sample(self, rows: list[int]) -> Rollout:
        """Responses of the policy to some training prompts, and their rewards."""
        prompts = [self.train_ids[row] for row in rows]
        responses = self._generate(prompts, self.params.temperature)
        texts = [generation.text(self._tokenizer, response) for response in responses]
        return Rollout.empty(prompts, responses, self.reward([self.train_prompts[row] for row in rows], texts))

    @torch.no_grad()
    def score(self, rollout: Rollout, split: list[list[list[int]]]) -> None:
        """Fill in log-probs, values, advantages and returns.

        The forward passes see the very micro-batches of the first epoch: its ratios are exactly 1.
        """
        for rows in (rows for minibatch in split for rows in minibatch):
            batch = rollout.batch(rows, self._pad_id, self.args.device)
            with self.accelerator.autocast():
                output = self.model(batch, self.params.temperature)
                ref_logprobs = response_logprobs(self.reference, batch, self.params.temperature)
            for name, values in zip(("logprobs", "values", "entropy"), output, strict=True):
                rollout.record(name, rows, values)
            rollout.record("ref_logprobs", rows, ref_logprobs)
        rollout.estimate_advantages(self.params, self.kl_coef)
        metrics = rollout.metrics()
        self._add_metrics({**metrics, "kl_coef": self.kl_coef})
        if self.params.kl_target is not None:
            self.kl_coef = algos.adapt_kl_coef(
                self.kl_coef, metrics["kl"], self.params.kl_target, self.params.kl_horizon, len(rollout.prompts)
            )

    def _generate(self, prompts: list[list[int]], temperature: float) -> list[generation.Response]:
        length, size = self.params.response_length, self.params.rollout_batch_size
        return generation.generate(self.model.policy, self._tokenizer, prompts, length, temperature, size)

    # The update

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The micro-batch's share of its minibatch's loss: sums over tokens, divided by the minibatch's tokens."""
        params, batch = self.params, inputs["batch"]
        mask = batch.response_mask
        output = model(batch, params.temperature)
        policy = algos.policy_loss(output.logprobs, inputs["logprobs"], inputs["advantages"], params.cliprange)
        value = algos.value_loss(output.values, inputs["values"], inputs["returns"], params.cliprange_value)
        shares = {
            "policy_loss": policy.loss,
            "value_loss": value,
            "clip_fraction": policy.clipped.float(),
            "ratio": policy.ratio,
            "approx_kl": algos.kl_estimate(inputs["logprobs"], output.logprobs, "k3"),
        }
        totals = {name: x.masked_fill(~mask, 0.0).sum() / inputs["num_tokens"] for name, x in shares.items()}
        self._add_metrics({name: total.item() / params.steps_per_rollout for name, total in totals.items()})
        return totals["policy_loss"] + params.vf_coef * totals["value_loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log, with what was collected since the last one."""
        if "loss" in logs:
            logs = {**logs, **self._metrics}
            self._metrics.clear()
        super().log(logs, start_time)

    def _add_metrics(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics[name] += value

    # Evaluation

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Reward, KL (nats a response), length (tokens) and EOS rate on the evaluation prompts, sampled as in training.

        The draws are the same at every evaluation, and leave the training's random numbers as they were.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.params.seed)
            responses = self._generate(self.eval_ids, self.params.temperature)
        texts = [generation.text(self._tokenizer, response) for response in responses]
        rollout = Rollout.empty(self.eval_ids, responses, self.reward(self.eval_prompts, texts))
        ids = [response.ids for response in responses]
        policy, reference = (
            torch.tensor(sequence_logprobs(model, self.eval_ids, ids, self._pad_id, self.params.temperature))
            for model in (self.model.policy, self.reference)
        )
        measured = {
            "reward": rollout.scores.mean(),
            "kl": (policy - reference).mean(),
            "length": rollout.mask.sum(dim=1).float().mean(),
            "eos_rate": torch.tensor([response.finished for response in responses]).float().mean(),
        }
        metrics = {f"{metric_key_prefix}_{name}": value.item() for name, value in measured.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        save_model(self.accelerator.unwrap_model(self.model), str(directory / _WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_model(model or self.model, Path(resume_from_checkpoint) / _WEIGHTS)

    def _save_rng_state(self, output_dir: str) -> None:
        """With the random numbers goes the rest of the rollouts' state; Trainer writes its own state after it."""
        super()._save_rng_state(output_dir)
        (Path(output_dir) / _STATE).write_text(json.dumps({"kl_coef": self.kl_coef}))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self.kl_coef = json.loads((Path(checkpoint) / _STATE).read_text())["kl_coef"]

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self.processing_class

    @property
    def _pad_id(self) -> int:
        return self._tokenizer.pad_token_id
