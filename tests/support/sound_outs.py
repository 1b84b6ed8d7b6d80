"""What is wrong with what a stage has written: nothing there, not finite, out of range, or not what its params say."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rlhf_lib.common import left_out
from rlhf_lib.evaluation.samples import DATASET, mode_name
from rlhf_lib.inputs.graph import Graph

# of one prompt there is no error, nor are there others to compare it with; of bounded rewards there is no calibration;
# of answers of one length there is no control for it
MAY_BE_NULL = ("_se", "self_bleu", "ece", "lc_win_rate")
MAY_BE_EMPTY = ("rejected.jsonl",)
# metrics that are shares or probabilities, by the end of their names
SHARES = ("accuracy", "accuracies", "eos_rate", "clip_fraction", "distinct_1", "distinct_2", "win_rate")


def faults(folder: Path, stage: str, params: Mapping[str, Any], before: Path) -> list[str]:
    """The faults of a stage's outs in `folder`. before: a folder with the outs of params without mutations."""
    outs = set(Graph.read(params, folder / "dvc.yaml").stages[stage].outs)
    if params["ppo"]["num_completions_to_log"] == 0:
        outs.discard("data/samples/ppo_training.jsonl")
    if stage.startswith("measure@") and params["evaluate"]["split"] != "test":  # of prompts without answers to compare
        before = folder / "of other prompts"
    found = [f"{out}: {fault}" for out in sorted(outs) for fault in of_out(folder / out, before / out)]
    return found + list(of_params(folder, stage, params))


def of_out(path: Path, before: Path) -> Iterator[str]:
    """What is wrong with a file or a folder, whatever it is."""
    if not path.exists():
        yield "is missing"
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if [file.name for file in files] == [left_out.NOTE] or not files:
            yield "left out" if files else "is empty"
        for file in files:
            yield from (f"{file.name}: {fault}" for fault in of_file(file, before / file.relative_to(path)))
    else:
        yield from of_file(path, before)


def of_file(path: Path, before: Path) -> Iterator[str]:
    """What is wrong with a file, by its kind."""
    if path.suffix == ".safetensors":
        broken = [name for name, tensor in load_file(path).items() if not torch.isfinite(tensor).all()]
        yield from [f"not finite: {broken[:3]}"] if broken else []
    elif path.suffix == ".jsonl":
        rows = _rows(path)
        if not rows and path.name not in MAY_BE_EMPTY and before.is_file() and _rows(before):
            yield "has no rows"
        yield from sorted({fault for row in rows for fault in of_numbers(row, None)})
    elif path.suffix == ".json" and path.parent.parts.count("metrics"):
        then = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else None
        yield from of_numbers(json.loads(path.read_text(encoding="utf-8")), then)
    elif path.suffix == ".tsv":
        lines = [line.split("\t") for line in _lines(path)]
        for row in lines[1:]:
            yield from (
                f"{name}: {cell}" for name, cell in zip(lines[0], row, strict=True) if not _is_finite(cell, name)
            )
    elif path.stat().st_size == 0:
        yield "is empty"


def of_numbers(value: Any, before: Any, name: str = "") -> Iterator[str]:
    """Numbers in JSON that are not finite or out of range, and nulls where a number was."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from of_numbers(item, before.get(key) if isinstance(before, Mapping) else None, key)
    elif isinstance(value, list):
        for item in value:
            yield from of_numbers(item, None, name)
    elif value is None and isinstance(before, int | float) and not name.endswith(MAY_BE_NULL):
        yield f"{name}: null, was {before}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name}: {value}"
    elif isinstance(value, int | float) and name.endswith(SHARES) and not -1e-6 <= value <= 1 + 1e-6:
        yield f"{name}: {value} is no share"


def _is_finite(cell: str, name: str) -> bool:
    try:
        return cell == "" or math.isfinite(float(cell))
    except ValueError:
        return name in ("policy", "name")


def of_params(folder: Path, stage: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Where the outs are not what the params ask for."""
    name, _, item = stage.partition("@")
    if name == "evaluate":
        section = params["evaluate"]
        rows = [row for row in _rows(folder / f"data/samples/{item}.jsonl") if row["mode"] != DATASET]
        modes = {mode_name(t): 1 if t == 0 else section["samples_per_prompt"] for t in section["temperatures"]}
        counts = Counter((row["id"], row["mode"]) for row in rows)
        found = {mode: {number for (_, own), number in counts.items() if own == mode} for _, mode in counts}
        if found != {mode: {number} for mode, number in modes.items()}:
            yield f"samples: {found}, not {modes}"
        if section["max_prompts"] and len({key for key, _ in counts}) > section["max_prompts"]:
            yield "samples: more prompts than max_prompts"
        yield from (f"length: {row['length']}" for row in rows if row["length"] > section["max_new_tokens"])
    elif name == "best_of_n" and params["best_of_n"]["n"]:
        counts = Counter(row["id"] for row in _rows(folder / "data/samples/best_of_n.jsonl"))
        if set(counts.values()) != {max(params["best_of_n"]["n"])}:
            yield f"samples: {sorted(set(counts.values()))} a prompt, not {max(params['best_of_n']['n'])}"
    elif name == "attainable" and params["attainable"]["n"]:
        counts = Counter(row["id"] for row in _rows(folder / "data/samples/attainable.jsonl"))
        if set(counts.values()) != {params["attainable"]["n"]}:
            yield f"samples: {sorted(set(counts.values()))} a prompt, not {params['attainable']['n']}"
    elif name in ("sft", "reward", "judge", "dpo") and params[name]["max_steps"] > 0:
        steps = [int(line.split("\t")[0]) for line in _lines(folder / f"metrics/{name}/train.tsv")[1:]]
        expected = params[name]["max_steps"] // params[name]["logging_steps"]
        if max(steps, default=0) > params[name]["max_steps"] or len(steps) < expected:
            yield f"steps: {steps} of {params[name]['max_steps']}"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # a text may hold other ends of lines


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(path) if line]
