"""metrics/eval/<policy>.json from a policy's samples: each number with its standard error over prompts, `<name>_se`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from rlhf_lib.common.few import FEW
from rlhf_lib.evaluation.samples import DATASET, Sample, in_mode
from rlhf_lib.measure import estimates, length_control, text_metrics
from rlhf_lib.measure.comparison import Opponents, by_prompt, group_by_prompt, ordered_pairs, same_draw, wins
from rlhf_lib.measure.estimates import Estimate, mean_and_se, share_and_se
from rlhf_lib.measure.self_bleu import self_bleu

Value = Callable[[Sample], float | None]


def policy_metrics(
    samples: Sequence[Sample], baseline: Sequence[Sample], modes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The numbers of a policy in each mode, and on the dataset's own responses; `baseline` are the SFT model's."""
    dataset = in_mode(samples, DATASET)
    measured = {mode: summary(in_mode(samples, mode), in_mode(baseline, mode), dataset) for mode in modes}
    return {**measured, DATASET: dataset_summary(dataset)}


def summary(samples: Sequence[Sample], baseline: Sequence[Sample], dataset: Sequence[Sample]) -> dict[str, Any]:
    """The numbers of one policy in one mode.

    `baseline` are the SFT model's samples of the same prompts and draws, and `dataset` the dataset's own responses.
    """
    sft = same_draw(baseline)
    chosen = chosen_responses(dataset)
    values = measures(samples, sft, partial(of_prompt, chosen))
    values["kl"] = lambda s: s["logprob"] - s["ref_logprob"]
    found = {name: estimated(name, by_prompt(samples, value)) for name, value in values.items()}
    if "judge" in values:
        found["judge_lc_win_rate"] = length_control.controlled(length_control.matches(samples, sft))
    measured = estimates.with_errors(found | text_summary(samples, chosen))
    if (prompts := len(group_by_prompt(samples))) < FEW:
        measured["few_prompts"] = prompts
    if "gold" in values:
        measured["gold_by_format"] = by_format(samples)
    return measured


def chosen_responses(dataset: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The chosen response, as a list of one, by the id of its prompt."""
    return {sample["id"]: [sample] for sample in dataset if sample["chosen"]}


def of_prompt(samples: Mapping[str, Sequence[Sample]], sample: Sample) -> Sequence[Sample]:
    """The samples of the prompt of another."""
    return samples.get(sample["id"], ())


def measures(samples: Sequence[Sample], sft: Opponents, chosen: Opponents) -> dict[str, Value]:
    """What is measured of each single response, by its name in the metrics."""
    values: dict[str, Value] = {}
    for key, prefix in (("reward", ""), ("judge", "judge_")):
        if _all_have(samples, key):
            values[key] = itemgetter(key)
            values |= {f"{prefix}win_rate": win_rate(key, sft), f"{prefix}win_rate_chosen": win_rate(key, chosen)}
    values |= {"length": itemgetter("length"), "eos_rate": lambda s: float(s["finished"])}
    if _all_have(samples, "gold"):
        values["gold"] = lambda s: s["gold"]
        values["gold_gain"] = lambda s: s["gold"] - fmean(other["gold"] for other in sft(s))
    return values


def _all_have(samples: Sequence[Sample], key: str) -> bool:
    return bool(samples) and all(key in sample for sample in samples)


def estimated(name: str, of_prompts: Sequence[float]) -> Estimate:
    """A measure by its name and its values, one a prompt."""
    return share_and_se(of_prompts) if "win_rate" in name or name == "eos_rate" else mean_and_se(of_prompts)


def win_rate(key: str, opponents: Opponents) -> Value:
    """How often a sample's `key` is above that of its opponents, ties half; None where it has none."""

    def value(sample: Sample) -> float | None:
        others = opponents(sample)
        return fmean(wins(sample, other, key) for other in others) if others else None

    return value


def text_summary(samples: Sequence[Sample], chosen: Mapping[str, Sequence[Sample]]) -> dict[str, Estimate]:
    """The numbers of the responses' texts, alone, beside one another and beside the chosen ones."""
    texts = [[sample["response"] for sample in draws] for draws in group_by_prompt(samples).values()]
    found = {
        "repetition": mean_and_se(by_prompt(samples, lambda s: text_metrics.repetition(s["response"]))),
        "distinct_1": text_metrics.distinct(texts, 1),
        "distinct_2": text_metrics.distinct(texts, 2),
        "self_bleu": self_bleu(texts),
    }
    return found | overlap([s for s in samples if s["id"] in chosen], {i: s["response"] for i, [s] in chosen.items()})


def overlap(samples: Sequence[Sample], references: Mapping[str, str]) -> dict[str, Estimate]:
    """BLEU and ROUGE of responses with the reference of their prompt."""
    scored: list[dict[str, Any]] = []
    for s in tqdm(samples, desc="Comparing texts", unit="answer", delay=2):  # longer than all else of the stage
        text, reference = s["response"], references[s["id"]]
        score, counts = text_metrics.bleu_counts(text, reference)
        scored.append({"id": s["id"], "counts": counts, "sentence_bleu": score, **text_metrics.rouge(text, reference)})
    sums = [np.sum([s["counts"] for s in draws], axis=0) for draws in group_by_prompt(scored).values()]
    means = {name: mean_and_se(by_prompt(scored, itemgetter(name))) for name in ("sentence_bleu", *text_metrics.ROUGE)}
    return {"bleu": text_metrics.corpus_bleu(sums), **means}


def by_format(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean true quality by the form of answer that the prompt asks for."""
    formats = sorted({sample["format"] for sample in samples})
    return {name: fmean(s["gold"] for s in samples if s["format"] == name) for name in formats}


def dataset_summary(dataset: Sequence[Sample]) -> dict[str, Any]:
    """What a policy makes of the dataset's own responses.

    perplexity: exp of the negative log-prob of the chosen responses over their tokens, all prompts' together.
    preference_accuracy: how often the policy's implicit reward, log(policy / SFT) of a response [Rafailov 2023,
    arXiv:2305.18290], orders two responses to a prompt as their scores do; `pairs` is the number of pairs. The SFT
    model itself has 0.5: all its rewards are 0.
    """
    chosen = [(-sample["logprob"], sample["length"]) for sample in dataset if sample["chosen"]]
    ordered = [
        ordered_pairs([s["score"] for s in draws], [s["logprob"] - s["ref_logprob"] for s in draws])
        for draws in group_by_prompt(s for s in dataset if s["score"] is not None).values()
    ]
    found = {
        "perplexity": estimates.of_sums(chosen, estimates.perplexity),
        "preference_accuracy": estimates.share_of_sums([o for o in ordered if o[1]]),
    }
    return {**estimates.with_errors(found), "pairs": sum(pairs for _, pairs in ordered)}
