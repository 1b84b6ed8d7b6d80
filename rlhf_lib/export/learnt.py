"""What the weights of a policy learnt from, stage by stage: how much of which file, and how often."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_lib.common import paths
from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.few import few
from rlhf_lib.common.policies import LABELS, POLICIES, section
from rlhf_lib.common.rows import read_values
from rlhf_lib.export.provenance import Run
from rlhf_lib.report.inputs import read_curve


class Learnt(NamedTuple):
    """A stage, the file that it learns from, and the prompts of the file's rows."""

    stage: str
    file: str
    prompts: list[Any]


def from_rows(run: Run, stage: str) -> list[Learnt]:
    """The stages that made the weights of `stage`, itself first, whose files are those that dvc.lock records."""
    made = [name for name in run.way(stage) if name in POLICIES]
    files = [(name, file) for name in reversed(made) if (file := _file(run, name)) and is_recorded(run, file)]
    return [Learnt(name, file, [row["prompt"] for row in read_values(file)]) for name, file in files]


def sentences(run: Run, learnt: Sequence[Learnt]) -> Iterator[str]:
    """What was seen of each file: one sentence a stage."""
    for place, each in enumerate(learnt):
        params, summary = run.params(each.stage).get(section(each.stage), {}), _summary(run, each.stage)
        amount = _responses if each.stage == "ppo" else _rows
        before = "Before that, " if place else ""
        yield f"{before}{LABELS[each.stage]} learnt from {amount(run, each, params, summary)}"


def is_recorded(run: Run, file: str) -> bool:
    """Whether a file is there as dvc.lock records it, alone or as a part of a folder."""
    recorded = {path: run.out(path) for path in (file, Path(file).parent.as_posix())}
    found = [md5(path) == hashed for path, hashed in recorded.items() if hashed is not None]
    return Path(file).is_file() and found == [True]


def _file(run: Run, stage: str) -> str | None:
    """What a stage trains on: what it has chosen itself, or one of the files that it reads."""
    name = f"{POLICIES[stage].learns_from}_train"
    chosen, read = paths.chosen(stage, "train"), run.read_by([stage])
    if run.out(Path(chosen).parent.as_posix()):
        return chosen
    return next((file for file in (paths.with_negatives(name), paths.split(name)) if file in read), None)


def _summary(run: Run, stage: str) -> Mapping[str, Any]:
    """The stage's numbers where they are of the recorded run; else empty."""
    file = paths.summary(stage)
    if not is_recorded(run, file):
        return {}
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    return found.get(stage) or {}


def _ended(run: Run, stage: str, summary: Mapping[str, Any], best: str, part: str, column: str) -> int | None:
    """Where training ended, or the kept weights are of, if that is not where params say: a number of steps or rollouts.

    best: the summary's key; part, column: the curve that has the last one.
    """
    if summary.get(best) is not None:
        return int(summary[best])
    curve = paths.curve(stage, part)
    if not summary.get("stopped_early") or not is_recorded(run, curve):
        return None
    return max((int(row[column] or 0) for row in read_curve(curve)), default=None)


def _rows(run: Run, learnt: Learnt, params: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Of a stage that reads rows: how many of the file's, and how often."""
    rows, prompts = len(learnt.prompts), len({str(prompt) for prompt in learnt.prompts})
    of_file = f"{rows:,} rows in {learnt.file} ({prompts:,} prompts{few(prompts)})"
    ended = _ended(run, learnt.stage, summary, "best_step", "eval", "step")
    steps = ended or (params.get("max_steps", -1) if params.get("max_steps", -1) > 0 else None)
    if steps is None:
        epochs = params.get("num_train_epochs")
        return f"the {of_file}" if epochs is None else _seen(rows * epochs, rows, of_file)
    size = params["per_device_train_batch_size"] * params.get("gradient_accumulation_steps", 1)
    how = f"{steps:,} steps of {size:,} rows"
    command = str(run.stages[learnt.stage].get("cmd", ""))
    if command.split()[:1] != ["python"]:  # by which the batch grows
        return f"the {of_file}: {how} in each process of `{command}`"
    return f"{_seen(steps * size, rows, of_file)}: {how}"


def _seen(drawn: float, rows: int, of_file: str) -> str:
    """The drawn rows as a share of the file, or as passes over it."""
    if drawn < rows:
        return f"{math.ceil(drawn):,} of the {of_file}"
    return f"the {of_file}, {'once' if drawn == rows else f'{drawn / rows:.3g} times'}"


def _responses(run: Run, learnt: Learnt, params: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Of PPO, which learns from its own answers to prompts."""
    rollouts = _ended(run, learnt.stage, summary, "best_rollout", "train", "rollout") or params["total_rollouts"]
    size, each, passes = (params[key] for key in ("rollout_batch_size", "num_generations", "num_ppo_epochs"))
    responses, rows = rollouts * size, len(learnt.prompts)
    distinct = len({str(prompt) for prompt in learnt.prompts})
    of_file = f"{rows:,} prompts in {learnt.file}{few(distinct)}"
    told = f"{responses:,} answers of its own to {_seen(responses / each, rows, of_file)}: {rollouts:,} rollouts of "
    told += f"{size:,} answers, each learnt {'once' if passes == 1 else f'{passes:,} times'}"
    return told + (f", beside answers of {paths.split('sft_train')}" if params.get("ptx_coef") else "")
