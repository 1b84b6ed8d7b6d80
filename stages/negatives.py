"""Answers of a model as rejected ones beside those of the training pairs: data/splits -> data/negatives."""

import shutil
from collections import Counter
from pathlib import Path

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import read_values, write_jsonl
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.negatives import sampling as negatives
from rlhf_lib.negatives.params import NegativesParams

FILES = ("preference_train", "reward_train")
SPLITS = [Path(paths.split(name)) for name in FILES]
OUTS = [Path(paths.with_negatives(name)) for name in FILES]


def main() -> None:
    params = read("negatives", NegativesParams)
    if params.model_name_or_path is None:
        copy()
        return
    left_out.unless_there("negatives", *SPLITS, enough=any)
    compute = read("compute", ComputeParams)
    environment.prepare(offline=params.name_and_revision[1] is None)
    from rlhf_lib.models import hardware
    from rlhf_lib.training.checkpoint import CheckpointDir

    hardware.use(compute)
    checkpoints = CheckpointDir("negatives")
    samples = negatives.sample(params, negatives.prompts(SPLITS), checkpoints.path / "samples.jsonl", SPLITS)
    counts = [Counter[str]() for _ in FILES]
    for split, out, count in zip(SPLITS, OUTS, counts, strict=True):
        write_jsonl(out, negatives.extend(read_values(split), samples, count))
    write_metrics(counts)
    checkpoints.remove()


def copy() -> None:
    for split, out in zip(SPLITS, OUTS, strict=True):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(split, out)
        except OSError as error:
            raise SystemExit(f"{split}: {error.strerror}; the stage before this one writes it (dvc repro)") from None
    write_metrics([Counter[str]() for _ in FILES])


def write_metrics(counts: list[Counter[str]]) -> None:
    by_file = {name: negatives.summary(count) for name, count in zip(FILES, counts, strict=True)}
    write_json(paths.summary("negatives"), {"negatives": by_file})


if __name__ == "__main__":
    running.run(main)
