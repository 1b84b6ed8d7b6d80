"""What a model is not good for, as far as its run tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_lib.common.few import few
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.export import learnt
from rlhf_lib.export.facts import Facts, Model
from rlhf_lib.export.provenance import Run
from rlhf_lib.report.columns import EOS
from rlhf_lib.report.verdict import mode_label


def sentences(known: Facts, model: Model, has_tasks: bool) -> Iterator[str]:
    """One sentence for each limit; what the run does not tell is left out. has_tasks: make lm-eval measured it."""
    params = known.params
    if any(source.get("reader") == "demo" for source in params.get("load", {}).get("sources", [])):
        yield (
            "It learnt from a demo's data, which are made by rules: short instructions about capitals, plurals, "
            "opposites, lists and the like. It knows nothing else, and is of use only to study the methods"
        )
    yield f"It has {model.parameters:,} parameters" + (
        f", and attends to {model.context:,} tokens, question and answer together" if model.context else ""
    )
    if known.stage in POLICIES:
        yield from _of_rows(known.run, str(known.stage))
    if languages := params.get("prepare", {}).get("languages"):
        yield f"Texts in other languages than {', '.join(languages)} were taken out of its data"
    yield from _of_numbers(known)
    yield "Nothing in this run trained it to refuse" + _unmeasured(known, has_tasks)
    if (
        model.dtype != "fp32"
        and known.inputs is not None
        and not known.run.evaluated(known.stage).get("bf16_full_eval")
    ):
        yield f"The numbers were measured in fp32; these weights are {model.dtype}, and some answers will differ"


def _unmeasured(known: Facts, has_tasks: bool) -> str:
    """What no number here says of its answers."""
    has_rule = known.inputs is not None and known.inputs.measured(str(known.stage)).get("gold") is not None
    by = " and ".join(["the rule of true quality"] * has_rule + ["the questions of the tasks below"] * has_tasks)
    if not by:
        return (
            ", or measured whether what it says is true, safe or fair; no person has judged its answers for these "
            "numbers"
        )
    true = f". Whether what it says is true was measured by {by} alone"
    safe = "beyond what those tasks ask, nothing says whether it is" if has_tasks else "nothing says whether it is"
    return f"{true}; {safe} safe or fair, and no person has judged its answers"


def _of_rows(run: Run, stage: str) -> Iterator[str]:
    """What its weights learnt from, and of which form that was."""
    found = learnt.from_rows(run, stage)
    yield from learnt.sentences(run, found)
    turns = [[message["role"] for message in prompt] for each in found for prompt in each.prompts]
    if turns and all(roles.count("user") <= 1 for roles in turns):
        yield "All of these are single questions: it has learnt no dialogue of several turns"
    if turns and not any("system" in roles for roles in turns):
        yield "None of these has a system message: it has not learnt to follow one"


def _of_numbers(known: Facts) -> Iterator[str]:
    """What the numbers rest on."""
    found = known.inputs
    if found is None or known.stage is None:
        return
    measured = found.measured(known.stage)
    yield _judge(measured)
    yield (
        f"The numbers rest on {found.prompts:,} prompts{few(found.prompts)} of the data's own kind and on one training "
        "run; ± is one standard error over prompts, and covers neither another seed nor other questions"
    )
    limit = known.run.evaluated(known.stage).get("max_new_tokens")
    ended = measured.get(EOS.key)
    if limit and ended is not None and ended < 1:
        yield (
            f"{1 - ended:.1%} of its answers at {mode_label(found.headline)} had not ended after {limit} tokens, where "
            "they were cut"
        )
    elif limit:
        yield f"Its answers were measured up to {limit} tokens; what it does with longer ones is not known"


def _judge(measured: Mapping[str, Any]) -> str:
    """By what its answers were judged."""
    if measured.get("gold") is not None:
        return "Quality is that of a rule of the data's source: it counts what the rule knows, and nothing else"
    if measured.get("judge") is not None:
        return (
            "Its answers were judged by a reward model of this run alone, which has learnt the same preferences as "
            "what it judges, and shares their blind spots"
        )
    if measured.get("reward") is not None:
        return "The only score of its answers is the reward that was optimised, which is no evidence of quality"
    return "No score of its answers is known: the numbers say how they look, not how good they are"
