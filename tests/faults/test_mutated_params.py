"""Mutated params: the check refuses them, or the stages that read them run to sound outs or end in one line."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from forked_stages import ForkedStages, Outcome
from mutated_params import Mutation, mutations, smoke
from project import ROOT
from sound_outs import faults
from tally import tally

WORKERS = 2
LINKS = ("dvc.yaml", "launch", "presets", "rewards", "rubrics", "rlhf_lib", "stages")
# The whole pipeline, in order.
STAGES = (
    *("inputs", "load", "prepare", "base", "sft", "negatives", "reward", "judge", "reference", "dpo", "ppo"),
    *("evaluate@sft", "evaluate@ppo", "evaluate@dpo", "best_of_n", "measure@sft", "measure@ppo", "measure@dpo"),
    *("attainable", "attained", "measure@best_of_n", "overoptimisation", "llm_judge", "select", "report"),
)
# Those that read a section.
READ_BY = {
    "compute": ("sft", "reward", "ppo", "evaluate@sft"),
    "load": ("load", "prepare"),
    "prepare": ("prepare", "base", "reward"),
    "base": ("base", "sft"),
    "dpo": ("reference", "dpo"),
    "reference": ("reference", "dpo"),
    "evaluate": ("evaluate@sft", "evaluate@ppo", "measure@sft", "measure@ppo", "best_of_n"),
    "best_of_n": ("best_of_n", "measure@best_of_n"),
    "attainable": ("attainable", "attained"),
    "policy": ("select",),
    "launch": (),
    "methods": (),  # what is left out by it has no outs of the smoke params to be compared with
}
DEADLINE = 60.0
AT_WORK = 8.0  # seconds after which a run that was asked for much more work than a test has time for is stopped
# Keys that ask for more work the higher they are.
WORK = (
    *(
        "instructions",
        "vocab_size",
        "n_positions",
        "n_embd",
        "n_layer",
        "max_steps",
        "num_train_epochs",
        "total_rollouts",
    ),
    *("gradient_accumulation_steps", "per_device_train_batch_size", "num_negatives", "max_new_tokens", "max_length"),
    *("response_length", "num_ppo_epochs", "rollout_batch_size", "num_generations", "samples_per_prompt", "num_beams"),
    *("max_prompts", "max_eval_prompts", "n", "temperatures", "lora_r", "per_device_eval_batch_size", "n_head"),
)
LEARNS = ("sft", "reward", "judge", "dpo", "ppo")


class Result(NamedTuple):
    """how: refused (by the check), sound, told (in one line, by a stage), at work, or what is wrong."""

    mutation: Mutation
    how: str
    held: bool


def lay(folder: Path, params: dict[str, Any]) -> Path:
    """A folder of the project with these params, without outs."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    for name in LINKS:
        (folder / name).symlink_to(ROOT / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
    return folder


def command(stage: str, params: dict[str, Any]) -> str:
    """What dvc.yaml runs for a stage."""
    return f"stages.{stage.replace('@', ' ')}" + (f" {params['policy']}" if stage == "select" else "")


def complete(folder: Path, runner: ForkedStages, stages: tuple[str, ...] = STAGES) -> Path:
    """A folder in which the pipeline has run on the smoke params."""
    params = smoke()
    lay(folder, params)
    for stage in stages:
        done = runner.run(folder, command(stage, params), DEADLINE)
        assert done.code == 0, (stage, done.output[-2000:])
        if stage == "base":
            shutil.copytree(folder / "models/base", folder / "pretrained")
    return folder


def more_work(mutation: Mutation) -> bool:
    """Whether much more is asked for than by the smoke params."""
    start = smoke()
    if mutation.params.get("compute", {}).get("torch_compile") is True:
        return True
    for name, value in mutation.changes.items():
        section, _, key = name.partition(".")
        if key in WORK and value is not ...:
            now = start[section][key]
            value, now = (max(x, default=0) + len(x) if isinstance(x, list) else x or 0 for x in (value, now))
            if value > 4 * max(now, 4):
                return True
    return any(mutation.params[name].get("max_steps", 1) == -1 for name in mutation.sections if name in LEARNS)


def tried(mutation: Mutation, start: Path, folder: Path, runner: ForkedStages, stages: int = 9) -> Result:
    """What becomes of a mutation in a copy of the complete folder."""
    shutil.copytree(start, folder, symlinks=True)
    try:
        (folder / "params.yaml").write_text(yaml.safe_dump(mutation.params, sort_keys=False, allow_unicode=True))
        checked = runner.run(folder, "rlhf_lib.check.__main__", DEADLINE)
        if fault := unclear(checked):
            return Result(mutation, f"check: {fault}", False)
        if checked.code != 0:
            return Result(mutation, "refused", True)
        for stage in [stage for name in mutation.sections for stage in READ_BY.get(name, (name,))][:stages]:
            result = of_stage(mutation, stage, start, folder, runner)
            if result.how != "sound":
                return result
        return Result(mutation, "sound", True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def of_stage(mutation: Mutation, stage: str, start: Path, folder: Path, runner: ForkedStages) -> Result:
    work = more_work(mutation)
    done = runner.run(folder, command(stage, mutation.params), AT_WORK if work else DEADLINE)
    if done.code is None and work:
        return Result(mutation, "at work", True)
    if fault := unclear(done):
        return Result(mutation, f"{stage}: {fault}", False)
    if done.code != 0:
        return Result(mutation, f"told: {stage}: {last_line(done.output)}", True)
    wrong = faults(folder, stage, mutation.params, start)
    if wrong and "left out" in done.output:
        return Result(mutation, f"told: {stage}: {last_line(done.output)}", True)
    if "no weight changed" not in done.output:
        wrong += unchanged(mutation, stage, start, folder)
    return Result(mutation, f"{stage}: wrong: {wrong[:4]}: {done.output[-300:]}" if wrong else "sound", not wrong)


def unclear(done: Outcome) -> str | None:
    """Why an end is none that a user can work with; None where it is."""
    if done.code is None:
        return f"no end within {done.seconds:.0f} s: {done.output[-500:]}"
    if "Traceback" in done.output or done.code not in (0, 1):
        return f"exit code {done.code}: {done.output[-1500:]}"
    if done.code and not 10 < len(last_line(done.output)) < 2000:
        return f"no line: {done.output[-500:]!r}"
    return None


def last_line(output: str) -> str:
    """The last line that is no progress bar, nor what one leaves behind."""
    lines = [line.strip() for line in re.split(r"[\n\r]|\x1b\[A", output)]
    return ([line for line in lines if ": " in line and "%|" not in line] or [""])[-1]


def unchanged(mutation: Mutation, stage: str, start: Path, folder: Path) -> Iterator[str]:
    """Weights that are the first ones, or those of the smoke params though the seed or the learning rate is another."""
    now = mutation.params.get(stage, {})
    then = smoke().get(stage, {})
    first = {"sft": "base", "dpo": "sft", "ppo": "sft"}.get(stage)
    if first and now["learning_rate"] > 1e-6 and weights(folder, stage) == weights(folder, first):
        yield f"models/{stage}: the weights of models/{first}"
    for key in ("seed", "learning_rate"):
        other = f"{stage}.{key}" in mutation.changes and abs(now[key] - then[key]) > 1e-3 * then[key]
        if (
            stage in LEARNS
            and other
            and now["learning_rate"] > 1e-6
            and weights(folder, stage) == weights(start, stage)
        ):
            yield f"models/{stage}: another {key}, the same weights"


def weights(folder: Path, stage: str) -> str:
    return hashlib.md5((folder / f"models/{stage}/model.safetensors").read_bytes()).hexdigest()


def attack(folder: Path, seed: int, number: int) -> list[Result]:
    """What becomes of so many mutations, on `WORKERS` processes."""
    with ForkedStages() as runner:
        start = complete(folder / "start", runner)
    every = list(enumerate(mutations(seed, number)))

    def part(worker: int) -> list[Result]:
        with ForkedStages() as runner:
            return [show(n, tried(mutation, start, folder / str(n), runner)) for n, mutation in every[worker::WORKERS]]

    with ThreadPoolExecutor(WORKERS) as pool:
        return [result for results in pool.map(part, range(WORKERS)) for result in results]


def show(number: int, result: Result) -> Result:
    print(f"{number} {'held' if result.held else 'NOT HELD'}: {result.mutation}: {result.how}", flush=True)
    return result


@pytest.mark.slow
@pytest.mark.faults
def test_mutated_params_go_through_check_and_stages_or_are_told(tmp_path):
    number = int(os.environ.get("FAULTS_MUTATIONS", "1000"))
    results = attack(tmp_path, seed=int(os.environ.get("FAULTS_SEED", "0")), number=number)
    print(Counter(result.how.split(":")[0] for result in results))
    tally("mutated params through check and stage", number, sum(result.held for result in results))
    assert len(results) == number
    assert sum(result.how == "refused" for result in results) < 0.8 * number, "the check refuses nearly all"
    assert not [f"{result.mutation}: {result.how}" for result in results if not result.held]


@pytest.mark.slow
def test_some_mutated_params_go_through_check_and_stage_or_are_told(tmp_path):
    """The same of a few, of those sections whose stages need the first ones alone."""
    sections = {"load", "prepare", "base"}
    some = [mutation for mutation in mutations(1, 400) if set(mutation.sections) <= sections]
    with ForkedStages() as runner:
        start = complete(tmp_path / "start", runner, STAGES[:4])
        results = [tried(mutation, start, tmp_path / str(n), runner, stages=1) for n, mutation in enumerate(some[:4])]
    assert {result.how for result in results} == {"refused", "sound"}
    assert not [f"{result.mutation}: {result.how}" for result in results if not result.held]
