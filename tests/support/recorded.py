"""A tracker that keeps what it is told, in a file, since the runs of a test are as good as processes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch

from rlhf_lib.training.trackers import Run


class Recorder:
    """A line of `told.jsonl` for each thing that it is told. It draws random numbers all the time, and fails from step
    `fails` on; -1: at its start."""

    fails: int | None = None
    where = "told.jsonl"

    def __init__(self, run: Run) -> None:
        self.draw(-1)
        self.keep(start=run.name, begun="wandb" in run.ids, config=dict(run.config))
        run.ids.setdefault("wandb", "an-id")

    def draw(self, step):
        torch.rand(3), np.random.rand(3), random.random()
        if self.fails is not None and step >= self.fails:
            raise OSError("the server\nis gone")

    def keep(self, **what):
        with open(self.where, "a") as file:
            file.write(json.dumps(what) + "\n")

    def log(self, values, step):
        self.draw(step)
        self.keep(step=step, values=dict(values))

    def table(self, rows, step):
        self.draw(step)
        self.keep(step=step, rows=list(rows))

    def close(self, failed):
        self.keep(failed=failed)


def told(key):
    """The lines that have a key."""
    file = Path(Recorder.where)
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if key in line]


def steps(name):
    """The steps at which a number of that name was told, in the order in which it was."""
    return [line["step"] for line in told("values") if name in line["values"]]
