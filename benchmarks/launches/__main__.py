"""What a GPU would be asked to do, counted on a CPU: `python -m benchmarks.launches`. What is counted, and how:
benchmarks/README.md."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import results
from benchmarks.launches.cases import ANSWER, LONG, QUICK_VOCABULARY, ROWS, SHAPES, SIDES, WIDTH, Shape
from benchmarks.launches.summary import MB, summary, table
from benchmarks.ppo.worker import THREADS
from benchmarks.processes import CACHE, ROOT
from rlhf_lib.common import environment
from rlhf_lib.common.files import write_json

if TYPE_CHECKING:
    from benchmarks.launches.tasks import Found

OUTPUT = ROOT / "benchmarks" / "results" / "launches.json"
QUICK_OUTPUT = CACHE / "quick-launches.json"
LOG = CACHE / "launches.log"
PATHS = ("cpu", "gpu")  # what code that chooses by the device takes: its choice on a CPU, or that on a GPU
MOST_LOGITS = 2.5e9  # of a vocabulary at `LONG` tokens; more take long, and 14 GB
LONG_TASKS = ("sft", "dpo", "ppo_update", "ppo_scoring", "evaluation")  # that have an output layer for many tokens
LARGEST_MB = 3300  # of a tensor; a task whose output layer would make a larger one is not run at `LONG` tokens


def run(name: str, paths: str, quick: bool) -> dict[str, Any]:
    """The results of one model's shape, on the paths of a CPU or a GPU."""
    shape = SHAPES[name]
    if quick:
        shape = dataclasses.replace(shape, vocab_size=QUICK_VOCABULARY)
    one, deeper, longer = (counted(name, shape, *point) for point in ((1, ROWS), (2, ROWS), (1, 2 * ROWS)))
    from benchmarks.launches.tasks import tokens

    found = {
        task: {
            side: summary(counts, deeper[task][side], longer[task][side], *tokens(task, ROWS), shape.layers)
            for side, counts in sides.items()
        }
        for task, sides in one.items()
    }
    if not quick and shape.vocab_size * LONG <= MOST_LOGITS:
        print(f"{name}: {LONG} tokens", file=sys.stderr)
        measure_long(shape, found)
    known = {"about": shape.about, "vocabulary": shape.vocab_size, "layers": shape.layers, "hidden_size": WIDTH}
    return {**known, "paths": paths, "tasks": found}


def counted(name: str, shape: Shape, layers: int, rows: int) -> Found:
    """All that is counted at one number of layers and of rows."""
    from benchmarks.launches import tasks

    print(f"{name}: {layers} layers, {rows} rows", file=sys.stderr)
    with scratch() as folder:
        found = tasks.counted(shape, layers, rows, folder)
    gc.collect()  # trainers refer to themselves
    return found


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for models, in whose context the trainers' bars and warnings go into a log of their own."""
    with (
        tempfile.TemporaryDirectory(dir=CACHE, prefix="launches-") as folder,
        open(LOG, "w", encoding="utf-8") as log,
        redirect_stderr(log),
        redirect_stdout(log),
    ):
        yield Path(folder)


def measure_long(shape: Shape, found: dict[str, dict[str, Any]]) -> None:
    """Measure the output layer's largest tensor of each task at `LONG` tokens, where that fits."""
    from benchmarks.launches import tasks

    rows = LONG // ANSWER
    with scratch() as folder:
        tasks.write(shape, 1, 2 * rows, folder)
        for task, side in ((long, side) for long in LONG_TASKS for side in SIDES if side in found[long]):
            numbers = found[task][side]
            if numbers["head_mb_at_16000"] > LARGEST_MB:
                continue
            if task == "evaluation":
                counts = tasks.evaluate(rows, folder)
            elif task.startswith("ppo"):
                counts = tasks.ppo(rows, 1, folder)[task]
            else:
                counts = tasks.training(task, side, rows if task == "sft" else rows // 2, folder, 1)
            numbers["head_mb_at_16000"] = counts.largest_of_head.bytes / MB
            numbers["head_mb_at_16000_measured"] = True
            gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launches", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="CASE")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS), help="of a CPU, or of a GPU")
    parser.add_argument("--output", type=Path, help="results file; only the cases that run are replaced")
    parser.add_argument("--quick", action="store_true", help="toy sizes: shows that all of it runs, counts no model")
    arguments = parser.parse_args()
    environment.prepare()
    import torch

    from rlhf_lib.models import hardware
    from rlhf_lib.models.params import AUTO

    torch.set_num_threads(THREADS)
    hardware.use(dataclasses.replace(AUTO, device="cpu", precision="fp32"))
    output = arguments.output or (QUICK_OUTPUT if arguments.quick else OUTPUT)
    machine = results.machine(THREADS, version("trl"))
    cases = [(name, paths) for name in arguments.cases for paths in arguments.paths]
    results.check_mergeable(results.read(output), machine, [f"{name}, {paths}" for name, paths in cases])
    CACHE.mkdir(exist_ok=True)
    for name, paths in cases:
        with hardware.as_on_a_gpu() if paths == "gpu" else nullcontext():
            case = run(name, paths, arguments.quick)
        write_json(output, results.merge(results.read(output), machine, {f"{name}, {paths}": case}))
    print(table(results.read(output)["cases"]))


if __name__ == "__main__":
    main()
