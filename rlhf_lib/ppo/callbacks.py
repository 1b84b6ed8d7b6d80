"""What a PPO run does at the end of a rollout, and what it shows meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.ppo.state import Measures, PPOState


class RolloutEnd(TrainerCallback):
    """Logs, evaluates, saves and stops, at the end of a rollout and nowhere else, but for the evaluation at the start.

    There, a checkpoint need not hold a half-used rollout, and a resumed run continues as the killed one would have.
    `finish_step` counts an optimizer step, and says whether it was the last one on its rollout.
    """

    def __init__(
        self, params: PPOParams, ppo_state: PPOState, measures: Measures, finish_step: Callable[[], bool]
    ) -> None:
        self.params, self.ppo_state, self.measures, self.finish_step = params, ppo_state, measures, finish_step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The curves begin at the SFT model; a resumed run has that evaluation in its checkpoint.
        args.eval_on_start = state.global_step == 0 and args.eval_strategy != "no"

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        params = self.params
        if self.finish_step():
            done, kl = self.ppo_state.rollouts_done, self.measures.rollout["kl"]
            too_far = params.max_kl is not None and kl > params.max_kl
            last = too_far or done == params.total_rollouts
            control.should_log = True
            control.should_evaluate = (last or done % params.eval_rollouts == 0) and args.eval_strategy != "no"
            control.should_save = last or done % params.save_rollouts == 0
            control.should_training_stop |= last
            if too_far and state.is_world_process_zero:
                print(f"stopped after rollout {done}: KL {kl:.3g} is above max_kl {params.max_kl:g}")
        return control


class RolloutProgress(TrainerCallback):
    """A progress bar over rollouts, with reward and KL in it; a line for each evaluation."""

    def __init__(self, total_rollouts: int, ppo_state: PPOState) -> None:
        self.total_rollouts, self.ppo_state = total_rollouts, ppo_state
        self.bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            done = self.ppo_state.rollouts_done
            self.bar = tqdm(desc="PPO", unit="rollout", total=self.total_rollouts, initial=done, dynamic_ncols=True)

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
            self.bar.update(self.ppo_state.rollouts_done - self.bar.n)
            shown = {key: f"{logs[key]:.3g}" for key in ("reward", "kl", "length")}
            self.bar.set_postfix(shown | {"tokens/s": f"{logs['rollout_tokens_per_second']:,.0f}"})
        elif "eval_reward" in logs:
            names = ("reward", "kl", "length", "eos_rate", "greedy_reward")
            measured = ", ".join(f"{name} {logs[f'eval_{name}']:.3g}" for name in names)
            self.bar.write(f"evaluation after rollout {self.ppo_state.rollouts_done}: {measured}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
