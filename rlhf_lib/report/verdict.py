"""What the numbers say, in words that claim no more than they carry (`differences` says which differences count)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

from rlhf_lib.common.few import few
from rlhf_lib.common.policies import LABELS, METHODS
from rlhf_lib.measure.estimates import with_errors
from rlhf_lib.report.differences import NAMES, Difference, Pair, count, difference, having, number, paired, plus_minus
from rlhf_lib.report.head_to_head import judged
from rlhf_lib.report.holm import TWO_ERRORS, two_sided
from rlhf_lib.report.inputs import Curve, Inputs, error

Point = tuple[float, float, float]  # KL, mean, standard error

COMPARED = ("gold", "judge", "reward", "kl", "length")
# What is trusted, best first. The training reward is not in it: it is what was optimised.
CRITERIA = ("gold", "judge")


@dataclass(frozen=True)
class Verdict:
    """The headline, and the sentences that support it."""

    headline: str
    details: list[str] = field(default_factory=list)


def mode_label(mode: str) -> str:
    """The sampling mode as people write it: T=0.7, greedy."""
    return mode if mode == "greedy" else f"T={float(mode[1:].replace('_', '.')):g}"


def trained(inputs: Inputs) -> list[str]:
    """The methods whose policies have been evaluated."""
    return [method for method in METHODS if method in inputs.policies]


def comparisons(inputs: Inputs) -> Iterator[tuple[tuple[str, str], str, dict[str, Difference]]]:
    """Two methods, a mode, and by key the first less the second, paired by prompt: for all that have been evaluated."""
    for one, other in combinations(trained(inputs), 2):
        for mode in inputs.modes:
            pairs = {key: difference(inputs.drawn(one, mode), inputs.drawn(other, mode), key) for key in COMPARED}
            if differences := {key: pair for key, pair in pairs.items() if pair}:
                yield (one, other), mode, differences


def comparison_metrics(inputs: Inputs) -> dict[str, Any]:
    """metrics/comparison.json, for every two methods: {mode: {"ppo_minus_dpo": {key, key_se}, "ppo_over_dpo": win rates
    by the judge}}."""
    metrics: dict[str, Any] = {}
    for (one, other), mode, keys in comparisons(inputs):
        of_mode = metrics.setdefault(mode, {})
        of_mode[f"{one}_minus_{other}"] = with_errors(keys)
        if wins := judged(inputs, one, other, mode):
            of_mode[f"{one}_over_{other}"] = wins
    return metrics


def verdict(inputs: Inputs) -> Verdict:
    """The methods against each other, SFT and best-of-n, by the best criterion there is, in the headline mode."""
    if not inputs.policies:
        return Verdict("No verdict yet: no policy has been evaluated. Run dvc repro measure@sft.")
    criterion = next((key for key in CRITERIA if inputs.known(key)), None)
    methods = trained(inputs)
    if criterion is None and not methods:
        return Verdict(_headline(inputs, [], "length"), [_basis(inputs, "length")])
    if criterion is None:
        return Verdict(
            "No verdict: neither true quality nor a judge's score is known, and the training reward is no evidence, "
            "since it is what was optimised."
        )
    ranked = sorted(methods, key=lambda method: inputs.measured(method)[criterion], reverse=True)
    # of all pairs, since which is the best was seen by looking at all
    told = _told(inputs, list(combinations(ranked, 2)), criterion)
    details = [told[ranked[0], other] for other in ranked[2:]]
    details += [*_against_sft(inputs, methods, criterion), *_against_best_of_n(inputs, methods, criterion)]
    details += [*_second_opinion(inputs, ranked[:2], criterion), _basis(inputs, criterion)]
    return Verdict(_headline(inputs, ranked, criterion, told), details)


def _headline(
    inputs: Inputs, ranked: Sequence[str], criterion: str, told: Mapping[tuple[str, str], str] | None = None
) -> str:
    """The two best methods against each other; one alone against SFT. `ranked`: the best first."""
    if told:
        return told[ranked[0], ranked[1]]
    missing = [method for method in inputs.methods if method not in ranked]
    wanting = _wanting(inputs, missing)
    if not ranked or "sft" not in inputs.policies:
        return f"No verdict{'' if {*missing} <= inputs.left_out.keys() else ' yet'}: {wanting}"
    (alone,) = _told(inputs, [(ranked[0], "sft")], criterion).values()
    return f"{alone} {wanting}"


def _in_order(two: Sequence[str]) -> tuple[str, str]:
    """Two policies in the order in which everything lists the methods; SFT comes last."""
    one, other = sorted(two, key=[*METHODS, "sft"].index)
    return one, other


def _wanting(inputs: Inputs, missing: Sequence[str]) -> str:
    """Why there is nothing of some policies: they were left out, or not run yet."""
    names, several = " and ".join(LABELS[p] for p in missing), len(missing) > 1
    reasons = list(dict.fromkeys(inputs.left_out[p] for p in missing if p in inputs.left_out))
    if {*missing} <= inputs.left_out.keys():
        return f"{names} {'were' if several else 'was'} left out: {'; '.join(reasons)}."
    runs = " ".join(f"measure@{p}" for p in missing)
    return f"{names} {'have' if several else 'has'} not been evaluated yet (dvc repro {runs})."


def _told(inputs: Inputs, twos: Sequence[tuple[str, str]], criterion: str) -> dict[tuple[str, str], str]:
    """A sentence on each two policies, which are looked at together."""
    pairs = [paired(inputs, *two, criterion) for two in twos]
    clear = count((pair.found, pair.prompts) if pair else (None, 0) for pair in pairs)
    return {
        two: _compared(inputs, pair, counts, criterion) if pair else _apart(*two)
        for two, pair, counts in zip(twos, pairs, clear, strict=True)
    }


def _apart(one: str, other: str) -> str:
    one, other = _in_order([one, other])
    return f"{LABELS[one]} and {LABELS[other]} cannot be compared: their samples share no prompt."


def _compared(inputs: Inputs, pair: Pair, is_clear: bool, criterion: str) -> str:
    """One sentence on two policies, the better one first; where neither is clearly, in the order of all lists."""
    if pair.found.value < 0 if is_clear else (pair.one, pair.other) != _in_order([pair.one, pair.other]):
        pair = pair.turned
    one, other = LABELS[pair.one], LABELS[pair.other]
    told = f"{one} did better than {other}" if is_clear else f"No clear difference between {one} and {other}"
    means = " against ".join(number(mean, 3) for mean in pair.means)
    shown = f"{NAMES[criterion]} is {means}, a difference of {pair.found} paired by prompt"
    return f"{told}: {shown}{_shared(inputs, pair)}."


def _shared(inputs: Inputs, pair: Pair) -> str:
    """How many prompts a comparison rests on, where these are not all, or few."""
    part = f", on the {pair.prompts} prompts of both" if pair.prompts < inputs.prompts else ""
    return f"{part}{few(pair.prompts)}"


def _against_sft(inputs: Inputs, methods: Sequence[str], criterion: str) -> Iterator[str]:
    known = methods if "sft" in inputs.policies else ()
    pairs = [pair for method in known if (pair := paired(inputs, method, "sft", criterion))]
    clear = count((pair.found, pair.prompts) for pair in pairs)
    for pair, counts in zip(pairs, clear, strict=True):
        policy, found, measured = pair.one, pair.found, inputs.measured(pair.one)
        better = f"{LABELS[policy]} is {'better' if found.value > 0 else 'worse'} than SFT"
        told = better if counts else f"No clear difference between {LABELS[policy]} and SFT"
        kl = plus_minus(measured["kl"], measured["kl_se"])
        yield f"{told} ({found}), at a KL of {kl} nats per response{_shared(inputs, pair)}."


def _against_best_of_n(inputs: Inputs, methods: Sequence[str], criterion: str) -> Iterator[str]:
    points = best_of_n_points(inputs, criterion)
    if len(points) > 1 and methods:
        gaps = [_gap(points, inputs.measured(method), criterion) for method in methods]
        clear = count((gap, inputs.prompts) for gap in gaps)
        beside = [
            _beside(gap, counts) if gap else _beyond(points, inputs.measured(method)["kl"])
            for method, gap, counts in zip(methods, gaps, clear, strict=True)
        ]
        told = "; ".join(f"{LABELS[method]}: {words}" for method, words in zip(methods, beside, strict=True))
        yield f"Against best-of-n of the SFT model at the same KL (its bound; between two n, interpolated): {told}."


def _gap(points: Sequence[Point], measured: Mapping[str, Any], criterion: str) -> Difference | None:
    """What a policy has more than best-of-n at its KL; None beyond the last point."""
    point = at_kl(points, measured["kl"])
    if point is None:
        return None
    # Both rest on the same prompts: taking the errors as independent makes the difference's too large, if anything.
    known = measured.get(f"{criterion}_se") is not None
    se = math.hypot(error(measured, criterion), point[1]) if known else None
    return Difference(measured[criterion] - point[0], se)


def _beside(gap: Difference, is_clear: bool) -> str:
    told = ("above it" if gap.value > 0 else "below it") if is_clear else "no clear difference"
    return f"{told} ({gap})"


def _beyond(points: Sequence[Point], kl: float) -> str:
    return f"further from SFT ({kl:.2f} nats) than the largest n ({points[-1][0]:.2f})"


def best_of_n_points(inputs: Inputs, key: str) -> list[Point]:
    """(KL bound, mean, standard error) of `key` by n, from SFT itself (n = 1, no KL) on."""
    sft = inputs.measured("sft")
    points = [(0.0, sft[key], error(sft, key))] if sft.get(key) is not None else []
    entries = [entry for entry in inputs.best_of_n.values() if entry.get(key) is not None]
    return points + sorted((entry["kl_bound"], entry[key], error(entry, key)) for entry in entries)


def at_kl(points: Sequence[Point], kl: float) -> tuple[float, float] | None:
    """Mean and standard error at `kl` between two of the points (KL, mean, standard error), linear in the root of the
    KL, in which best-of-n's reward is nearly straight [Gao 2023, arXiv:2210.10760]; None beyond the last point."""
    kl = max(kl, points[0][0])
    for (kl0, mean0, se0), (kl1, mean1, se1) in pairwise(points):
        if kl <= kl1:
            share = (math.sqrt(kl) - math.sqrt(kl0)) / (math.sqrt(kl1) - math.sqrt(kl0))
            return mean0 + share * (mean1 - mean0), math.hypot((1 - share) * se0, share * se1)
    return None


def _second_opinion(inputs: Inputs, best: Sequence[str], criterion: str) -> Iterator[str]:
    """What the judge says of the two best methods where true quality decided."""
    if criterion != "gold" or len(best) < 2:
        return
    one, other = _in_order(best)
    pair = paired(inputs, one, other, "judge")
    if pair is None:
        return
    if not all(count([(pair.found, pair.prompts)])):
        yield f"The judge sees no clear difference between {LABELS[one]} and {LABELS[other]} ({pair.found})."
    else:
        preferred = LABELS[one if pair.found.value > 0 else other]
        yield f"The judge prefers {preferred} ({LABELS[one]} − {LABELS[other]}: {pair.found})."


def _basis(inputs: Inputs, criterion: str) -> str:
    drawn = next((inputs.drawn(policy) for policy in inputs.policies if inputs.drawn(policy)), [])
    known = having(drawn, criterion)
    prompts = len({sample["id"] for sample in known})
    draws = len({sample["draw"] for sample in known})
    return (
        f"This rests on {prompts} test prompts{few(prompts)}, {draws} answer{'s' if draws != 1 else ''} each at "
        f"{mode_label(inputs.headline)}, and on one training run of each; ± is one standard error over prompts and "
        "does not cover another seed. A difference is called clear from two of them, and from more where several are "
        "compared (Holm's correction)."
    )


def overoptimisation(curve: Curve) -> list[str]:
    """Whether true quality or the judge's score fell after its peak while the reward rose, a sentence each."""
    return [_after_peak(curve, key) for key in CRITERIA if any(row.get(key) is not None for row in curve)]


def _after_peak(curve: Curve, key: str) -> str:
    rows: list[Mapping[str, Any]] = [row for row in curve if row.get(key) is not None]
    peak, last = max(rows, key=lambda row: row[key]), rows[-1]
    name = NAMES[key][0].upper() + NAMES[key][1:]
    change = {k: _change(peak, last, k) for k in (key, "reward")}
    # The peak is the highest of all before: each of them might have been it by chance.
    p = two_sided(*change[key]) * (len(rows) - 1)
    if not (change[key].value < 0 and p <= TWO_ERRORS):
        return (
            f"{name} did not clearly fall: {last[key]:.3f} at the last rollout ({last['rollout']:.0f}), "
            f"{peak[key]:.3f} at its highest (rollout {peak['rollout']:.0f})."
        )
    fell = f"{name} fell after rollout {peak['rollout']:.0f}, from {peak[key]:.3f} to {last[key]:.3f} ({change[key]})"
    if change["reward"].clear and change["reward"].value > 0:
        return f"{fell}, while the reward rose ({change['reward']}): the policy over-optimised the reward."
    return f"{fell}; the reward did not clearly rise in that time ({change['reward']})."


def _change(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> Difference:
    """The change of a mean between two evaluations, their errors taken as independent (too large if anything)."""
    known = all(row.get(f"{key}_se") is not None for row in (before, after))
    se = math.hypot(error(before, key), error(after, key)) if known else None
    return Difference(after[key] - before[key], se)
