"""Measure policies with lm-evaluation-harness: did alignment cost what the SFT model could do?

    python -m rlhf_lib.capability                                      the trained policies, in the tasks of the demo
    python -m rlhf_lib.capability models/sft models/dpo --tasks arc_easy,hellaswag --online --limit 200
    python -m rlhf_lib.capability --tasks my_task --include_path my_tasks

The numbers go to metrics/lm_eval.json, what was said of each document to data/lm_eval, and the comparison with
models/sft is in the report (make report). models/base is measured too, for what it can do needs no training. A limit
is for trying out: its numbers go to data/lm_eval/trials.json, and nothing else changes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_lib import talk
from rlhf_lib.capability import harness, store
from rlhf_lib.common import environment, paths, running
from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.report import capability

FOLDER = Path("examples/lm_eval")
TASKS = "demo"  # a tag, of the tasks in that folder


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_lib.capability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "models", nargs="*", help="directories, also with commas; models/base and the policies that are there"
    )
    parser.add_argument("--tasks", default=TASKS, help="names, tags, groups, patterns or YAML files, with commas; demo")
    parser.add_argument("--include_path", type=Path, default=FOLDER, help=f"the folder of your own tasks; {FOLDER}")
    parser.add_argument("--num_fewshot", type=int, help="worked examples before each question; as the task has it")
    parser.add_argument("--limit", type=float, help="documents of each task, or, below 1, the share of them; all")
    parser.add_argument("--batch_size", default="16", help="requests at once, or auto; 16")
    parser.add_argument("--online", action="store_true", help="let tasks download the datasets that they name")
    parser.add_argument(
        "--apply_chat_template",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put questions as a user's turn, as the policies learnt them; on",
    )
    arguments = parser.parse_args(given)
    arguments.models = [store.key_of(name) for text in arguments.models for name in text.split(",") if name]
    arguments.tasks = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    if not arguments.tasks:
        parser.error("--tasks names none")
    if arguments.num_fewshot is not None and arguments.num_fewshot < 0:
        parser.error("--num_fewshot must be at least 0")
    if arguments.limit is not None and not (0 < arguments.limit < 1 or arguments.limit >= 1):
        parser.error("--limit must be above 0")
    if arguments.batch_size.isdecimal() and int(arguments.batch_size) > 0:
        arguments.batch_size = int(arguments.batch_size)
    elif arguments.batch_size != "auto":
        parser.error("--batch_size must be a number from 1, or auto")
    return arguments


def trained() -> list[str]:
    """The policies' models that are there, and the one before training. A `ParamsError` where there is no policy."""
    found = [model for model in map(paths.model, POLICIES) if Path(model, "config.json").is_file()]
    if not found:
        raise ParamsError("no policy to measure: dvc repro makes models/sft, models/ppo and models/dpo")
    return [*([paths.BASE] if Path(paths.BASE, "config.json").is_file() else []), *found]


def of_model(model: str) -> dict[str, Any]:
    """What an entry says of its model: its hash, and whether it is models/base with weights that learnt nothing."""
    known = {"model_md5": md5(model)}
    if model != paths.BASE or not Path(PARAMS_FILE).is_file():
        return known
    return {**known, "fresh": load_yaml(Path(PARAMS_FILE))["base"]["model_name_or_path"] is None}


def measure(models: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the models one after another, each kept as soon as it is done; all that is kept of what was asked now."""
    with environment.importing():
        manager, names = harness.tasks(arguments.tasks, arguments.include_path, arguments.online)
    given = (arguments.num_fewshot, arguments.limit, arguments.batch_size, arguments.apply_chat_template)
    options = harness.Options(*given)
    for place, model in enumerate(models, 1):
        print(f"{model} ({place} of {len(models)}): {', '.join(names)}", file=sys.stderr, flush=True)
        policy, said = talk.load(model), of_model(model)
        found, cut = harness.measure(policy, manager, names, options)
        rows = harness.rows_of(found)
        made = harness.entries(found, rows, options, said)
        by_asked = {harness.asked(found, task, options): of_task for task, of_task in rows.items()}
        known = store.keep(model, made, by_asked, file_of(arguments))
        if cut:
            print(f"{model}: {cut} requests were longer than its context, and lost their beginnings", file=sys.stderr)
    return {model: {key: entry for key, entry in known[model].items() if key in made} for model in known}


def file_of(arguments: argparse.Namespace) -> str:
    """Where the numbers go."""
    return paths.LM_EVAL if arguments.limit is None else store.TRIALS


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print the comparison."""
    arguments = parse(given)
    harness.check_installed()
    models = list(dict.fromkeys(arguments.models or trained()))
    store.read(file_of(arguments))  # a broken file is told before anything is measured
    harness.prepare(arguments.online)
    for model in models:  # and so is a model that cannot answer
        talk.check(model)
    try:
        found = measure(models, arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; models that were measured are in {file_of(arguments)}", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if (told := running.outer_fault(error)) is None:
            raise
        raise SystemExit(f"lm-eval: {told}") from None
    print(capability.text(found, models))
    kept = "a trial, for it has a limit: not on the page" if arguments.limit else "on the page: make report"
    print(f"\nThe numbers: {file_of(arguments)}; each document: {paths.LM_EVAL_ROWS}; {kept}")


if __name__ == "__main__":
    main()
