"""Answers of a model to a file of prompts, with scores.

    python -m rlhf_lib.answering models/dpo prompts.csv --out answers.csv --num_beams 4 --no_repeat_ngram_size 3
    python -m rlhf_lib.answering models/ppo data/splits/test.jsonl --temperature 0.7 --scores models/reward,models/judge

The model is a directory, or owner/name@<commit> of the hub. The prompts are JSON Lines, JSON, CSV, TSV or Parquet with
the columns of docs/data.md, or a text file with one a line. docs/generating.md has the columns of what is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence

from rlhf_lib.answering import decoding as options
from rlhf_lib.answering import prompts, table, unfinished
from rlhf_lib.common import environment
from rlhf_lib.common.running import outer_fault
from rlhf_lib.common.schema import LARGEST_INT, read
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.scoring.source import RewardSource, parse


def parser() -> argparse.ArgumentParser:
    """The command line; options of decoding are texts, which `decoding.read` checks."""
    found = argparse.ArgumentParser(
        prog="python -m rlhf_lib.answering",
        description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("model", help="a directory, such as models/dpo, or owner/name@<commit>")
    found.add_argument("prompts", help="a file of prompts, and of references where it has them; or a glob")
    found.add_argument("--out", default="answers.jsonl", help="file to write, .jsonl or .csv; answers.jsonl")
    found.add_argument("--scores", default="", help="reward models and functions, as ppo.reward_funcs names them: a,b")
    found.add_argument("--seed", type=int, default=0, help="of the sampling; 0")
    found.add_argument("--batch_size", type=int, help="rows of a forward pass, beams too; as evaluate's in params.yaml")
    found.add_argument("--max_prompts", type=int, help="answer so many of the first prompts; all")
    found.add_argument("--prompt_column", help="the prompt's column, where it has another name")
    found.add_argument("--reference_column", help="the reference's column, where it has another name")
    found.add_argument("--too_long", choices=("stop", "cut"), default="stop", help="prompts that do not fit; stop")
    found.add_argument("--bf16", action="store_true", help="the model's and reward models' matrices in bf16")
    decoding = found.add_argument_group("decoding, by the names of transformers' GenerationConfig; greedy by default")
    for name, text in options.HELP.items():
        decoding.add_argument(f"--{name}", metavar="VALUE", help=text)
    return found


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line, its options of decoding as `decoding`; a `ParamsError` of one line for what cannot be."""
    words = [_with_underscores(word) for word in given]
    command = parser()
    found, left = command.parse_known_args(words)
    own = [action.dest for action in command._actions if action.dest not in (*options.HELP, "help")]
    for word in left:
        if not word.startswith("--"):
            raise ParamsError(f"{word[:100]}: what is this? An option's value that has spaces needs quotes")
        raise ParamsError(options.unknown(word[2:].partition("=")[0], own))
    for name in ("batch_size", "max_prompts"):
        if (value := getattr(found, name)) is not None and value < 1:
            raise ParamsError(f"--{name}: must be at least 1, got {value}")
    if not 0 <= found.seed <= LARGEST_INT:
        raise ParamsError(f"--seed: must be from 0 to {LARGEST_INT}, got {found.seed}")
    evaluate = read("evaluate", EvaluateParams)
    decoding = {name: text for name in options.HELP if (text := getattr(found, name)) is not None}
    found.decoding = options.read(decoding, evaluate.max_new_tokens)
    found.batch_size = found.batch_size or evaluate.per_device_eval_batch_size
    found.source = _source(found.model)
    found.scores = [entry for entry in found.scores.split(",") if entry]
    try:
        found.sources = [parse(entry) for entry in found.scores]
    except ValueError as fault:
        raise ParamsError(str(fault).replace("reward_funcs", "--scores", 1)) from None
    for number, entry in enumerate(found.scores):
        if _same(found.sources[number]) in map(_same, found.sources[:number]):
            raise ParamsError(f"--scores: {entry} is there twice; its numbers would be the same; name it once")
    return found


def _same(source: RewardSource) -> RewardSource:
    """The source, with one spelling of a directory."""
    is_path = source.kind == "directory"
    return dataclasses.replace(source, location=os.path.realpath(source.location)) if is_path else source


def _source(name: str) -> RewardSource:
    """The directory or hub model that answers; a `ParamsError` where the name can be neither."""
    try:
        found = parse(name)
    except ValueError as fault:
        if "must be pinned" in str(fault):
            raise ParamsError(f"{name}: {str(fault).partition(': ')[2]}") from None
        raise ParamsError(f"{name}: no such directory; name one such as models/dpo, or owner/name@<commit>") from None
    if found.kind == "function":
        raise ParamsError(f"{name}: a function gives no answers; name a model such as models/dpo")
    return found


def _with_underscores(word: str) -> str:
    """An option with the signs that transformers' names have: --num-beams=4 is --num_beams=4."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") and len(word) > 2 else word


def main(given: Sequence[str] | None = None) -> None:
    """Read, answer, score, write, and print the summary."""
    found = arguments(sys.argv[1:] if given is None else given)
    write = table.writer(found.out, prompts.named(found.prompts))
    asked = prompts.read(found.prompts, found.prompt_column, found.reference_column, found.max_prompts)
    compute = read("compute", ComputeParams)
    environment.prepare(offline=all(source.kind != "hub" for source in (found.source, *found.sources)))
    with unfinished.held(found.out) as part:
        with environment.importing():
            from rlhf_lib.answering import run
        try:
            rows, lines = run.answered(found, asked, compute, part)
        except KeyboardInterrupt:
            print(f"\ninterrupted; the same command goes on with what {part} has", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            if (told := outer_fault(error)) and told.startswith("not enough memory"):
                raise ParamsError("not enough memory; lower --batch_size or --max_new_tokens") from None
            raise
        with unfinished.telling(found.out):
            write(found.out, rows)
        part.write_text("")
    print("\n".join([f"{found.model} on {found.prompts}: {found.out}", *lines]))


if __name__ == "__main__":
    main()
