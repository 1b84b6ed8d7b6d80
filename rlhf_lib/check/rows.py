"""What becomes of the rows at hand: a bounded sample goes through `load` and `prepare`, in a scratch folder."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_lib.check.at_hand import folder
from rlhf_lib.check.together import START
from rlhf_lib.common.fitting import MANY, Fit
from rlhf_lib.common.rows import read_values
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.lengths import ANSWERS, Lengths, advice, fits, measure
from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams, SourceParams
from rlhf_lib.data.prepare import sizes
from rlhf_lib.data.prepare.language import check_languages
from rlhf_lib.data.prepare.length import load_tokens
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.prepare import prepare
from rlhf_lib.reward.params import GROUPS

RECORDS = 400  # of a source

Count = Callable[[str], int]


class Sample(NamedTuple):
    """Rows of every split, from the first records of the sources at hand.

    whole: whether these are all the records of all sources. responses: how many came into prepare.
    metrics: what prepare counted. fault: why it stopped, if it did.
    """

    splits: Mapping[str, Sequence[Any]]
    whole: bool
    responses: int
    metrics: Mapping[str, Any]
    fault: str | None = None


def sample(load_params: LoadParams, prepare_params: PrepareParams) -> Sample | None:
    """The rows of the sources at hand; None where there are none, or where the first ones say nothing of the others.

    A `SystemExit` of one line for a file or a language that is none.
    """
    local = [source for source in load_params.sources if _is_local(source)]
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
        try:
            load(raw, replace(load_params, sources=cut, instructions=instructions, num_proc=1))
        except SystemExit:
            # a row that can be used, or a column that the params map, may come later
            load(raw, replace(load_params, sources=local))
            return None
        records = _records(raw)
        responses = sum(len(row["responses"]) for row in read_values(raw / "rows.jsonl"))
        whole = len(local) == len(load_params.sources) and all(count < RECORDS for count in records.values())
        try:
            metrics = prepare(raw, splits, Path(scratch, "rejected.jsonl"), of_prepare)
        except ParamsError as fault:
            return Sample({}, whole, responses, {}, str(fault).removeprefix(f"{PARAMS_FILE}: "))
        return Sample(
            {file.stem: list(read_values(file)) for file in splits.glob("*.jsonl")}, whole, responses, metrics
        )


def faults(sections: Mapping[str, Any], rows: Sample) -> Iterator[str]:
    """What the params make of the rows that cannot be meant, `section.key: ...`."""
    if rows.fault is not None:
        # of a part of the rows it says nothing: the rest may fill the split
        yield from [rows.fault] if rows.whole else []
        return
    if not all(map(_is_local, sections["load"].sources)):
        return  # most of the rows may be on the hub
    metrics, prepared = rows.metrics, sections["prepare"]
    for what, dropped, count in (
        ("prompt", metrics["dropped_rows"], metrics["rows_in"]),
        ("response", metrics["dropped_responses"], rows.responses),
    ):
        lost = sum(dropped.get(f"{what}_too_long", {}).values())
        if lost > count / 2:
            limit = f"max_{what}_tokens"
            told = f"{lost} of the first {count} {what}s are dropped, as longer than {getattr(prepared, limit)} tokens"
            yield f"prepare.{limit}: {told}; raise it"
    yield from _too_long(sections, rows.splits)


def notes(sections: Mapping[str, Any], rows: Sample) -> Iterator[str]:
    """What the params make of few rows, or leave out, which works but may not be meant."""
    if rows.fault is not None:
        return
    if all(map(_is_local, sections["load"].sources)):  # what is on the hub may give what the others do not
        yield from (remark for remark in sizes.remarks(rows.metrics) if rows.whole or remark.startswith("left out"))
        yield from _cut_off(sections, rows.splits)
    if not rows.whole:
        return
    of_reward = "groups_train" if sections["reward"].kind in GROUPS else "reward_train"
    files = {"sft": "sft_train", "reward": of_reward, "judge": "judge_train"}
    files |= {"dpo": "preference_train"} if sections["methods"].dpo else {}
    files |= {"kto": "thumbs_train"} if sections["methods"].kto else {}
    for name, file in files.items():
        size = sections[name].per_device_train_batch_size
        if size > (found := len(rows.splits[file])) > 0:  # of none, the stage leaves itself out
            yield f"{name}.per_device_train_batch_size: {size}, but there are {found} rows to train on"
    prompts = sections["ppo"].rollout_batch_size // sections["ppo"].num_generations
    if sections["methods"].ppo and prompts > (found := len(rows.splits["prompts_train"])) > 0:
        yield f"ppo.rollout_batch_size: {prompts} prompts a rollout, but there are {found}: they repeat within it"


def _cut_off(sections: Mapping[str, Any], splits: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Answers of which more than a fifth are longer than what is sampled; nothing where the sample has longer ones
    than prepare will let through."""
    if sections["prepare"].max_response_tokens and not _tokens_at_hand(sections["prepare"]):
        return
    length = Lengths(sections["base"], sections["prepare"])
    answers = length([row["completion"][0]["content"] for row in splits["sft_train"]])
    for limit, fit in fits(sections, {"sft_train": {ANSWERS: answers}}):
        if fit.share > MANY:
            yield advice(limit, fit)


def _is_local(source: SourceParams) -> bool:
    return bool(source.path) or source.reader == "demo"


def _too_long(sections: Mapping[str, Any], splits: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Lengths with which more than half of the rows are dropped, or lose their whole answer."""
    base = sections["base"]
    of_base = _counter(base.model_name_or_path, base.model_revision)
    files = {"sft": "sft_train"}
    files |= {"reference": "preference_train"} if sections["methods"].dpo else {}
    files |= {"kto": "thumbs_train"} if sections["methods"].kto else {}
    for name, file in files.items():
        limit, rows = sections[name].max_length, splits[file]
        lost = sum(_length(row["prompt"], of_base) >= limit for row in rows)
        if lost > len(rows) / 2:
            told = f"{name}.max_length: {lost} of the first {len(rows)} prompts fill its {limit} tokens"
            yield f"{told}; {_way_out(sections, rows, limit)}"
    for name in ("reward", "judge"):
        limit, source = sections[name].max_length, sections[name].source
        count = of_base if source.location in START else _counter(source.location, source.revision)
        if sections[name].kind in GROUPS:
            what, rows = "answers", splits["groups_train"]
            longest = [_length([*row["prompt"], answer], count) for row in rows for answer in row["responses"]]
        else:
            what, rows = "pairs", splits[f"{name}_train"]
            longest = [max(_length(row["prompt"] + row[key], count) for key in ("chosen", "rejected")) for row in rows]
        lost = sum(length > limit for length in longest)
        if lost > len(longest) / 2:
            first = f"{lost} of the first {len(longest)} {what}"
            yield f"{name}.max_length: {first} are longer than {limit} tokens; {_way_out(sections, rows, limit)}"


def _way_out(sections: Mapping[str, Any], rows: Sequence[Any], limit: int) -> str:
    """What limit would hold most of these rows, as far as tokens can be counted or estimated here."""
    length = Lengths(sections["base"], sections["prepare"])
    around, measured = length.around(), [measure(row, length) for row in rows]
    fit = Fit.of((asked + max(answered) + around for asked, answered in measured), limit)
    about = "about " if length.tokenizer is None else ""
    return f"raise it to {about}{fit.enough:,}, or set prepare.max_prompt_tokens and max_response_tokens lower"


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
        for record in read_values(raw / name):
            source = record["source"].partition("/")[0]
            counts[source] = counts.get(source, 0) + 1
    return counts
