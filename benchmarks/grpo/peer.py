"""TRL's side of the benchmark without a critic: `python -m benchmarks.grpo.peer`, started by
benchmarks/grpo/__main__.py."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.grpo.cases import CASES, COPIES, TRAINERS
from benchmarks.ppo import worker
from benchmarks.ppo.cases import Case
from rlhf_lib.common import environment

# TRL's names of our settings.
_NAMES = {name: name for name in ("temperature", "learning_rate", "lr_scheduler_type", "weight_decay", "adam_beta1")}
_NAMES |= {"adam_beta2": "adam_beta2", "warmup_steps": "warmup_steps", "max_grad_norm": "max_grad_norm"}
_NAMES |= {"kl_coef": "beta", "cliprange": "epsilon", "num_generations": "num_generations"}


def trainer_name(name: str) -> str:
    """What TRL calls the trainer of a case."""
    return TRAINERS[name.partition("_")[0]]


def settings(name: str, case: Case, updates: int) -> dict[str, Any]:
    """The arguments of TRL's config: an update is `steps_per_generation` micro-batches of what was sampled at once."""
    work = case.work(updates)
    rows = work["per_device_train_batch_size"]
    micro_batches = case.batch // rows
    of_trainer = {"loss_type": "bnpo", "scale_rewards": "group", "use_bias_correction_kl": True}
    return {
        **{theirs: case.ours[ours] for ours, theirs in _NAMES.items()},
        **(of_trainer if trainer_name(name) == "GRPO" else {}),
        "seed": case.seed,
        "max_steps": updates * case.epochs * case.minibatches,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": micro_batches // case.minibatches,
        "steps_per_generation": micro_batches,
        "num_iterations": case.epochs,
        "max_completion_length": case.response_length,
        "gradient_checkpointing": False,
        "logging_steps": case.epochs * case.minibatches,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not worker.ON_GPU,
        "disable_tqdm": True,
        "bf16": case.peer_bf16,
    }


def build(name: str, task: worker.Task) -> Any:
    """TRL's trainer on the benchmark's models and prompts. It loads the reference itself."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from benchmarks.ppo import workload

    trainer, config = (getattr(trl, trainer_name(name) + suffix) for suffix in ("Trainer", "Config"))
    policy, reward = task.models / workload.POLICY, task.models / workload.REWARD
    rows = [{"prompt": prompt} for prompt in workload.read_prompts(task.models)]
    return trainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        reward_funcs=AutoModelForSequenceClassification.from_pretrained(reward, dtype=torch.float32, num_labels=1),
        args=config(output_dir=str(task.models / "checkpoints"), **settings(name, task.case, task.updates)),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
        reward_processing_classes=AutoTokenizer.from_pretrained(reward),
    )


def watch(trainer: Any, turns: worker.PhasedTurns, steps: int) -> None:
    """Take turns every so many optimizer steps, and time the trainer's phases."""
    from transformers import TrainerCallback

    class TakeTurns(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            worker.reset_peak()
            trainer.optimizer.step = turns.timed("optimizer", trainer.optimizer.step)
            turns.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % steps == 0:
                turns.end()

    generate, rewards = trainer._generate_single_turn, trainer._calculate_rewards

    def counted(*args: Any, **kwargs: Any) -> Any:
        sampled = generate(*args, **kwargs)
        ids = sampled[0] if isinstance(sampled, tuple) else sampled
        turns.tokens += sum(map(len, ids))
        return sampled

    def scored(*args: Any, **kwargs: Any) -> Any:
        start, before = time.process_time(), turns.phases["sampling"] + turns.phases["reward"]
        found = score(*args, **kwargs)
        inside = turns.phases["sampling"] + turns.phases["reward"] - before  # the phases within this one
        turns.phases["scoring"] += time.process_time() - start - inside
        return found

    score = trainer._generate_and_score_completions
    trainer._generate_single_turn = turns.timed("sampling", counted)
    trainer._calculate_rewards = turns.timed("reward", rewards)
    trainer._generate_and_score_completions = scored
    trainer._compute_loss = turns.timed("update", trainer._compute_loss)
    trainer.accelerator.backward = turns.timed("update", trainer.accelerator.backward)
    trainer.add_callback(TakeTurns())


def main() -> None:
    name, task = worker.task(CASES)
    turns = worker.PhasedTurns(task.updates)
    environment.prepare()
    import accelerate
    import torch
    import transformers
    import trl

    torch.set_num_threads(worker.THREADS)
    trainer = build(name, task)
    watch(trainer, turns, task.case.epochs * task.case.minibatches)
    turns.say(
        {
            "settings": {**settings(name, task.case, task.updates), "copies": COPIES},
            "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate, trl)},
        }
    )
    worker.train(trainer.train)


if __name__ == "__main__":
    main()
