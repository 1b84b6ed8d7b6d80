"""The command once its arguments are checked: model, answers, scores, rows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlhf_lib.answering import answers as answering
from rlhf_lib.answering import policy as policies
from rlhf_lib.answering import scores
from rlhf_lib.answering.prompts import Asked
from rlhf_lib.answering.scores import Row
from rlhf_lib.answering.unfinished import Unfinished, files_in, fingerprint
from rlhf_lib.common.files import rounded
from rlhf_lib.models import hardware
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.models.templates import check_rows
from rlhf_lib.scoring.reward_model import RewardModel


def answered(
    command: argparse.Namespace, asked: Sequence[Asked], compute: ComputeParams, part: Path
) -> tuple[list[Row], list[str]]:
    """The rows of the file that is written, in the order of the prompts, and the lines of the summary."""
    hardware.use(compute)
    policy = policies.load(command.source, hardware.eval_dtype(command.bf16))
    command.decoding.check_ids(policy.model.get_input_embeddings().num_embeddings)
    functions = scores.load(command.scores, asked, command.batch_size)
    for function in functions.functions.values():
        if isinstance(function, RewardModel):
            check_rows(function.tokenizer, [one.prompt for one in asked], command.prompts)
    ids, cut = answering.encode(policy, asked, command.decoding, command.too_long == "cut")
    location = command.source.location
    inputs = fingerprint(
        [location, command.source.revision or files_in(location)],
        [ids, command.decoding.options(), command.seed, command.batch_size],
        [command.bf16, str(hardware.device())],
    )
    made = answering.decode(policy, ids, command.decoding, command.seed, command.batch_size, Unfinished(part, inputs))
    said = [
        (one, number, answer) for one, of_one in zip(asked, made, strict=True) for number, answer in enumerate(of_one)
    ]
    given = scores.score(functions, [one for one, _, _ in said], [answer for _, _, answer in said])
    rows, counts, has_ids = [], [], any("id" in one.columns for one in asked)
    for place, (one, number, answer) in enumerate(said):
        measured, found = scores.beside(answer.text, one.reference)
        named = {name: values[place] for name, values in given.items()}
        head = _head(command, one, number, has_ids)
        if command.too_long == "cut":
            head["prompt_tokens_cut"] = cut[place // command.decoding.copies]
        rows.append({**head, **_said(answer), **rounded({**named, **measured})})
        counts.append(found)
    return rows, scores.summary(rows, counts)


def _head(command: argparse.Namespace, one: Asked, number: int, has_ids: bool) -> Row:
    """What was asked: a prompt of one turn of the user's as its text, another as its messages."""
    is_text = len(one.prompt) == 1
    return {
        "row": one.number,
        **({"draw": number} if command.decoding.copies > 1 else {}),
        **({"id": one.columns.get("id")} if has_ids else {}),
        "prompt": one.prompt[0]["content"] if is_text else one.prompt,
        "reference": one.reference,
    }


def _said(answer: answering.Answer) -> Row:
    return {"answer": answer.text, "finished": answer.finished, "tokens": len(answer.ids)}
