"""What becomes of the rows at hand: a bounded sample goes through `load` and `prepare`, in a scratch folder."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_lib.check.at_hand import folder
from rlhf_lib.check.together import START
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams
from rlhf_lib.data.prepare import sizes
from rlhf_lib.data.prepare.language import check_languages
from rlhf_lib.data.prepare.length import load_tokens
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.prepare import prepare

RECORDS = 400  # of a source

Count = Callable[[str], int]


class Sample(NamedTuple):
    """Rows of every split, from the first records of the sources at hand.

    whole: whether these are all the records of all sources.
    metrics: what prepare counted. fault: why it stopped, if it did.
    """

    splits: Mapping[str, Sequence[Any]]
    whole: bool
    metrics: Mapping[str, Any]
    fault: str | None = None


def sample(load_params: LoadParams, prepare_params: PrepareParams) -> Sample | None:
    """The rows of the sources at hand; None where there are none.

    A `SystemExit` of one line for a file or a language that is none.
    """
    local = [source for source in load_params.sources if source.path or source.reader == "demo"]
    if not local:
        return None
    try:
        check_languages(prepare_params.languages)
    except ValueError as error:
        raise ParamsError(f"{PARAMS_FILE}: prepare.languages: {error}") from None
    names = {source.name for source in local}
    cut = [replace(source, max_records=min(source.max_records or RECORDS, RECORDS)) for source in local]
    instructions = min(load_params.instructions, RECORDS)
    mixture = {name: entry for name, entry in prepare_params.mixture.items() if name in names}
    of_prepare = replace(prepare_params, mixture=mixture, num_proc=1)
    if of_prepare.tokenizer_name_or_path and not _tokens_at_hand(of_prepare):
        of_prepare = replace(of_prepare, max_prompt_tokens=None, max_response_tokens=None)
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        raw, splits = Path(scratch, "raw"), Path(scratch, "splits")
        load(raw, replace(load_params, sources=cut, instructions=instructions, num_proc=1))
        records = _records(raw)
        whole = len(local) == len(load_params.sources) and all(count < RECORDS for count in records.values())
        try:
            metrics = prepare(raw, splits, Path(scratch, "rejected.jsonl"), of_prepare)
        except ParamsError as fault:
            return Sample({}, whole, {}, str(fault).removeprefix(f"{PARAMS_FILE}: "))
        return Sample({file.stem: _read(file) for file in splits.glob("*.jsonl")}, whole, metrics)


def faults(sections: Mapping[str, Any], rows: Sample) -> Iterator[str]:
    """What the params make of the rows that cannot be meant, `section.key: ...`."""
    if rows.fault is not None:
        # of a part of the rows it says nothing: the rest may fill the split
        yield from [rows.fault] if rows.whole else []
        return
    metrics, prepared = rows.metrics, sections["prepare"]
    for reason, limit in (("prompt_too_long", "max_prompt_tokens"), ("response_too_long", "max_response_tokens")):
        counts = metrics["dropped_rows"] if reason.startswith("prompt") else metrics["dropped_responses"]
        lost = sum(counts.get(reason, {}).values())
        if lost > metrics["rows_in"] / 2:
            what = f"of the first {metrics['rows_in']} rows {lost} {reason.partition('_')[0]}s are dropped"
            yield f"prepare.{limit}: {what}, as longer than {getattr(prepared, limit)} tokens; raise it"
    yield from _too_long(sections, rows.splits)


def notes(sections: Mapping[str, Any], rows: Sample) -> Iterator[str]:
    """What the params make of few rows, or leave out, which works but may not be meant."""
    if rows.fault is not None:
        return
    yield from (remark for remark in sizes.remarks(rows.metrics) if rows.whole or remark.startswith("left out"))
    if not rows.whole:
        return
    files = {"sft": "sft_train", "reward": "reward_train", "judge": "judge_train", "dpo": "preference_train"}
    for name, file in files.items():
        size = sections[name].per_device_train_batch_size
        if size > (found := len(rows.splits[file])) > 0:  # without rows the stage is left out, which is told
            yield f"{name}.per_device_train_batch_size: {size}, but there are {found} rows to train on"
    prompts = sections["ppo"].rollout_batch_size // sections["ppo"].num_generations
    if prompts > (found := len(rows.splits["prompts_train"])) > 0:
        yield f"ppo.rollout_batch_size: {prompts} prompts a rollout, but there are {found}: they repeat within it"


def _too_long(sections: Mapping[str, Any], splits: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Lengths with which more than half of the rows are dropped, or lose their whole answer."""
    base = sections["base"]
    of_base = _counter(base.model_name_or_path, base.model_revision)
    for name, file in (("sft", "sft_train"), ("reference", "preference_train")):
        limit, rows = sections[name].max_length, splits[file]
        lost = sum(_length(row["prompt"], of_base) >= limit for row in rows)
        if lost > len(rows) / 2:
            yield f"{name}.max_length: {lost} of the first {len(rows)} prompts fill its {limit} tokens; raise it"
    for name in ("reward", "judge"):
        limit, rows = sections[name].max_length, splits[f"{name}_train"]
        source = sections[name].source
        count = of_base if source.location in START else _counter(source.location, source.revision)
        longest = (max(_length(row["prompt"] + row[key], count) for key in ("chosen", "rejected")) for row in rows)
        lost = sum(length > limit for length in longest)
        if lost > len(rows) / 2:
            yield f"{name}.max_length: {lost} of the first {len(rows)} pairs are longer than {limit} tokens; raise it"


def _length(messages: Sequence[Any], count: Count) -> int:
    return sum(count(message["content"]) for message in messages)


def _words(text: str) -> int:
    """A lower bound on the tokens: the tokenizers here split at spaces first."""
    return len(text.split())


def _counter(name: str | None, revision: str | None) -> Count:
    """Counts the tokens of a model that is at hand, else words."""
    place = folder(name, revision, "tokenizer.json") if name else None
    if place is None or not (place / "tokenizer.json").is_file():
        return _words
    try:
        return load_tokens(str(place), None).count_text
    except ParamsError:
        return _words  # the check of the tokenizers tells


def _tokens_at_hand(params: PrepareParams) -> bool:
    place = folder(str(params.tokenizer_name_or_path), params.tokenizer_revision, "tokenizer.json")
    return place is not None and (place / "tokenizer.json").is_file()


def _records(raw: Path) -> dict[str, int]:
    """How many records of each source were read, about: each gave a row or a line of what is rejected, at least."""
    counts: dict[str, int] = {}
    for name in ("rows.jsonl", "rejected.jsonl"):
        for record in _read(raw / name):
            source = record["source"].partition("/")[0]
            counts[source] = counts.get(source, 0) + 1
    return counts


def _read(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
