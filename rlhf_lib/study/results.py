"""What the experiments of a study have answered, as arrays of prompts by seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from rlhf_lib.common import paths
from rlhf_lib.common.place import inside
from rlhf_lib.evaluation.samples import Sample, in_mode
from rlhf_lib.measure.comparison import group_by_prompt
from rlhf_lib.study.design import Run, Setting, Study
from rlhf_lib.study.intervals import Array

SCORES = ("gold", "judge", "reward")  # of samples, the best criterion first
Reader = Callable[[Run, str], list[Sample]]  # the samples that an experiment has of a policy


@dataclass(frozen=True)
class Results:
    """What one split's samples say. By setting, each number as an array of (prompts, seeds); of the SFT model, of
    (prompts,). Numbers are `SCORES` as far as they are known, length, and kl in nats per answer."""

    settings: Mapping[Setting, Mapping[str, Array]]
    sft: Mapping[str, Array]

    @property
    def known(self) -> list[str]:
        """The scores that every sample has."""
        return [key for key in SCORES if all(key in numbers for numbers in (self.sft, *self.settings.values()))]

    @property
    def prompts(self) -> int:
        return len(self.sft["kl"])

    def gains(self, setting: Setting, key: str) -> Array:
        """What a setting has more of a score than the SFT model, (prompts, seeds)."""
        return self.settings[setting][key] - self.sft[key][:, None]


def collect(study: Study, split: str, mode: str, read: Reader) -> Results:
    """The results of every run on a split; `read` is asked for no other. `mode`: of the samples that count."""
    by_seed: dict[Setting, list[Mapping[str, Array]]] = {}
    sft: dict[str, Array] = {}
    for run in study.runs(split):
        sft = sft or numbers(in_mode(read(run, "sft"), mode))
        found = numbers(in_mode(read(run, run.setting.method), mode))
        if len(found["kl"]) != len(sft["kl"]):
            raise SystemExit(f"{run.name}: not the prompts of the other experiments; dvc exp remove {run.name}")
        by_seed.setdefault(run.setting, []).append(found)
    settings = {
        setting: {key: np.stack([found[key] for found in each], axis=1) for key in each[0]}
        for setting, each in by_seed.items()
    }
    return Results(settings, sft)


def numbers(samples: Sequence[Sample]) -> dict[str, Array]:
    """Each number as the means of the prompts' draws, (prompts,), prompts in the order of their ids."""
    grouped = [draws for _, draws in sorted(group_by_prompt(samples).items())]
    keys = ["length", *(key for key in SCORES if samples and all(s.get(key) is not None for s in samples))]
    found = {key: np.array([fmean(s[key] for s in draws) for draws in grouped]) for key in keys}
    found["kl"] = np.array([fmean(s["logprob"] - s["ref_logprob"] for s in draws) for draws in grouped])
    return found


def from_experiment(run: Run, policy: str) -> list[Sample]:
    """The samples of a policy in the experiment of a run; a `SystemExit` of one line where there are none."""
    from dvc.api import DVCFileSystem  # which takes a second
    from dvc.exceptions import DvcException

    file, place = paths.samples(policy), inside()
    try:
        files = DVCFileSystem(rev=run.name, subrepos=place != Path())  # of the whole repository
        text = files.read_text((place / file).as_posix(), encoding="utf-8")
    except (DvcException, OSError) as error:
        raise SystemExit(
            f"{run.name}: {file} cannot be read ({' '.join(str(error).split())}); dvc exp remove {run.name}, and run "
            "the study again"
        ) from None
    return [json.loads(line) for line in text.splitlines() if line.strip()]
