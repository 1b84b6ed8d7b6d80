"""Reporting a training to the trackers of REPORT_TO.

A run is named by its stage and its experiment, such as ppo/gentle. Its name, the trackers' ids of it and the last step
that each was told lie beside the checkpoints: a resumed stage goes on in the same run, and no step is told twice. The
training is the same with trackers and without: they draw none of its random numbers, and one that fails is left out.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, rewrite_logs

from rlhf_lib.common import environment
from rlhf_lib.common.dvc_project import GRAPH, declared
from rlhf_lib.common.files import write_json
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.common.schema import PARAMS_FILE, setting
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.training import report_to
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.trackers import TRACKERS, Run, Tracker

WORKSPACE = "workspace"  # DVC's word for what is no experiment
_FILE = "trackers.json"  # beside the checkpoints


@contextmanager
def reporting(trainer: Trainer, checkpoints: CheckpointDir) -> Iterator[None]:
    """A context that trains, and is reported to the trackers of REPORT_TO, if any, by the first process of several.

    A `ParamsError` where one does not start.
    """
    names = report_to.chosen() if is_main() else []
    if not names:
        yield
        return
    with _drawing_nothing():
        callback = Reports(checkpoints, [name for name in names if name in TRACKERS], partial(_answers, trainer))
        trainer.args.run_name = callback.run.name
    trainer.add_callback(callback)
    for name in names:
        if name not in TRACKERS:
            with _starting(name):
                others = INTEGRATION_TO_CALLBACK[name]()
                others.on_init_end(trainer.args, trainer.state, trainer.control)  # which has been for all others
            trainer.add_callback(others)
    for name in names:
        where = callback.trackers[name].where if name in callback.trackers else "its own settings say where"
        print(f"{callback.run.name}: reported to {name}: {where}", flush=True)
    failed = True
    try:
        yield
        failed = False
    finally:
        callback.close(failed)


def _answers(trainer: Trainer) -> list[JsonObject]:
    """The answers to the evaluation prompts that a trainer keeps, if it is one that samples."""
    state = getattr(trainer, "ppo_state", None)
    return [] if state is None else state.completions


class Reports(TrainerCallback):
    """Reports to the named trackers what is logged, and with each evaluation the new ones of a growing list of answers.

    Whatever was logged before they were switched on, in the checkpoint's log, they are told at the start.
    """

    def __init__(self, checkpoints: CheckpointDir, names: list[str], answers: Callable[[], list[JsonObject]]) -> None:
        self.file, self.answers = checkpoints.path / _FILE, answers
        stage = checkpoints.stage
        saved = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        experiment = os.environ.get("DVC_EXP_NAME", WORKSPACE)
        root = environment.project() / "logs"
        with _starting(str(root)):
            name = saved.get("name") or new_name(root, stage, experiment)
        self.run = Run(stage, experiment, name, root, config(stage), saved.get("ids", {}))
        self.told: dict[str, dict[str, int]] = saved.get("told", {})
        self.trackers: dict[str, Tracker] = {}
        for name in names:
            try:
                with _starting(name):
                    self.trackers[name] = TRACKERS[name](self.run)
            except ParamsError:
                with suppress(OSError):  # a folder with nothing in it
                    (root / self.run.name).rmdir()
                raise
        self._keep()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for entry in state.log_history:
            self._log(entry, int(entry["step"]))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._log(kwargs["logs"], state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        rows = self.answers()
        newest = [table_row(row) for row in rows if row["rollout"] == rows[-1]["rollout"]]
        if newest:
            self._tell("answers", state.global_step, lambda tracker: tracker.table(newest, state.global_step))

    def close(self, failed: bool) -> None:
        """No more comes."""
        for name in list(self.trackers):
            self._safely(name, lambda tracker: tracker.close(failed))

    def _log(self, logs: Mapping[str, Any], step: int) -> None:
        numbers = {k: float(v) for k, v in logs.items() if isinstance(v, int | float) and k != "step"}
        kinds = {"eval": any(key.startswith("eval_") for key in numbers), "end": "train_runtime" in numbers}
        kind = next((name for name, holds in kinds.items() if holds), "train")
        self._tell(kind, step, lambda tracker: tracker.log(rewrite_logs(numbers), step))

    def _tell(self, kind: str, step: int, tell: Callable[[Tracker], None]) -> None:
        """Tell every tracker what it has not been told of this kind, and keep in mind what it has."""
        for name in list(self.trackers):
            told = self.told.setdefault(name, {})
            if step > told.get(kind, -1) and self._safely(name, tell):
                told[kind] = step
        self._keep()

    def _safely(self, name: str, work: Callable[[Tracker], None]) -> bool:
        """Whether the work on a tracker was done; one that fails is told of in a line, and left out from then on."""
        try:
            with _drawing_nothing():
                work(self.trackers[name])
        except Exception as error:
            del self.trackers[name]
            print(f"\n{self.run.stage}: {name} failed, and is left out from here: {_line(error)}", flush=True)
            return False
        return True

    def _keep(self) -> None:
        write_json(self.file, {"name": self.run.name, "ids": self.run.ids, "told": self.told})


def new_name(root: Path, stage: str, experiment: str) -> str:
    """stage/experiment, and a number behind it where the root has a folder of that name; makes the folder."""
    number = 1
    while True:
        name = f"{stage}/{experiment}" + (f"-{number}" if number > 1 else "")
        try:
            (root / name).mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return name


def config(stage: str) -> dict[str, Any]:
    """The params that dvc.yaml declares for a stage, as section.key."""
    params = load_yaml(PARAMS_FILE)
    found: dict[str, Any] = {}
    for key in declared(stage, load_yaml(GRAPH)).get("params", []):
        value = setting(params, key)
        found |= {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
    return found


def table_row(row: JsonObject) -> JsonObject:
    """A completion as a tracker's table shows it: the prompt as text, with who said what where it is a dialogue."""
    messages = row["prompt"]
    said = [f"{message['role']}: {message['content']}" for message in messages]
    prompt = messages[0]["content"] if len(messages) == 1 else "\n".join(said)
    of_row = {name: row[name] for name in ("rollout", "mode", "reward", "kl")}
    return {**of_row, "prompt": prompt, "answer": row["completion"]}


@contextmanager
def _drawing_nothing() -> Iterator[None]:
    """A context after which the random numbers go on as if nothing in it had drawn any."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _starting(what: str) -> Iterator[None]:
    """A context that starts a tracker, or makes the folder of its logs: a `ParamsError` for whatever it raises."""
    try:
        yield
    except Exception as error:
        said = "does not start" if what in INTEGRATION_TO_CALLBACK else "takes no logs"
        told = f"{what} {said}: {_line(error)}; mend that, or take it out"
        raise ParamsError(f"{report_to.VARIABLE}: {told}") from error


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
