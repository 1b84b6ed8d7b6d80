"""Show what the data stages made: `make data`, or `python -m rlhf_lib.data.show --help`."""

from __future__ import annotations

import argparse
import json
import signal
import textwrap
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from rlhf_lib.check.sections import check_all, valid_sections
from rlhf_lib.common import paths
from rlhf_lib.common.few import FEW
from rlhf_lib.common.rows import stream_jsonl
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.terminal import visible
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data import lengths, made, taught
from rlhf_lib.data.prepare import sizes
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.records import FILES
from rlhf_lib.models import contract

SPLITS = Path("data/splits")
METRICS = Path("metrics/data.json")
ROWS = Path("data/raw/rows.jsonl")
WIDTH = 100
SHOWN = ("sft_train", "preference_train", "test")  # the splits of which an example is shown by default


@dataclass
class Column:
    """The lengths and scores of one source's records in one split."""

    rows: int = 0
    prompts: array[int] = field(default_factory=lambda: array("I"))
    responses: array[int] = field(default_factory=lambda: array("I"))
    dialogues: array[int] = field(default_factory=lambda: array("I"))
    scores: array[float] = field(default_factory=lambda: array("d"))
    example: str = ""


def describe(records: Iterator[dict[str, Any]], length: lengths.Lengths) -> dict[str, Column]:
    """The records of a split by source."""
    columns: dict[str, Column] = {}
    for record in records:
        column = columns.setdefault(record["source"], Column())
        found = list(lengths.answers(record))
        asked, answered = lengths.measure(record, length)
        column.rows += 1
        column.prompts.append(asked)
        column.responses.extend(answered)
        column.dialogues.append(asked + max(answered, default=0))
        column.scores.extend(score for _, score in found if score is not None)
        column.example = column.example or _example(record["prompt"], found)
    return columns


def table(name: str, columns: dict[str, Column]) -> Iterator[str]:
    """The lines of a split: one line per source, and a total if there are several."""
    for source, column in sorted(columns.items()):
        yield _line(name, source, column)
        name = ""
    if len(columns) > 1:
        yield _line("", "all", total(columns))


def total(columns: dict[str, Column]) -> Column:
    """All sources of a split together."""
    found = Column()
    for column in columns.values():
        found.rows += column.rows
        for name in ("prompts", "responses", "dialogues", "scores"):
            getattr(found, name).extend(getattr(column, name))
    return found


def dropped(metrics: dict[str, Any]) -> Iterator[str]:
    """What was not used, by reason and source."""
    groups = {
        "rejected by load": "rejected_by_load",
        "rows dropped": "dropped_rows",
        "responses dropped": "dropped_responses",
        "texts cut": "truncated",
        "prompts without a pair": "prompts_without_pair",
    }
    for title, key in groups.items():
        for reason, counts in sorted(metrics[key].items(), key=lambda item: -sum(item[1].values())):
            by_source = ", ".join(f"{source} {count:,}" for source, count in sorted(counts.items()))
            told = "not lost" if reason == "merged" else title
            yield f"  {told:24}{reason:24}{sum(counts.values()):>8,}   {textwrap.shorten(by_source, 60)}"


def sizes_told(metrics: dict[str, Any], params: PrepareParams) -> Iterator[str]:
    """The lines on what is left out or too small, and on how many prompts these shares need."""
    yield from (remark[0].upper() + remark[1:] + "." for remark in sizes.remarks(metrics))
    needed, held = sizes.needed(metrics, params), metrics["splits"]
    if needed:
        most = max(needed, key=needed.__getitem__)
        yield f"Until each held-out split has about {FEW} prompts, these shares need {needed[most]:,} prompts in all:"
        yield from (f"  {name:24}{held[name]['prompts']:>8,} now; {count:>8,} needed" for name, count in needed.items())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.data.show", description=__doc__.split(":")[0] + ".")
    parser.add_argument("--split", choices=FILES, action="append", help="only this one; may be given several times")
    parser.add_argument("--examples", action="store_true", help="an example of every split and every part of a source")
    arguments = parser.parse_args()
    try:
        metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{METRICS}: cannot be read ({error}); run dvc repro prepare first") from None
    params = load_yaml(PARAMS_FILE)
    check_all(params)
    sections = valid_sections(params)
    length = lengths.Lengths(sections["base"], sections["prepare"])
    print(f"Lengths are {length.told}.")
    print(f"{'':60}{'prompt tokens':>18}{'response tokens':>18}{'score':>16}")
    print(f"{'split':22}{'source':30}{'rows':>8}" + f"{'median':>10}{'95 %':>8}" * 2 + f"{'median':>9}{'range':>12}")
    examples: dict[tuple[str, str], str] = {}
    measured: dict[str, dict[str, array[int]]] = {}
    pairs = {name: taught.Pairs() for name in taught.SPLITS}
    for name in arguments.split or FILES:
        records = _streamed(SPLITS / f"{name}.jsonl", name)
        if name in taught.SPLITS:
            records = pairs[name].counted(records)
        columns = describe(records, length)
        if columns:
            print(*table(name, columns), sep="\n")
            of_all = total(columns)
            measured[name] = {lengths.ANSWERS: of_all.responses, lengths.ROWS: of_all.dialogues}
        for source, column in sorted(columns.items()):
            if arguments.examples or arguments.split or name in SHOWN:
                part = source if arguments.examples else source.partition("/")[0]
                examples.setdefault((name, part), f"--- {name}, {source}\n{column.example}")
    print("", *examples.values(), sep="\n")
    lost = list(dropped(metrics))
    told = "Not used (see data/rejected.jsonl):" if lost else "Nothing of them was left out."
    print(f"\nOf {metrics['rows_in']:,} rows, {metrics['rows_kept']:,} were kept. {told}")
    print(*lost, sep="\n", end="\n" if lost else "")
    if not made.otherwise(paths.BASE) and (known := contract.read(paths.BASE)):
        print("\nThe model (models/base/contract.json):")
        print(*(f"  {part:24}{told}" for part, told in known.told()), sep="\n")
    print("", *lengths.told(sections, measured, length.around()), sep="\n")
    places = {} if arguments.split or not ROWS.is_file() else taught.first_won(_streamed(ROWS, "rows"))
    if lines := list(taught.told(pairs, places)):
        print("", *lines, sep="\n")
    print("", *sizes_told(metrics, sections["prepare"]), sep="\n")


def _streamed(file: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file, with a bar where there is a terminal."""
    return iter(tqdm(stream_jsonl(file), desc=name, leave=False, disable=None))


def _line(name: str, source: str, column: Column) -> str:
    scores = f"{median(column.scores):>9.3g}{_range(column.scores):>12}" if column.scores else f"{'-':>9}{'-':>12}"
    return f"{name:22}{source[:29]:30}{column.rows:>8,}{_spread(column.prompts)}{_spread(column.responses)}{scores}"


def _spread(lengths: array[int]) -> str:
    if not lengths:
        return f"{'-':>10}{'-':>8}"
    ordered = sorted(lengths)
    return f"{median(ordered):>10,.0f}{ordered[int(0.95 * (len(ordered) - 1))]:>8,}"


def _range(scores: array[float]) -> str:
    return f"{min(scores):.3g}..{max(scores):.3g}"


def _example(prompt: Sequence[dict[str, str]], found: Sequence[tuple[str, float | None]]) -> str:
    said = [f"{message['role']}: {message['content']}" for message in prompt]
    said += [f"answer{'' if score is None else f' ({score:g})'}: {text}" for text, score in found]
    return "\n".join(textwrap.shorten(visible(text), WIDTH, placeholder=" ...") for text in said)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    main()
