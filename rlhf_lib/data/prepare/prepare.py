"""From rows to splits with flat memory: texts go through a scratch file; only what decides on a split is kept.

1. every row is cleaned, in worker processes, into the scratch file;
2. `split.assign` gives each its split, from the hashes of the prompts;
3. the scratch file is read once more, and each row's records are written to the files of its split.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, TextIO

from tqdm import tqdm

from rlhf_lib.common.chunks import chunks
from rlhf_lib.common.files import replacing
from rlhf_lib.common.rows import EXCERPT, Row
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.parallel import ordered_map
from rlhf_lib.data.prepare import thumbs
from rlhf_lib.data.prepare.clean import Dropped, clean_lines, question
from rlhf_lib.data.prepare.derive import why_no_pair
from rlhf_lib.data.prepare.entries import Entry, SourceInfo
from rlhf_lib.data.prepare.length import tokenizer_file
from rlhf_lib.data.prepare.merge import merged
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.records import FILES, Recipe, recipes, records
from rlhf_lib.data.prepare.roles import PREFERENCES, check_mixture, settle, uses
from rlhf_lib.data.prepare.split import assign
from rlhf_lib.data.prepare.tally import Tally, count

CHUNK = 128  # rows that go to a worker process at once


def prepare(raw: Path, splits: Path, rejected: Path, params: PrepareParams) -> dict[str, Any]:
    """Write the files of `splits` and the file `rejected` from those of `raw`; returns metrics/data.json.

    A file has no rows where no source is for it. A `ParamsError` of one line, and no file, where one to learn from or
    to test on has none although a source is.
    """
    loaded = read_sources(raw / "sources.json")
    sources = [SourceInfo(**{**source, "rank": rank}) for rank, source in enumerate(loaded["sources"])]
    check_mixture(params, sources)
    if params.tokenizer_name_or_path and (params.max_prompt_tokens or params.max_response_tokens):
        # here once, and not in every worker
        file = tokenizer_file(params.tokenizer_name_or_path, params.tokenizer_revision)
        params = replace(params, tokenizer_name_or_path=str(Path(file).parent))
    tally = Tally()
    splits.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        log = stack.enter_context(replacing(rejected))
        with open(raw / "rejected.jsonl", encoding="utf-8") as of_load:
            shutil.copyfileobj(of_load, log)
        scratch = stack.enter_context(tempfile.TemporaryFile(dir=splits))
        entries = list(clean_rows(raw / "rows.jsonl", scratch, params, sources, tally, log))
        sources = with_roles(sources, entries, params)
        assign(entries, params)
        recipe = recipes(sources, entries, params)
        files = {name: stack.enter_context(replacing(splits / f"{name}.jsonl")) for name in FILES}
        write_records(entries, scratch, files, recipe, tally, log)
        wanted = {use for source in sources for use in uses(source.roles)}
        if fault := thumbs.fault(sources, entries) or tally.fault(params, wanted):
            raise ParamsError(f"{PARAMS_FILE}: {fault}")
        for name in FILES:
            if not tally.files[name].prompts:
                files[name].write("\n")  # as write_jsonl has it
        if log.tell() == 0:
            log.write("\n")
    return tally.report(params, recipe, loaded["rejected"])


def read_sources(path: Path) -> dict[str, Any]:
    """What `load` wrote about the sources, and the counts of what it rejected."""
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: cannot be read ({error}); run dvc repro load") from None
    return loaded


def with_roles(sources: Sequence[SourceInfo], entries: Sequence[Entry], params: PrepareParams) -> list[SourceInfo]:
    """The sources with the roles that their rows have, which the entries get with them."""
    settled = settle(thumbs.settle(sources, entries, params), params)
    by_name = {source.name: source for source in settled}
    for entry in entries:
        entry.source = by_name[entry.source.name]
    return settled


def clean_rows(
    path: Path,
    scratch: IO[bytes],
    params: PrepareParams,
    sources: Sequence[SourceInfo],
    tally: Tally,
    log: TextIO,
) -> Iterator[Entry]:
    """Clean the rows of `path` into `scratch`; the entries of those that are kept."""
    by_name = {source.name: source for source in sources}
    work = ordered_map(partial(clean_lines, params), chunks(_lines(path), CHUNK), params.num_proc)
    cleaned = (item for chunk in work for item in chunk)
    for line, item in tqdm(cleaned, desc="Cleaning", unit="row", disable=None):
        tally.cleaned(item)
        for dropped in (*filter(None, [item.dropped]), *item.dropped_responses):
            _log(log, item.source, item.id, dropped)
        if not line:
            continue
        yield Entry(
            offset=scratch.tell(),
            source=by_name[item.source.partition("/")[0]],
            test=item.test,
            key=item.key,
            scores=item.scores,
            answer=item.answer,
            answers=item.answers,
            unscored=item.unscored,
            columns=item.columns,
            asked=item.asked,
            signature=item.signature,
        )
        scratch.write(line)


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():  # a file without records is a blank line
                yield f"{path}: line {number}", line


def write_records(
    entries: Sequence[Entry],
    scratch: IO[bytes],
    files: Mapping[str, TextIO],
    recipe: Mapping[str, Recipe],
    tally: Tally,
    log: TextIO,
) -> None:
    """Write the records of every entry that has a split; count the others, and why they have none."""
    for entry in tqdm(entries, desc="Writing", unit="row", disable=None):
        row = _read(scratch, entry)
        if entry.dropped:
            count(tally.dropped_rows, entry.dropped, row["source"])
            if entry.dropped not in ("merged", "not_in_mixture"):
                _log(log, row["source"], row["id"], Dropped(entry.dropped, question(row["prompt"])[:EXCERPT]))
        elif entry.split:
            if entry.merged:
                others = [_read(scratch, other) for other in entry.merged]
                row, tied = merged(row, others, recipe[entry.source.name].labels)
                for text in tied:
                    count(tally.dropped_responses, "votes_tied", row["source"])
                    _log(log, row["source"], row["id"], Dropped("votes_tied", text[:EXCERPT]))
            tally.kept(row, entry.split)
            given = list(records(row, entry.split, entry.roles, recipe[entry.source.name]))
            for name, record in given:
                tally.files[name].add(row, record)
                files[name].write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            if _lacks_pair(entry, [name for name, _ in given]):
                count(tally.no_pair, why_no_pair(row["responses"]), row["source"])


def _lacks_pair(entry: Entry, given: Sequence[str]) -> bool:
    paired = ("preference", "reward", "judge")
    wanted = {*PREFERENCES} & {*uses(entry.roles)} and str(entry.split).startswith(paired)
    return bool(wanted) and not any(name.startswith(paired) for name in given)


def _read(scratch: IO[bytes], entry: Entry) -> Row:
    scratch.seek(entry.offset)
    row: Row = json.loads(scratch.readline())  # as it was checked and written here
    return row


def _log(file: TextIO, source: str, row_id: str, dropped: Dropped) -> None:
    """A line of data/rejected.jsonl."""
    record = {"stage": "prepare", "source": source, "reason": dropped.reason, "place": row_id, "text": dropped.text}
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
