"""Our side of the benchmark: `python -m benchmarks.ppo.ours`, started by benchmarks/ppo/__main__.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ppo import worker
from benchmarks.ppo.cases import CASES, Case
from rlhf_lib.common import environment
from rlhf_lib.common.schema import PARAMS_FILE, check
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.models.params import AUTO
from rlhf_lib.ppo.params import PPOParams

if TYPE_CHECKING:
    from rlhf_lib.ppo.trainer import PPOTrainer

PARAMS = Path(__file__).resolve().parents[2] / PARAMS_FILE


def ppo_params(overrides: Mapping[str, Any]) -> PPOParams:
    """The `ppo` section of params.yaml with some values replaced."""
    return check(PPOParams, {**load_yaml(PARAMS)["ppo"], **overrides}, "ppo", PARAMS_FILE)


def build(params: PPOParams, models: Path) -> PPOTrainer:
    """The trainer as the PPO stage builds it, on the benchmark's models and prompts."""
    from benchmarks.ppo import workload
    from rlhf_lib.ppo import build as ppo

    rows = [{"prompt": prompt} for prompt in workload.read_prompts(models)]
    policy, reward = str(models / workload.POLICY), str(models / workload.REWARD)
    params = dataclasses.replace(params, reward_funcs=[reward], reward_weights=None)
    return ppo.build(params, policy, reward, rows, rows[:1], [], worker.Nowhere(models))


def watch(trainer: PPOTrainer, turns: worker.PhasedTurns) -> None:
    """Take turns at the boundaries of updates, and time the trainer's phases."""
    from transformers import TrainerCallback

    from rlhf_lib.ppo import sampler

    class TakeTurns(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            worker.reset_peak()
            trainer.optimizer.step = turns.timed("optimizer", trainer.optimizer.step)
            turns.begin()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if trainer.ppo_state.rollouts_done > turns.done:
                turns.end()

    sample = trainer.sample

    def count_tokens(index: int) -> Any:
        rollout = sample(index)
        turns.tokens += int(rollout.mask.sum())
        return rollout

    hooks: list[tuple[Any, str, Any]] = [
        (sampler, "generate", turns.timed("sampling", sampler.generate)),
        (trainer.sampler, "reward", turns.timed("reward", trainer.sampler.reward)),
        (trainer, "score", turns.timed("scoring", trainer.score)),
        (trainer, "training_step", turns.timed("update", trainer.training_step)),
        (trainer, "sample", count_tokens),
    ]
    for owner, name, hook in hooks:
        setattr(owner, name, hook)
    trainer.add_callback(TakeTurns())


def main(cases: Mapping[str, Case] = CASES) -> None:
    _, task = worker.task(cases)
    turns = worker.PhasedTurns(task.updates)
    environment.prepare()
    import accelerate
    import torch
    import transformers

    from benchmarks.arithmetic import Arithmetic
    from rlhf_lib.models import hardware

    torch.set_num_threads(worker.THREADS)
    compute = AUTO if worker.ON_GPU else dataclasses.replace(AUTO, device="cpu")
    case = task.case
    hardware.use(dataclasses.replace(compute, precision=case.precision, frozen_dtype=case.frozen_dtype))
    params = ppo_params({**case.ours, **case.work(task.updates)})
    trainer = build(params, task.models)
    watch(trainer, turns)
    turns.arithmetic = Arithmetic(hardware.precision())
    turns.say(
        {
            "settings": {**dataclasses.asdict(params), "precision": hardware.precision(), "frozen": case.frozen_dtype},
            "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate)},
        }
    )
    worker.train(trainer.train)


if __name__ == "__main__":
    main()
