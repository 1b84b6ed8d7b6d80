"""Small rows, their sources and params, and runs of stage `prepare` that may leave a file empty."""

from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

from rlhf_lib.common.rows import Row, make_row, normalise, write_jsonl
from rlhf_lib.data.prepare import prepare
from rlhf_lib.data.prepare.entries import Entry, SourceInfo
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.records import FILES, recipes
from rlhf_lib.data.prepare.split import assign
from rlhf_lib.data.prepare.tally import Tally

ROLES = ("sft", "preference", "prompts")
PARAMS = PrepareParams(
    mixture={},
    languages=[],
    language_confidence=0.5,
    drop_patterns=[],
    tokenizer_name_or_path=None,
    tokenizer_revision=None,
    max_prompt_tokens=None,
    max_response_tokens=None,
    min_response_chars=None,
    too_long="drop",
    pair_rule="all",
    max_pairs=None,
    min_score_gap=0.0,
    min_score_ratio=None,
    group_size=None,
    target_range=[0.0, 1.0],
    sft_responses="all",
    sft_min_score=None,
    sft_share=0.35,
    reward_share=None,
    preference_share=0.35,
    judge_share=0.1,
    validation_share=0.3,
    test_share=0.2,
    upstream_test=True,
    minhash_threshold=None,
    num_proc=1,
    seed=0,
)
FRENCH = "Quelle est la capitale de la France et combien d'habitants compte-t-elle aujourd'hui ?"


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def responses(*scored: tuple[str, float | None]) -> list[Any]:
    return [{"content": text, "score": score} for text, score in scored]


def row(
    prompt: str | list[Any] = "Is it so?", *scored: tuple[str, float | None], source: str = "s", test: bool = False
) -> Row:
    """A row; with the responses yes (8) and no (3) where none are given."""
    messages = user(prompt) if isinstance(prompt, str) else prompt
    made = make_row(source, messages, responses(*(scored or [("yes", 8.0), ("no", 3.0)])))
    made["split"] = "test" if test else "train"
    return made


def source(
    name: str = "s",
    rank: int = 0,
    roles: Sequence[str] = ROLES,
    labels: bool = False,
    merges: bool = False,
    score_range: Sequence[float] | None = None,
) -> SourceInfo:
    return SourceInfo(name, rank, roles, labels, merges, score_range)


def as_loaded(sources: Sequence[SourceInfo]) -> dict[str, Any]:
    """What is in data/raw/sources.json."""
    described = [asdict(info) for info in sources]
    for fields in described:
        del fields["rank"]
    return {"sources": described, "rejected": {}}


class Run(NamedTuple):
    """The records of each file, the lines of the log, the counts, and the rows that were cleaned, in their order."""

    files: dict[str, list[Any]]
    log: list[Any]
    tally: Tally
    entries: list[Entry]


def run(rows: Sequence[Row], params: PrepareParams = PARAMS, *sources: SourceInfo) -> Run:
    """What `prepare` makes of rows, by default of one source; a file may be empty."""
    infos: Sequence[SourceInfo] = sources or (source(),)
    tally, log, files = Tally(), StringIO(), {name: StringIO() for name in FILES}
    with TemporaryDirectory() as folder, TemporaryFile() as scratch:
        write_jsonl(Path(folder) / "rows.jsonl", rows)
        entries = list(prepare.clean_rows(Path(folder) / "rows.jsonl", scratch, params, infos, tally, log))
        infos = prepare.with_roles(infos, entries, params)
        assign(entries, params)
        prepare.write_records(entries, scratch, files, recipes(infos, entries, params), tally, log)
    return Run({name: _lines(text) for name, text in files.items()}, _lines(log), tally, entries)


def _lines(text: StringIO) -> list[Any]:
    return [loads(line) for line in text.getvalue().split("\n")[:-1]]


def part_of(file: str, params: PrepareParams = PARAMS) -> str:
    """The part of the prompts, and which half of it, that a file is made of: sft_train, test."""
    name, _, half = file.partition("_")
    if name == "test":
        return name
    own = {"sft": params.sft_share, "reward": params.reward_share, "groups": params.reward_share, "judge": True}
    part = {"groups": "reward"}.get(name, name) if own.get(name) else "preference"
    return f"{part}_{half}"


def places(files: dict[str, list[Any]], params: PrepareParams = PARAMS) -> dict[str, set[str]]:
    """The parts in which each normalised prompt lies."""
    found: dict[str, set[str]] = {}
    for name, records in files.items():
        for record in records:
            found.setdefault(normalise(record["prompt"]), set()).add(part_of(name, params))
    return found
