"""The work whose launches are counted, as the stages do it: training steps, PPO's scoring, decoding, evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

from benchmarks.launches import cases
from benchmarks.launches.cases import ANSWER, MICRO_BATCHES, NEW_TOKENS, PROMPT, SIDES, Shape, Side
from benchmarks.launches.counter import Counts, Launches
from benchmarks.plan import case as plan
from benchmarks.ppo import ours as our_ppo
from benchmarks.ppo import worker, workload
from benchmarks.trainers import ours as our_trainer
from benchmarks.trainers import peer as trl_trainer
from benchmarks.trainers import preferences
from benchmarks.trainers.worker import TrainerTask
from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.schema import PARAMS_FILE, check
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.dpo.reference import REFERENCE_COLUMNS
from rlhf_lib.evaluation import draws
from rlhf_lib.evaluation import sampling as evaluation
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers
from rlhf_lib.models import loading as models
from rlhf_lib.scoring.reward_model import STATISTICS_FILE, RewardModel

Found = dict[str, dict[str, Counts]]  # by task, and by side
SAMPLING: dict[str, dict[str, Any]] = {
    "sampling": {},
    "sampling_top_p": {"top_k": 50, "top_p": 0.9},
    "sampling_top_p_alone": {"top_p": 0.9},
}


def counted(shape: Shape, layers: int, rows: int, folder: Path) -> Found:
    """All that is counted at one number of layers and of rows, or half as many pairs."""
    write(shape, layers, 2 * rows, folder)
    found: Found = {}
    for task, count in {"sft": rows, "reward": rows // 2, "dpo": rows // 2}.items():
        found[task] = {side: training(task, side, count, folder) for side in SIDES}
    found |= {task: {"ours": counts} for task, counts in ppo(rows, MICRO_BATCHES, folder).items()}
    for task, how in SAMPLING.items():
        found[task] = {"ours": decoding(rows, folder, **how), "trl": peer_decoding(rows, folder, **how)}
    found["evaluation"] = {"ours": evaluate(rows, folder)}
    return found


def tokens(task: str, rows: int) -> tuple[int, int | None]:
    """The tokens that a task's counts are of, answers' alone, and how many of them are in a forward pass; None where
    they are one of each row."""
    if task.startswith("sampling"):
        return rows, None
    return rows * ANSWER * (MICRO_BATCHES if task.startswith("ppo") else 1), rows * ANSWER


def write(shape: Shape, layers: int, rows: int, folder: Path) -> None:
    """Random models and rows of one length, where both sides of the other benchmarks look for them."""
    tokenizer = plan.tokenizer()
    torch.manual_seed(0)
    config = shape.config(layers, tokenizer)
    models.save(AutoModelForCausalLM.from_config(config), tokenizer, folder / workload.POLICY)
    models.save(AutoModelForSequenceClassification.from_config(config), tokenizer, folder / workload.REWARD)
    write_json(folder / workload.REWARD / STATISTICS_FILE, {"mean": 0.0, "std": 1.0})
    made = plan.rows(plan.Case("", "sft", "", rows, PROMPT, ANSWER), tokenizer, rows)
    write_jsonl(folder / preferences.ROWS, made)
    write_jsonl(folder / our_trainer.REFERENCE, [{key: row[key] for key in ("id", *REFERENCE_COLUMNS)} for row in made])
    write_json(folder / workload.PROMPTS, [row["prompt"] for row in made])


def training(task: str, side: Side, rows: int, folder: Path, step: int = 2) -> Counts:
    """One optimizer step of a trainer: by default the second, in which the optimizer's moments are there."""
    model = folder / preferences.MODEL
    model.unlink(missing_ok=True)
    model.symlink_to(workload.REWARD if task == "reward" else workload.POLICY)
    asked = TrainerTask(task, cases.trainer_case(rows), 1, folder)
    trainer = (our_trainer if side == "ours" else trl_trainer).build(asked)
    return of_step(trainer, Launches(*filter(None, (trainer.model, getattr(trainer, "ref_model", None)))), step)


def of_step(trainer: Any, launches: Launches, step: int) -> Counts:
    """What a trainer asks for between the end of the step before and the end of this one."""

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise worker.Finished
            launches.restart()

    trainer.add_callback(Steps())
    with launches:
        worker.train(trainer.train)
    return launches.now


def ppo(rows: int, micro_batches: int, folder: Path) -> dict[str, Counts]:
    """Scoring of a rollout, and an optimizer step on it."""
    trainer = our_ppo.build(our_ppo.ppo_params(cases.ppo_overrides(rows, micro_batches)), folder)
    with trainer.reference() as reference:
        rewards = [f.model for f in trainer.sampler.reward.functions.values() if isinstance(f, RewardModel)]
        launches = Launches(trainer.model, reference, *rewards)
    found: dict[str, Counts] = {}
    score = trainer.score

    def scoring(rollout: Any, split: Any) -> None:
        with launches.apart() as found["ppo_scoring"]:
            score(rollout, split)

    trainer.score = scoring  # type: ignore[method-assign]
    found["ppo_update"] = of_step(trainer, launches, 2)
    return found


def decoding(rows: int, folder: Path, **how: Any) -> Counts:
    """A token of each row of a batch, sampled as stage ppo samples."""
    policy, tokenizer = models.load_policy(folder / workload.POLICY), models.load_tokenizer(folder / workload.POLICY)
    prompts = [[token + 9 for token in range(PROMPT)] for _ in range(rows)]

    def sample(new_tokens: int) -> None:
        sampling = Sampling(new_tokens, **how)
        responses = generate(policy, tokenizer, prompts, sampling, random_numbers(rows, sampling, 0), rows)
        check_lengths([len(response.ids) for response in responses], new_tokens)

    sample(1)  # what is tried once of a model
    return per_token(policy, sample)


def peer_decoding(rows: int, folder: Path, **how: Any) -> Counts:
    """The same by transformers' `generate`."""
    policy = AutoModelForCausalLM.from_pretrained(folder / workload.POLICY).eval()
    prompts = torch.arange(PROMPT).repeat(rows, 1) + 9

    def sample(new_tokens: int) -> None:
        ids = prompts.to(policy.device)
        output = policy.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=new_tokens, **{"top_k": 0, **how}
        )
        check_lengths([output.size(1) - PROMPT], new_tokens)

    return per_token(policy, sample)


def per_token(policy: nn.Module, sample: Callable[[int], None]) -> Counts:
    """What each token costs beyond the first `NEW_TOKENS`; sizes are those of the longer run."""
    counts = []
    for new_tokens in (NEW_TOKENS, 2 * NEW_TOKENS):
        with Launches(policy) as launches:
            sample(new_tokens)
        counts.append(launches.now)
    short, long = counts
    of_a_token: dict[str, Any] = {}
    for name in ("calls", "waits", "uploads"):
        of_all = getattr(long, name) - getattr(short, name)
        of_a_token[name] = {key: count / NEW_TOKENS for key, count in of_all.items()}
    return dataclasses.replace(long, **of_a_token)


def check_lengths(lengths: list[int], wanted: int) -> None:
    """A RuntimeError where a row ended early: a token would then be of fewer rows."""
    if set(lengths) != {wanted}:
        raise RuntimeError(f"responses of {lengths} tokens, not {wanted}: another seed is needed")


def evaluate(rows: int, folder: Path) -> Counts:
    """Log-probs under policy and SFT model, and rewards, of a sampled answer and of the dataset's to each prompt;
    without the sampling."""
    changes = {"temperatures": [1.0], "samples_per_prompt": 1, "max_new_tokens": ANSWER // 2}
    changes["per_device_eval_batch_size"] = 2 * rows
    params = check(EvaluateParams, {**load_yaml(our_trainer.PARAMS)["evaluate"], **changes}, "evaluate", PARAMS_FILE)
    policy, sft = (models.load_policy(folder / workload.POLICY) for _ in range(2))
    reward = RewardModel.load(folder / workload.REWARD)
    tokenizer = models.load_tokenizer(folder / workload.POLICY)
    half = plan.rows(plan.Case("", "sft", "", rows, PROMPT, ANSWER // 2), tokenizer, rows)
    held_out = [
        {**row, "source": "other", "responses": [{"content": row["chosen"][0]["content"], "score": None}]}
        for row in half
    ]
    evaluator = evaluation.Evaluator(params, policy, sft, {"reward": reward}, tokenizer)
    launches, sample = Launches(policy, sft, reward.model), draws.generate

    def apart(*args: Any) -> Any:
        with launches.apart():
            return sample(*args)

    with patch.object(draws, "generate", apart), launches:
        samples = evaluator.samples(held_out)
    check_lengths([one["length"] for one in samples], ANSWER // 2)
    return launches.now
