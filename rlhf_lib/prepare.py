"""From rows to splits: cleaning, language filter, de-duplication, split by prompt, pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from rlhf_lib.language import foreign_language
from rlhf_lib.params.prepare import PrepareParams
from rlhf_lib.rows import Message, Response, Row, is_blank, normalise

FILES = (
    "sft_train",
    "sft_validation",
    "preference_train",
    "preference_validation",
    "prompts_train",
    "prompts_validation",
    "test",
)
Pair = tuple[Response, Response]
Counts = dict[str, Counter[str]]  # how many by reason, then by source
ROUNDING = 1e-9  # 7.1 - 6.6 is a gap of 0.5, whatever binary floats make of it


@dataclass(frozen=True)
class Tidied:
    """A cleaned row, why it is dropped (None: kept), and what it lost on the way."""

    row: Row
    dropped: str | None
    dropped_responses: list[str]
    prompt_language: str | None
    response_languages: list[str]


@dataclass
class Prepared:
    """The records of each file, their scores, and the counts for the metrics."""

    files: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in FILES})
    scores: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {name: [] for name in FILES})
    split_prompts: Counter[str] = field(default_factory=Counter)
    rows_in: int = 0
    dropped_rows: Counts = field(default_factory=dict)
    dropped_responses: Counts = field(default_factory=dict)
    no_pair: Counts = field(default_factory=dict)
    foreign_prompts: Counter[str] = field(default_factory=Counter)
    foreign_responses: Counter[str] = field(default_factory=Counter)


def prepare(rows: Iterable[Row], params: PrepareParams) -> Prepared:
    """The splits of `rows`; which split a row is in depends on its prompt and `seed` alone."""
    done = Prepared()
    seen: set[str] = set()
    for row in rows:
        done.rows_in += 1
        tidied = tidy(row, params)
        prompt = normalise(tidied.row["prompt"])
        dropped = tidied.dropped or ("duplicate_prompt" if prompt in seen else None)
        _count(done, tidied, dropped)
        if dropped is None:
            seen.add(prompt)
            _add(done, tidied.row, split_of(prompt, params), params)
    return done


def clean_text(text: str) -> str:
    r"""`text` with lines ended by \n and no blank space around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def tidy(row: Row, params: PrepareParams) -> Tidied:
    """`row` cleaned, without its empty, foreign and repeated responses."""
    prompt: list[Message] = [{"role": m["role"], "content": clean_text(m["content"])} for m in row["prompt"]]
    kept: list[Response] = []
    reasons: list[str] = []
    languages: list[str] = []
    for response in row["responses"]:
        text = clean_text(response["content"])
        if is_blank(text):
            reasons.append("empty_response")
        elif language := foreign_language(text, params.languages, params.language_confidence):
            reasons.append("foreign_response")
            languages.append(language)
        elif any(text == earlier["content"] for earlier in kept):
            reasons.append("duplicate_response")
        else:
            kept.append({"content": text, "score": float(response["score"])})
    asked = question(prompt)
    language = foreign_language(asked, params.languages, params.language_confidence)
    dropped = "empty_prompt" if is_blank(asked) else "foreign_prompt" if language else None if kept else "no_response"
    clean: Row = {"id": row["id"], "source": row["source"], "prompt": prompt, "responses": kept}
    return Tidied(clean, dropped, reasons, language, languages)


def question(prompt: Sequence[Message]) -> str:
    """The last message of the user; empty where there is none."""
    return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")


def split_of(normalised_prompt: str, params: PrepareParams) -> str:
    """The split of a prompt: "test", or "sft" or "preference" with "_train" or "_validation".

    A threshold on a hash of the seed and the prompt, so that it depends on no other row. The test split comes
    first: other shares of sft and preference leave it as it is. Validation has bits of its own, for the same reason.
    """
    digest = blake2b(f"{params.seed}\n{normalised_prompt}".encode(), digest_size=16).digest()
    place, held = (int.from_bytes(half, "big") / 2**64 for half in (digest[:8], digest[8:]))
    if place < params.test_share:
        return "test"
    part = "sft" if place < params.test_share + params.sft_share else "preference"
    return f"{part}_validation" if held < params.validation_share else f"{part}_train"


def pairs(row: Row, rule: str, min_gap: float) -> list[Pair]:
    """(chosen, rejected) pairs whose scores differ by at least `min_gap`, and by more than 0.

    `best_vs_worst`: at most one pair, of the first best and the first worst; `all`: every pair.
    """
    responses = row["responses"]
    if rule == "all":
        candidates = [(better, worse) for better in responses for worse in responses]
    elif responses:
        candidates = [(max(responses, key=_score), min(responses, key=_score))]
    else:
        candidates = []
    return [(better, worse) for better, worse in candidates if _wide(_score(better) - _score(worse), min_gap)]


def why_no_pair(row: Row) -> str:
    """The reason that a row gave no pair."""
    scores = [_score(response) for response in row["responses"]]
    if len(scores) < 2:
        return "single_response"
    return "gap_too_small" if _wide(max(scores) - min(scores), 0.0) else "tie"


def sft_rows(row: Row, which: str, min_score: float | None) -> list[Response]:
    """The responses to learn from: the first `best`, `all`, or those with a score of at least `min_score`."""
    responses = row["responses"]
    if which == "best":
        return [max(responses, key=_score)] if responses else []
    if which == "all":
        return list(responses)
    if min_score is None:
        raise ValueError("sft_min_score: needed for above_score")
    return [response for response in responses if _score(response) >= min_score]


def report(done: Prepared, params: PrepareParams, rejected: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """metrics/data.json: counts of rows, responses and prompts; scores in the units of the source."""
    return {
        "rows_in": done.rows_in,
        "rows_kept": done.split_prompts.total(),
        "rejected_by_load": rejected,
        "dropped_rows": done.dropped_rows,
        "dropped_responses": done.dropped_responses,
        "prompts_without_pair": done.no_pair,
        "language": {
            "confidence": params.language_confidence,
            "kept": " ".join(params.languages) or "any",
            "foreign_prompts": done.foreign_prompts,
            "foreign_responses": done.foreign_responses,
        },
        "splits": {name: _summary(done.files[name], done.scores[name]) for name in FILES},
    }


def empty_split(done: Prepared, params: PrepareParams) -> str | None:
    """What to change where a file would be empty, as "<section>.<field>: ..."; None where none is."""
    if not done.split_prompts:
        lost = ", ".join(f"{reason} {counts.total()}" for reason, counts in sorted(done.dropped_rows.items()))
        param = "prepare.languages" if "foreign_prompt" in done.dropped_rows else "load.source"
        return f"{param}: no row of {done.rows_in} is left (dropped: {lost or 'none'}); keep more"
    for name in FILES:
        if not done.files[name]:
            return _way_out(name, done, params)
    return None


def _way_out(name: str, done: Prepared, params: PrepareParams) -> str:
    prompts = done.split_prompts
    split = name.replace("prompts", "preference")
    part, _, half = split.partition("_")
    if not prompts[split]:
        share = "validation_share" if any(other.startswith(part) for other in prompts) else f"{part}_share"
        change = "lower" if (share, half) == ("validation_share", "train") else "raise"
        return f"prepare.{share}: none of {prompts.total()} prompts fell into {name}; {change} it, or load more rows"
    if name.startswith("sft"):
        return f"prepare.sft_min_score: no response in {name} reaches {params.sft_min_score}; lower it"
    lost = ", ".join(f"{reason} {counts.total()}" for reason, counts in sorted(done.no_pair.items()))
    return f"prepare.min_score_gap: no pair in {name} (prompts without one: {lost}); lower it, or load more rows"


def _add(done: Prepared, row: Row, split: str, params: PrepareParams) -> None:
    """Put the records of a kept row into the files of its split."""
    done.split_prompts[split] += 1
    part, _, half = split.partition("_")
    if part == "test":
        done.files[split].append(dict(row))
        done.scores[split].extend({"score": _score(response)} for response in row["responses"])
    elif part == "sft":
        for number, response in enumerate(sft_rows(row, params.sft_responses, params.sft_min_score)):
            done.files[split].append({**_head(row, number), "completion": _said(response)})
            done.scores[split].append({"score": _score(response)})
    else:
        done.files[f"prompts_{half}"].append(_head(row))
        _add_pairs(done, row, split, params)


def _add_pairs(done: Prepared, row: Row, split: str, params: PrepareParams) -> None:
    found = pairs(row, params.pair_rule, params.min_score_gap)
    for number, (chosen, rejected) in enumerate(found):
        scores = {"score_chosen": _score(chosen), "score_rejected": _score(rejected)}
        record = {**_head(row, number), "chosen": _said(chosen), "rejected": _said(rejected), **scores}
        done.files[split].append(record)
        done.scores[split].append({**scores, "score_gap": _score(chosen) - _score(rejected)})
    if not found:
        _tally(done.no_pair, why_no_pair(row), row["source"])


def _head(row: Row, number: int | None = None) -> dict[str, Any]:
    """The keys that the records of every file share; `number` keeps ids distinct where a row gives several."""
    record_id = row["id"] if number is None else f"{row['id']}-{number}"
    return {"id": record_id, "source": row["source"], "prompt": row["prompt"]}


def _count(done: Prepared, tidied: Tidied, dropped: str | None) -> None:
    """Count what a row lost; the responses of a dropped row are not counted, they went with it."""
    source = tidied.row["source"]
    if tidied.prompt_language:
        done.foreign_prompts[tidied.prompt_language] += 1
    if dropped:
        _tally(done.dropped_rows, dropped, source)
    if dropped in (None, "no_response"):
        for reason in tidied.dropped_responses:
            _tally(done.dropped_responses, reason, source)
        done.foreign_responses.update(tidied.response_languages)


def _tally(counts: Counts, key: str, source: str) -> None:
    counts.setdefault(key, Counter())[source] += 1


def _summary(records: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    means = {f"mean_{key}": sum(score[key] for score in scores) / len(scores) for key in (scores[0] if scores else ())}
    return {
        "prompts": len({record["id"].partition("-")[0] for record in records}),
        "rows": len(records),
        "rows_by_source": Counter(record["source"] for record in records),
        **means,
    }


def _said(response: Response) -> list[Message]:
    return [{"role": "assistant", "content": response["content"]}]


def _score(response: Response) -> float:
    return response["score"]


def _wide(gap: float, min_gap: float) -> bool:
    return gap > ROUNDING and gap >= min_gap - ROUNDING
