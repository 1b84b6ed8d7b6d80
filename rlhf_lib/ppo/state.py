"""State that a PPO run carries from rollout to rollout, and what is measured of the current one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.ppo.algos import RunningMoments

_FILE = "rollout.json"


@dataclass
class PPOState:
    """What a checkpoint keeps of the rollouts, beside Trainer's own state.

    objective_std: the spread of the rewards at the first evaluation, by which `objective` is scaled.
    completions: of the evaluation prompts, rows of data/samples/ppo_training.jsonl.
    """

    kl_coef: float
    rollouts_done: int = 0
    stopped: bool = False  # before total_rollouts, by max_kl or early_stopping_patience
    score_moments: RunningMoments = field(default_factory=RunningMoments)
    objective_std: float | None = None
    completions: list[JsonObject] = field(default_factory=list)

    def save(self, directory: str | Path) -> None:
        """Write the state into a checkpoint's directory."""
        (Path(directory) / _FILE).write_text(json.dumps(asdict(self)))

    def load(self, directory: str | Path) -> None:
        """Become the state that `save` wrote into a checkpoint's directory."""
        saved = json.loads((Path(directory) / _FILE).read_text())
        vars(self).update(saved, score_moments=RunningMoments(**saved["score_moments"]))


@dataclass
class Measures:
    """What is logged of one rollout: its own metrics, and the means over its optimizer steps of the loss's terms.

    The terms stay on the device until they are asked for: to fetch each would wait for it at every micro-batch.
    """

    rollout: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    _names: tuple[str, ...] = ()
    _terms: list[Tensor] = field(default_factory=list)  # of each micro-batch of this process, in the names' order
    _before: int = 0  # micro-batches of the steps that are done

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Count the terms of a micro-batch's loss."""
        self._names = tuple(terms)
        self._terms.append(torch.stack([term.detach() for term in terms.values()]))

    def minibatch_kl(self) -> float:
        """The approximate KL of the current minibatch, this process's part of it."""
        return self._sums(self._terms[self._before :])[self._names.index("approx_kl")]

    def finish_step(self) -> None:
        """Count an optimizer step."""
        self.steps += 1
        self._before = len(self._terms)

    def take(self, summed: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """All that is logged of the rollout; the counts of its steps are reset. `summed`: over the processes."""
        sums = summed(torch.tensor(self._sums(self._terms), dtype=torch.float64)).tolist()
        update = {name: total / self.steps for name, total in zip(self._names, sums, strict=True)}
        logged = {**self.rollout, **update, "steps": self.steps}
        self._terms.clear()
        self.steps = self._before = 0
        return logged

    def _sums(self, terms: list[Tensor]) -> list[float]:
        sums = [0.0] * len(self._names)
        for of_one in torch.stack(terms).tolist():
            sums = [total + term for total, term in zip(sums, of_one, strict=True)]
        return sums
