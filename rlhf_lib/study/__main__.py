"""Compare methods fairly, as study.yaml says: each tuned as much as the others, trained with several seeds.

    python -m rlhf_lib.study                run what is missing, choose on validation prompts, test, and tell
    python -m rlhf_lib.study --jobs 2       two experiments at a time
    python -m rlhf_lib.study --list         the experiments, and which of them are there already

1. Every setting is trained with every seed, and answers the validation prompts.
2. On these each method's setting is chosen, and what is mixed of its settings for an equal KL.
3. The same policies, from the cache, answer the test prompts; a table says who is better, and how sure that is.

Every run is a DVC experiment whose name starts with study-. One that the commit has already is not run again, so that
the same command goes on with a study that was stopped, and a longer study.yaml adds to it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rlhf_lib.common import paths
from rlhf_lib.common.files import replacing, write_json
from rlhf_lib.common.schema import read as read_params
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.evaluation.samples import mode_name
from rlhf_lib.experiments.sweep import check_workspace, finished
from rlhf_lib.report.inputs import load_evaluations
from rlhf_lib.study import design, tables
from rlhf_lib.study.design import Study
from rlhf_lib.study.results import SCORES, Results, collect, from_experiment
from rlhf_lib.study.runner import Runner
from rlhf_lib.study.verdict import verdict


def check_criterion(study: Study, mode: str) -> None:
    """A `SystemExit` of one line unless the SFT model's answers have the score by which the study chooses."""
    measured = load_evaluations([mode]).get("sft", {}).get(mode, {})
    if study.criterion not in measured:
        known = ", ".join(key for key in SCORES if key in measured) or "none of them"
        file = paths.evaluation("sft")
        raise SystemExit(f"{design.FILE}: criterion: {file} has no {study.criterion}; it has: {known}")


def tell(study: Study, validation: Results, test: Results, mode: str, out: Path) -> None:
    """Print the study's verdict, and write it as study.md, study.json and study.png."""
    found = verdict(study, validation, test)
    text = tables.told(study, found, validation, test)
    with replacing(out / "study.md") as file:
        file.write(f"# Study\n\n{text}")
    write_json(out / "study.json", tables.as_json(study, found))
    tables.draw(study, found, test, mode, out / "study.png")
    print(text)
    print(f"The same: {out / 'study.md'}; its numbers: {out / 'study.json'}; the picture: {out / 'study.png'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a study."""
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_lib.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="experiments at a time; each has a GPU where there are several"
    )
    parser.add_argument("--list", action="store_true", help="list the experiments, and run nothing")
    parser.add_argument("--out", type=Path, default=Path("dvc_plots"), help="the folder to write into")
    given = parser.parse_args(arguments)
    if given.jobs < 1:
        parser.error("--jobs must be at least 1")
    study = design.read()
    temperature = read_params("evaluate", EvaluateParams).temperatures[0]
    runs = {split: list(study.runs(split)) for split in design.SPLITS}
    if given.list:
        there = finished()
        for run in chain.from_iterable(runs.values()):
            print(f"{run.name}: {'there' if run.name in there else 'to run'}")
    check_workspace((), free=str(design.FILE))
    if given.list:
        return
    runner, mode = Runner(given.jobs, temperature), mode_name(temperature)
    check_criterion(study, mode)
    results = {}
    for split, of_split in runs.items():
        print(f"{split}: {len(of_split)} experiments", flush=True)
        runner.run(of_split)
        results[split] = collect(study, split, mode, from_experiment)
    tell(study, **results, mode=mode, out=given.out)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
