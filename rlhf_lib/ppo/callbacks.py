"""What a PPO run does at the end of a rollout, and what it shows meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from rlhf_lib.ppo.trainer import PPOTrainer


class RolloutEnd(TrainerCallback):
    """Logs, evaluates, saves and stops, at the end of a rollout and nowhere else, but for the evaluation at the start.

    There, a checkpoint need not hold a half-used rollout, and a resumed run goes on as the killed one would have.
    """

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The curves begin at the SFT model; a run that goes on has that evaluation in its checkpoint.
        args.eval_on_start = state.global_step == 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        trainer, params = self.trainer, self.trainer.params
        if trainer.finish_step():
            too_far = params.max_kl is not None and trainer.rollout_metrics["kl"] > params.max_kl
            last = too_far or trainer.rollouts_done == params.total_rollouts
            control.should_log = True
            control.should_evaluate = last or trainer.rollouts_done % params.eval_rollouts == 0
            control.should_save = last or trainer.rollouts_done % params.save_rollouts == 0
            control.should_training_stop |= last
            if too_far and state.is_world_process_zero:
                kl = trainer.rollout_metrics["kl"]
                print(f"stopped after rollout {trainer.rollouts_done}: KL {kl:.3g} is above max_kl {params.max_kl:g}")
        return control


class RolloutProgress(TrainerCallback):
    """A progress bar over rollouts, with reward and KL in it; a line for each evaluation."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer
        self.bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            done, total = self.trainer.rollouts_done, self.trainer.params.total_rollouts
            self.bar = tqdm(desc="PPO", unit="rollout", total=total, initial=done, dynamic_ncols=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.bar is None or logs is None:
            return
        if "loss" in logs:
            self.bar.update(self.trainer.rollouts_done - self.bar.n)
            shown = ("reward", "kl", "length")
            self.bar.set_postfix({key: f"{logs[key]:.3g}" for key in shown})
        elif "eval_reward" in logs:
            names = ("reward", "kl", "length", "eos_rate", "greedy_reward")
            measured = ", ".join(f"{name} {logs[f'eval_{name}']:.3g}" for name in names)
            self.bar.write(f"evaluation after rollout {self.trainer.rollouts_done}: {measured}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
