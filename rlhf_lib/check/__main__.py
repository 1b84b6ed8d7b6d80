"""Say what is wrong with params.yaml and with what it names, before anything runs: `python -m rlhf_lib.check`.

A line for each fault, and exit code 1 if there is any. What needs no model is looked at in about a second; models and
tokenizers are, where they are in a directory or in the hub's cache. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlhf_lib.check import inputs, packages, rows, surroundings
from rlhf_lib.check.sections import faults, valid_sections
from rlhf_lib.check.together import START
from rlhf_lib.common import environment
from rlhf_lib.common.policies import TRAINERS
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.training import report_to

TEXTS = 20  # of the user's rows that a tokenizer must give back


def check(params: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Every fault, and every note on what works but may not be meant, of params.yaml and of what it names."""
    found = faults(params)
    sections = valid_sections(params)
    told_of = {line.split(": ")[1] for line in found}
    named = (*inputs.faults(sections), *packages.faults(sections))
    more = [line for line in named if line.partition(": ")[0] not in told_of]
    notes: list[str] = []
    texts: list[str] = []
    if not found and not more:
        sample = None
        try:
            sample = rows.sample(sections["load"], sections["prepare"])
        except SystemExit as fault:
            told = str(fault)
            more.append(
                told.removeprefix(f"{PARAMS_FILE}: ") if told.startswith(str(PARAMS_FILE)) else f"load.sources: {told}"
            )
        if sample is not None:
            more += rows.faults(sections, sample)
            notes = list(rows.notes(sections, sample))
            answers = [row["completion"][0]["content"] for row in sample.splits.get("sft_train", [])[:TEXTS]]
            texts = [text[:200] for text in answers]
    if names_models(sections):
        with environment.importing():
            from rlhf_lib.check import models
        more += models.faults(sections, texts)
    return found + [f"{PARAMS_FILE}: {fault}" for fault in more], [*notes, *unwanted_policy(params, sections)]


def unwanted_policy(params: Mapping[str, Any], sections: Mapping[str, Any]) -> Iterator[str]:
    """A note where `select` will have no numbers, as the policy that it reports is not trained."""
    policy = params.get("policy")
    if getattr(sections.get("methods"), str(policy), True) is False:
        none = f"methods.{policy} is false, so that metrics/policy.json will have no numbers"
        yield f"policy: {none}; set it to a policy that is trained"


def names_models(sections: Mapping[str, Any]) -> bool:
    """Whether a model has to be looked at: one of the user's, or a fresh one of which parts are trained."""
    parts = (sections[name] for name in TRAINERS if name in sections)
    named = [sections["base"].model_name_or_path] if "base" in sections else []
    named += [sections["prepare"].tokenizer_name_or_path] if "prepare" in sections else []
    named += [sections[n].model_name_or_path for n in ("reward", "judge") if n in sections]
    return any(part.lora_r is not None or part.freeze for part in parts) or any(
        name is not None and name not in START for name in named
    )


def tell(params: Mapping[str, Any], beside: Iterable[str] = ()) -> None:
    """Print the faults and the notes of params.yaml, and faults beside it; end the process with exit code 1 where there
    is a fault."""
    found, notes = check(params)
    found += beside
    for note in notes:
        print(f"note: {note}")
    for fault in found:
        print(" ".join(fault.split()), file=sys.stderr)
    if found:
        raise SystemExit(1)


def tell_once(params: Mapping[str, Any], hashes: Mapping[str, Any]) -> None:
    """`tell`, unless it found these params sound the last time, and the local files that they name had these hashes."""
    checked = environment.project() / "checkpoints" / "checked"
    text = json.dumps([params, hashes], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if not checked.is_file() or checked.read_text(encoding="utf-8") != digest:
        tell(params)
        checked.parent.mkdir(exist_ok=True)
        checked.write_text(digest, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m rlhf_lib.check", description=__doc__).parse_args(arguments)
    environment.prepare(offline=True)
    if told := surroundings.fault():
        raise SystemExit(told)
    tell(load_yaml(PARAMS_FILE), report_to.faults())


if __name__ == "__main__":
    main()
