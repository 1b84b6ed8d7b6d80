"""Every source's records as rows of the one row type: data/raw."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Flag, auto
from functools import partial, reduce
from itertools import islice
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from rlhf_lib.common.chunks import chunks
from rlhf_lib.common.files import replacing, write_json
from rlhf_lib.common.rows import EXCERPT, Row
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.terminal import visible
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.load import columns, files, hub, reward_columns
from rlhf_lib.data.load.demo import build_rows
from rlhf_lib.data.load.params import LoadParams, SourceParams
from rlhf_lib.data.load.reader import Reader, Record, Rejected
from rlhf_lib.data.load.readers import READERS, score_range
from rlhf_lib.data.load.roles import Fault
from rlhf_lib.data.parallel import ordered_map

CHUNK = 64  # records that go to a worker process at once
MAX_LAYOUTS = 1000  # of a source: objects may have any keys
MISREAD = {"choice_beyond_last", "label_is_a_grade"}  # reasons that put other rows in doubt too

Layout = tuple[str, ...]  # the columns of a record


class Has(Flag):
    """What there is in the rows of a source."""

    RESPONSES = auto()
    SCORES = auto()
    GRADES = auto()  # scores other than 1 and 0, which only say what was preferred


class Parsed(NamedTuple):
    """What became of some records."""

    rows: list[str]  # lines of JSON
    rejected: list[dict[str, str]]
    has: Has
    held_out: int  # rows that are for the test
    layouts: list[Layout]  # each once, in the order of their first records


def load(out: Path, params: LoadParams) -> None:
    """Write rows.jsonl, rejected.jsonl and sources.json into `out`; after a `SystemExit` of one line, none of them."""
    described: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {}
    with replacing(out / "rows.jsonl") as rows, replacing(out / "rejected.jsonl") as rejected:
        for number, source in enumerate(params.sources):
            described.append(_load_source(number, source, params, rows, rejected, counts))
    write_json(out / "sources.json", {"sources": described, "rejected": counts})


def parse_records(source: SourceParams, records: Sequence[Record]) -> Parsed:
    """The rows of a source's records, and what is rejected; a `SystemExit` where a line is no JSON."""
    rows: list[str] = []
    rejected: list[dict[str, str]] = []
    has = Has(0)
    held_out = 0
    layouts: dict[Layout, None] = {}
    for record in records:
        value = files.parse_line(record.place, record.value) if isinstance(record.value, bytes) else record.value
        if (source.reader == "file" or source.reward_columns) and isinstance(value, dict):
            layouts[tuple(value)] = None  # JSON has texts as keys, and so has Parquet
            layouts[tuple(key for key in value if value[key] not in (None, "", []))] = None  # what it is read by
        for item in _with_columns(READERS[source.reader].parse(value, source), value, source):
            if isinstance(item, Rejected):
                rejected.append(
                    {
                        "stage": "load",
                        "source": _with_subset(item.source, record),
                        "reason": item.reason,
                        "place": record.place,
                        "text": item.text[:EXCERPT],
                    }
                )
                continue
            item["source"] = _with_subset(item["source"], record)
            if record.test or source.test:
                item["split"] = "test"
            held_out += item["split"] == "test"
            has |= _has(item)
            rows.append(json.dumps(item, ensure_ascii=False, allow_nan=False))
    return Parsed(rows, rejected, has, held_out, list(layouts))


def _with_columns(items: Iterable[Row | Rejected], value: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """What a record gave, its rows with the columns that reward functions get."""
    columns = reward_columns.read(value, source) if source.reward_columns else {}
    for item in items:
        if isinstance(item, Rejected) or not source.reward_columns:
            yield item
        elif isinstance(columns, Fault):
            yield Rejected(columns.reason, item["source"], columns.text)
        else:
            yield {**item, "columns": columns}


def _has(row: Row) -> Has:
    scores = {response["score"] for response in row["responses"]} - {None}
    found = {Has.RESPONSES: row["responses"], Has.SCORES: scores, Has.GRADES: scores - {0, 1}}
    return reduce(or_, (flag for flag, those in found.items() if those), Has(0))


def read_records(source: SourceParams, params: LoadParams) -> Iterator[Record]:
    """The records of a source as it has them; a `SystemExit` of one line where they cannot be read."""
    if source.reader == "demo":
        made = enumerate(build_rows(instructions=params.instructions, seed=params.seed), start=1)
        yield from islice((Record(f"demo: row {number}", value) for number, value in made), source.max_records)
    elif source.path is not None:
        yield from files.read(source.path, source.max_records)
    else:
        yield from hub.read(source, READERS[source.reader].hub)


def _load_source(
    number: int,
    source: SourceParams,
    params: LoadParams,
    rows: TextIO,
    rejected: TextIO,
    counts: dict[str, Counter[str]],
) -> dict[str, Any]:
    """Read one source to its end; its entry for sources.json."""
    reasons: Counter[str] = Counter()
    kept, held_out, has, first = 0, 0, Has(0), ""
    layouts: dict[Layout, None] = {}
    where = f"{PARAMS_FILE}: load.sources[{number}]"
    records = tqdm(read_records(source, params), desc=f"Loading {source.name}", unit="record", disable=None)
    for parsed in _parsed(source, records, params):
        kept, held_out, has = kept + len(parsed.rows), held_out + parsed.held_out, has | parsed.has
        layouts.update(dict.fromkeys(parsed.layouts[: MAX_LAYOUTS - len(layouts)]))
        rows.writelines(f"{line}\n" for line in parsed.rows)
        for item in parsed.rejected:
            told = _printable(f"{item['place']}: {item['reason']}: {item['text']}")
            if item["reason"] in MISREAD:
                raise ParamsError(f"{where}: {told}")
            first = first or told
            reasons[item["reason"]] += 1
            counts.setdefault(item["reason"], Counter())[item["source"]] += 1
            rejected.write(json.dumps(item, ensure_ascii=False) + "\n")
    lost = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    if not kept:
        holds = READERS[source.reader].record
        way_out = (
            f"a record of that reader has {holds}; for others, set reader: file" if holds else "check path and columns"
        )
        raise ParamsError(
            f"{where}: no usable row for reader {source.reader} "
            f"(rejected: {lost or 'none'}; first: {first or 'no record'}); {way_out}"
        )
    tested = f"; for the test: {held_out:,}" if held_out else ""
    print(f"{source.name}: {kept:,} rows{tested}" + (f"; rejected: {lost}" if lost else ""))
    if (unused := unused_columns(layouts, source, where)) and source.reader == "file":
        hint = "" if Has.RESPONSES in has else f"; no row has an answer: if one of these does, {columns.SET_COLUMNS}"
        print(visible(f"{source.name}: columns not used: {unused}{hint}"))
    good = {"name": source.name, **_good_for(READERS[source.reader], has), "score_range": score_range(source)}
    if source.reward_columns:
        good["reward_columns"] = list(source.columns_of_reward)
    return {**good, "roles": [*good["roles"], "test"]} if source.test else good


def unused_columns(layouts: Collection[Layout], source: SourceParams, where: str) -> str:
    """The columns of which nothing is read, to be printed; a `ParamsError` for one of the map that no record has."""
    seen = dict.fromkeys(column for layout in layouts for column in layout)
    maps = (("columns", source.columns), ("reward_columns", source.columns_of_reward))
    for option, name, column in ((option, *entry) for option, given in maps for entry in given.items()):
        if seen and column and not columns.roots(column, seen):
            raise ParamsError(f"{where}.{option}.{name}: no record has {column!r}; there are: {_listed(seen)}")
    read = {column for layout in layouts for column in columns.used(layout, source)}
    read |= {root for column in source.columns_of_reward.values() for root in columns.roots(column, seen)}
    return _listed(column for column in seen if column not in read)


def _listed(names: Iterable[str]) -> str:
    return textwrap.shorten(", ".join(map(_printable, names)), EXCERPT, placeholder=" ...")


def _printable(text: str) -> str:
    """A line for a terminal, which must not get what a file has of control characters."""
    return "".join(char if char.isprintable() else " " for char in text)


def _good_for(reader: Reader, has: Has) -> dict[str, Any]:
    """What the rows of a source can be used for."""
    needs = {"sft": Has.RESPONSES, "preference": Has.SCORES, "prompts": Has(0)}
    return {
        "roles": [role for role in reader.roles if needs[role] in has],
        "labels": Has.GRADES not in has,
        "merges": reader.merges,
    }


def _parsed(source: SourceParams, records: Iterable[Record], params: LoadParams) -> Iterator[Parsed]:
    try:
        yield from ordered_map(partial(parse_records, source), chunks(records, CHUNK), params.num_proc)
    except RecursionError:
        raise SystemExit(f"{source.path}: a record has lists or objects that are nested too deeply") from None


def _with_subset(name: str, record: Record) -> str:
    return f"{name}/{record.subset}" if record.subset and "/" not in name else name
