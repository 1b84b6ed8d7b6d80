"""PPO as a transformers.Trainer whose training data are its own rollouts.

Trainer gives the loop, the optimizer and its schedule, accumulation, clipping, precision, logging, resume, the best
checkpoint and early stopping. What PPO adds is here: the data loader samples rollouts from the policy as it stands,
and the loss is PPO's.

In several processes every one holds the whole rollout, and does its share of the model's work on it: it samples its
share of the prompts, scores and learns from its share of every minibatch. All statistics are of the whole rollout.
Whatever is random is a function of the seed and of the rollout's number, never of what was drawn before.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    DefaultFlowCallback,
    PreTrainedTokenizerBase,
    ProgressCallback,
    TrainerControl,
    TrainingArguments,
)

from rlhf_lib.common import paths
from rlhf_lib.common.chunks import chunks
from rlhf_lib.common.rows import JsonObject, some
from rlhf_lib.generation.sampling import Sampling
from rlhf_lib.models.logprobs import Distribution, Response, collate, response_logprobs
from rlhf_lib.models.seeds import seeded
from rlhf_lib.models.stops import stop_ids
from rlhf_lib.ppo import algos
from rlhf_lib.ppo.callbacks import RolloutEnd, RolloutProgress
from rlhf_lib.ppo.data import Completions, Prompts, walk
from rlhf_lib.ppo.loss import loss_terms
from rlhf_lib.ppo.model import ActorCritic, Reference
from rlhf_lib.ppo.objective import objective, shaped
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.ppo.rewards import RewardFunctions
from rlhf_lib.ppo.rollout import Minibatch, Rollout, RolloutLoader, minibatches, update_inputs
from rlhf_lib.ppo.sampler import Answers, Sampler, mean_rewards
from rlhf_lib.ppo.sharded import Shards
from rlhf_lib.ppo.state import Measures, PPOState
from rlhf_lib.training.sealing import SealedCheckpoints

_WEIGHTS = "actor_critic.safetensors"


class PPOTrainer(SealedCheckpoints):
    """Proximal policy optimisation of `model.policy` against `reward`, held near `reference`.

    Args:
        params: the `ppo` section; its lengths are in tokens, its rollouts count responses.
        model: policy and critic, if it has one.
        reference: gives the frozen policy from which the KL is measured.
        reward: the reward of prompts (as messages), completions (as text) and the rows' other columns.
        args: `TrainingArguments(**params.trainer_config(), ...)`.
        train_rows, eval_rows: rows with a `prompt` (messages); their other columns go to the reward functions. Those
            of eval_rows that are to be kept with the completions have an `id` and a `source`.
        ptx_rows: rows with a `prompt` and a `completion` (messages) for the language-model loss, if `ptx_coef` > 0.

    Raises:
        ParamsError: no prompt would fit beside `response_length` new tokens.
    """

    # compute_loss divides by the tokens of the whole minibatch, so Trainer must not divide by the micro-batches.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        params: PPOParams,
        model: ActorCritic,
        reference: Reference,
        reward: RewardFunctions,
        tokenizer: PreTrainedTokenizerBase,
        args: TrainingArguments,
        train_rows: list[JsonObject],
        eval_rows: list[JsonObject],
        ptx_rows: list[JsonObject],
    ) -> None:
        self.params = params
        length, context = params.response_length, model.context_length
        files = [paths.split(name) for name in ("prompts_train", "prompts_validation", "sft_train")]
        self.train_prompts = Prompts.encode(tokenizer, train_rows, length, context, files[0])
        self.eval_prompts = Prompts.encode(
            tokenizer, some(eval_rows, params.max_eval_prompts), length, context, files[1]
        )
        self.ptx = Completions(tokenizer, ptx_rows, context, files[2]) if params.ptx_coef > 0 else None
        self.sampling = Sampling(
            length,
            params.temperature,
            params.top_k,
            params.top_p,
            params.min_new_tokens,
            tuple(params.stop_strings),
        )
        self.greedy = dataclasses.replace(self.sampling, temperature=0.0)
        self.distribution = Distribution(params.temperature, params.min_new_tokens, stop_ids(model.policy))
        self.pad_id = tokenizer.pad_token_id
        self.ppo_state, self.measures = PPOState(params.kl_coef), Measures()
        super().__init__(model=model, args=args, eval_dataset=eval_rows, processing_class=tokenizer)
        batch_sizes = (params.sampled_at_once, params.forward_batch_size)
        self.shards = Shards(model, reference, self.accelerator, params.gather_for_generation)
        self.reference = self.shards.reference
        models = (model.policy, self.shards, reward, tokenizer)
        self.sampler = Sampler(*models, self.accelerator, lambda: self.state, params.seed, *batch_sizes)
        self.remove_callback(DefaultFlowCallback)  # which would log, evaluate and save by the number of steps
        self.add_callback(RolloutEnd(params, self.ppo_state, self.measures, self.finish_step))
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(RolloutProgress(params.total_rollouts, self.ppo_state))

    # Rollouts

    def get_train_dataloader(self) -> RolloutLoader:
        """The rollouts, which are sampled when they are asked for."""
        micro_batches = self.args.gradient_accumulation_steps
        return RolloutLoader(self.params, self.ppo_state, self.updates, micro_batches)

    def updates(self, index: int) -> Iterator[dict[str, Any]]:
        """Collect rollout number `index`, then give this process's micro-batches of all its epochs."""
        rollout = self.sample(index)
        splits = [self._minibatches(rollout, index, epoch) for epoch in range(self.params.num_ppo_epochs)]
        self.score(rollout, splits[0])
        for epoch, split in enumerate(splits):
            for number, minibatch in enumerate(split):
                if self.ppo_state.rollouts_done > index:  # the approximate KL passed its bound
                    return
                inputs = update_inputs(rollout, minibatch, self.model.collate, self.pad_id, self.sampler.share)
                for update, ptx in zip(inputs, self._ptx_inputs(index, epoch, number), strict=True):
                    yield {**update, **ptx}

    def _minibatches(self, rollout: Rollout, index: int, epoch: int) -> list[Minibatch]:
        """Those of an epoch. The answers to a prompt stay together: what they begin with is read once."""
        copies = self.params.num_generations
        generator = seeded("minibatches", self.params.seed, index, epoch)
        order = torch.randperm(len(rollout.prompts) // copies, generator=generator).tolist()
        rows = [prompt * copies + answer for prompt in order for answer in range(copies)]
        return minibatches(rows, rollout.lengths, self.params)

    def sample(self, index: int) -> Rollout:
        """Responses of the policy to the prompts of rollout `index`, and their scores."""
        copies, size = self.params.num_generations, self.params.rollout_batch_size
        rows = walk(len(self.train_prompts), size // copies, index, self.params.seed)
        prompts = self.train_prompts.pick([row for row in rows for _ in range(copies)])
        start = time.perf_counter()
        responses, rewards = self.sampler.respond(prompts, self.sampling, index)
        seconds = time.perf_counter() - start
        rollout = Rollout.empty(prompts.ids, responses, self.scores(torch.tensor(rewards.total), responses))
        speed = rollout.mask.sum().item() / seconds
        self.measures.rollout = {**mean_rewards(rewards), "rollout_tokens_per_second": speed}
        return rollout

    def scores(self, rewards: Tensor, responses: list[Response]) -> Tensor:
        """(B,) what the update learns from: rewards scaled and clipped, less penalties."""
        moments = self.ppo_state.score_moments
        if self.params.scale_rewards == "running":
            moments.update(rewards)
        return shaped(self.params, rewards, responses, moments.std)

    @torch.no_grad()
    def score(self, rollout: Rollout, split: list[Minibatch]) -> None:
        """Fill in log-probs, advantages and, with a critic, values and returns.

        The forward passes see the very micro-batches of the first epoch: its ratios are exactly 1.
        """
        params, state = self.params, self.ppo_state
        names = ("logprobs", "entropy", "ref_logprobs", *(["values"] if params.has_critic else []))
        for rows in (rows for minibatch in split for rows in minibatch[self.sampler.share]):
            prompts, responses = [rollout.prompts[i] for i in rows], [rollout.responses[i] for i in rows]
            batches = self.model.collate(prompts, responses, self.pad_id)
            with self.accelerator.autocast():
                output = self.model(batches, self.distribution)
                with self.reference() as reference:
                    ref_logprobs = response_logprobs(reference, batches.policy, self.distribution)
            flat = {**output._asdict(), "ref_logprobs": ref_logprobs}
            at_once = torch.stack([flat[name].float() for name in names]).cpu()  # each copy would wait for the device
            for name, values in zip(names, at_once, strict=True):
                rollout.record(name, rows, values)
        for name in names:
            setattr(rollout, name, self.sampler.summed(getattr(rollout, name)))
        rollout.estimate_advantages(params, state.kl_coef)
        self.measures.rollout |= {**rollout.metrics(params), "kl_coef": state.kl_coef}

    # The update

    def _ptx_inputs(self, *draw: int) -> Iterator[dict[str, Any]]:
        """For each of this process's micro-batches, as many SFT rows, drawn anew for every optimizer step."""
        if self.ptx is None:
            yield from ({} for _ in range(self.args.gradient_accumulation_steps))
            return
        rows = self.ptx.draw(self.params.minibatch_size, self.params.seed, *draw)
        num_tokens = sum(len(response.ids) for _, response in rows)
        for micro in list(chunks(rows, self.params.per_device_train_batch_size))[self.sampler.share]:
            prompts, responses = zip(*micro, strict=True)
            batch = collate(self.model.policy, prompts, responses, self.pad_id)
            yield {"ptx_batch": batch, "ptx_num_tokens": num_tokens}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The micro-batch's share of its minibatch's loss."""
        output = model(inputs["batches"], self.distribution, inputs.get("ptx_batch"))
        terms, weights = loss_terms(self.params, self.ppo_state.kl_coef, output, inputs)
        self.measures.add(terms)
        # Data-parallel training averages the processes' gradients, where the minibatch's is their sum.
        return self.accelerator.num_processes * sum(weight * terms[name] for name, weight in weights.items())

    def finish_step(self) -> bool:
        """Count an optimizer step; whether it was the last one on its rollout, after which `kl_coef` is adapted."""
        measures, params, state, bound = self.measures, self.params, self.ppo_state, self.params.max_approx_kl
        over = measures.steps + 1 == params.steps_per_rollout
        if bound is not None:  # to know it, the device is waited for
            over |= self.sampler.summed(torch.tensor(measures.minibatch_kl())).item() > bound
        measures.finish_step()
        state.rollouts_done += over
        if over and params.kl_target is not None:
            kl, count = measures.rollout["kl"], params.rollout_batch_size
            state.kl_coef = algos.adapt_kl_coef(state.kl_coef, kl, params.kl_target, params.kl_horizon, count)
        return over

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's, with groups of their own for the critic where it has its own learning rate."""
        optimizer, rate = super().create_optimizer(model), self.params.critic_learning_rate
        if rate is not None:
            critic = self.model.critic_parameters()
            for group in list(optimizer.param_groups):
                of_critic = [p for p in group["params"] if p in critic]
                group["params"] = [p for p in group["params"] if p not in critic]
                optimizer.add_param_group({**group, "params": of_critic, "lr": rate})
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log, with what was measured of the rollout and, as means over its optimizer steps, its update."""
        if "loss" in logs:
            logs = {**logs, **self.measures.take(self.sampler.summed), "rollout": self.ppo_state.rollouts_done}
        super().log(logs, start_time)

    # Evaluation

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Reward, KL (nats per response), length (tokens) and EOS rate on the evaluation prompts, sampled and greedy.

        `objective` is what is learnt from, of the sampled ones. The draws are the same at every evaluation.
        """
        sampled, greedy = (self._measure(*mode) for mode in ((self.sampling, "sampled"), (self.greedy, "greedy")))
        measured = {**sampled.means(), "objective": objective(self.params, self.ppo_state, sampled)}
        measured |= {f"greedy_{name}": value for name, value in greedy.means().items()}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, sampling: Sampling, mode: str) -> Answers:
        answers = self.sampler.measure(self.eval_prompts, sampling, self.distribution)
        now = {"rollout": self.ppo_state.rollouts_done, "mode": mode}
        kept = some(answers.rows(), self.params.num_completions_to_log)
        self.ppo_state.completions += [{**now, **row} for row in kept]
        return answers

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The trained weights only: the frozen ones are those of the models that the run starts from.

        state_dict: all of them, put together, where this process's are shards.
        """
        if not self.args.should_save:
            return
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        whole = trained if state_dict is None else state_dict
        save_file({name: whole[name].detach().contiguous() for name in trained}, directory / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self._load_weights(resume_from_checkpoint)
        self.ppo_state.load(resume_from_checkpoint)

    def _load_weights(self, checkpoint: str) -> None:
        self.shards.load(load_file(Path(checkpoint) / _WEIGHTS))

    def _load_best_model(self) -> None:
        self._load_weights(self.state.best_model_checkpoint)

    def _save_rng_state(self, output_dir: str) -> None:
        """With the random numbers goes the rest of the rollouts' state; Trainer writes its own state after it."""
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            dataclasses.replace(self.ppo_state, stopped=self.control.should_training_stop).save(output_dir)
