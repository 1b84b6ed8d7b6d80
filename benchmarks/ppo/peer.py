"""TRL's side of the benchmark: `python -m benchmarks.ppo.peer` with TRL 1.12.0 on PYTHONPATH, started by
benchmarks/ppo/__main__.py."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.ppo import worker
from benchmarks.ppo.cases import LIKE_FOR_LIKE, Case
from rlhf_lib.common import environment

VERSION = "1.12.0"

# TRL's names of our settings.
_NAMES = {name: name for name in ("temperature", "vf_coef", "cliprange", "cliprange_value", "gamma", "lam", "kl_coef")}
_NAMES |= {name: name for name in ("learning_rate", "lr_scheduler_type", "kl_estimator", "missing_eos_penalty")}
_NAMES |= {name: name for name in ("weight_decay", "adam_beta1", "adam_beta2", "warmup_steps")}


def settings(case: Case, updates: int) -> dict[str, Any]:
    """The arguments of TRL's PPOConfig."""
    return {
        **{theirs: LIKE_FOR_LIKE[ours] for ours, theirs in _NAMES.items()},
        "seed": case.seed,
        "total_episodes": case.batch * updates,
        # With accumulation, accelerate would step only when all micro-batches are through, whatever num_mini_batches
        # says: the whole batch is one micro-batch, which num_mini_batches then splits.
        "per_device_train_batch_size": case.batch,
        "gradient_accumulation_steps": 1,
        "num_mini_batches": case.minibatches,
        "num_ppo_epochs": case.epochs,
        "local_rollout_forward_batch_size": case.batch,
        "response_length": case.response_length,
        "stop_token": "eos",
        "gradient_checkpointing": False,  # this PPOTrainer never switches it on, whatever this says
        "num_sample_generations": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not worker.ON_GPU,
        "disable_tqdm": True,
        # Ignored by this PPOTrainer, which takes its precision from ACCELERATE_MIXED_PRECISION alone.
        "bf16": case.peer_bf16,
    }


def build(task: worker.Task) -> Any:
    """TRL's PPOTrainer on the benchmark's models and prompts; the value model starts as the reward model."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from benchmarks.ppo import workload
    from rlhf_lib.models.chat import prompt_ids

    policy, reward = task.models / workload.POLICY, task.models / workload.REWARD
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    prompts = [prompt_ids(tokenizer, prompt) for prompt in workload.read_prompts(task.models)]

    def load(auto: Any, path: Any, **kwargs: Any) -> Any:
        return auto.from_pretrained(path, dtype=torch.float32, **kwargs)

    return PPOTrainer(
        args=PPOConfig(output_dir=str(task.models / "checkpoints"), **settings(task.case, task.updates)),
        processing_class=tokenizer,
        model=load(AutoModelForCausalLM, policy),
        ref_model=load(AutoModelForCausalLM, policy),
        reward_model=load(AutoModelForSequenceClassification, reward, num_labels=1),
        value_model=load(AutoModelForSequenceClassification, reward, num_labels=1),
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
    )


class Watch:
    """Takes turns at the boundaries of updates, and times the trainer's phases.

    The phase `update` is all from the first forward pass with a gradient to the update's end, less the optimizer.
    """

    def __init__(self, trainer: Any, turns: worker.PhasedTurns) -> None:
        import torch
        from transformers import TrainerCallback
        from trl.experimental.ppo import ppo_trainer

        self.turns = turns
        self.update_start: float | None = None
        watch = self

        class TakeTurns(TrainerCallback):
            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                worker.reset_peak()
                turns.begin()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                watch.end()

        eos_id = trainer.processing_class.eos_token_id
        generate = turns.timed("sampling", ppo_trainer.batch_generation)
        score_forward = turns.timed("scoring", ppo_trainer.forward)
        update_forward = ppo_trainer.forward
        values, rewards = (turns.timed(phase, ppo_trainer.get_reward) for phase in ("scoring", "reward"))

        def batch_generation(model: Any, queries: Any, *args: Any, **kwargs: Any) -> Any:
            generated = generate(model, queries, *args, **kwargs)
            turns.tokens += response_tokens(generated[0][:, queries.shape[1] :].tolist(), eos_id)
            return generated

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return score_forward(*args, **kwargs)
            if watch.update_start is None:
                watch.update_start = worker.clock()
            return update_forward(*args, **kwargs)

        def get_reward(model: Any, *args: Any, **kwargs: Any) -> Any:
            return (rewards if model is trainer.reward_model else values)(model, *args, **kwargs)

        ppo_trainer.batch_generation = batch_generation
        ppo_trainer.forward = forward
        ppo_trainer.get_reward = get_reward
        trainer.optimizer.step = turns.timed("optimizer", trainer.optimizer.step)
        trainer.add_callback(TakeTurns())

    def end(self) -> None:
        assert self.update_start is not None
        self.turns.phases["update"] = worker.clock() - self.update_start - self.turns.phases["optimizer"]
        self.update_start = None
        self.turns.end()


def response_tokens(responses: list[list[int]], eos_id: int) -> int:
    """Tokens up to each row's first EOS, it included."""
    return sum(row.index(eos_id) + 1 if eos_id in row else len(row) for row in responses)


def main() -> None:
    _, task = worker.task()
    turns = worker.PhasedTurns(task.updates)
    environment.prepare()
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if task.case.peer_bf16 else "no"
    import accelerate
    import torch
    import transformers
    import trl

    if trl.__version__ != VERSION:
        raise RuntimeError(f"needs TRL {VERSION} first on PYTHONPATH, found {trl.__version__}")
    torch.set_num_threads(worker.THREADS)
    trainer = build(task)
    Watch(trainer, turns)
    turns.say(
        {
            "settings": {
                **settings(task.case, task.updates),
                "mixed_precision": trainer.accelerator.mixed_precision,
                "critic": "separate",
            },
            "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate, trl)},
        }
    )
    worker.train(trainer.train)


if __name__ == "__main__":
    main()
