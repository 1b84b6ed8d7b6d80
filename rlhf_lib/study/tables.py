"""A study's verdict as text, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lib.common.few import few
from rlhf_lib.common.policies import COEFFICIENTS, LABELS
from rlhf_lib.experiments import frontier
from rlhf_lib.report.differences import NAMES
from rlhf_lib.report.tables import markdown_table
from rlhf_lib.study import intervals
from rlhf_lib.study.design import Setting, Study
from rlhf_lib.study.intervals import Estimate
from rlhf_lib.study.results import Results
from rlhf_lib.study.verdict import Method, Pair, Verdict, params

CHOSEN, EQUAL = "As chosen", "At equal KL"
SHORT = {"gold": "quality", "judge": "judge", "reward": "reward", "kl": "KL", "length": "length"}  # of columns


def told(study: Study, found: Verdict, validation: Results, test: Results) -> str:
    """The whole of it in Markdown."""
    count, prompts = len(study.seeds), test.prompts
    parts = [
        f"Settings were chosen by the {study.criterion} on {validation.prompts} validation prompts; all numbers are of "
        f"{prompts} test prompts{few(prompts)} and {count} seeds of the methods' training. ± is half of a "
        f"{intervals.LEVEL:.0%} interval over prompts and seeds.",
        f"## {CHOSEN}",
        _methods(found.chosen, found, test),
        *_pairs(found.chosen_pairs, found.criterion),
        f"## {EQUAL}",
        f"Each method within {found.most_kl:.2f} nats of the SFT model, which all but controls reach on the validation "
        "prompts: the best mixture of two of its settings, or of one and SFT, answered by one or the other as a coin "
        "falls.",
        _methods(found.equal, found, test),
        *_pairs(found.equal_pairs, found.criterion),
        "## Every setting",
        _settings(study, test),
        f"Here ± is the standard deviation over the seeds.{_not_drawn(found, test)}",
    ]
    return "\n\n".join(parts) + "\n"


def _methods(methods: Mapping[str, Method], found: Verdict, test: Results) -> str:
    keys = test.known
    header = ["method", "setting", "KL", SHORT[keys[0]], *(f"{SHORT[key]} gain" for key in keys)]
    lines = [["SFT", "", "0", f"{test.sft[keys[0]].mean():.3f}", *("" for _ in keys)]]
    ranked = sorted(methods, key=lambda name: methods[name].scores[found.criterion].value, reverse=True)
    for name in ranked:
        method = methods[name]
        gains = [interval(method.gains[key], signed=True) for key in keys]
        lines.append([LABELS[name], method.told, interval(method.kl, 2), interval(method.scores[keys[0]]), *gains])
    return markdown_table(header, lines)


def interval(estimate: Estimate, digits: int = 3, signed: bool = False) -> str:
    """A value ± half of its interval."""
    return f"{estimate.value:{'+' * signed}.{digits}f} ± {estimate.half:.{digits}f}"


def _pairs(pairs: Sequence[Pair], criterion: str) -> Iterator[str]:
    """Who is better than whom, a line for each two."""
    if pairs:
        called_first = sorted(pairs, key=lambda pair: not pair.called)
        yield "\n".join(f"- {_compared(pair, criterion)}" for pair in called_first)


def _compared(pair: Pair, criterion: str) -> str:
    better, worse = LABELS[pair.better], LABELS[pair.worse]
    said = f"{interval(pair.difference, signed=True)} in {NAMES[criterion]}, confidence {confidence(pair.p)}"
    if pair.called:
        return f"**{better} is better than {worse}**: {said}."
    if pair.difference.value == 0:
        return f"{better} and {worse} are equal: {said}."
    return f"Undecided between {better} and {worse}: {said}; {_more(pair.more_seeds)}."


def _more(seeds: int | None) -> str:
    """What would decide a pair, if the difference is as large as it looks."""
    if seeds is None:
        return f"{intervals.MOST_SEEDS} seeds would not decide it, only more prompts"
    return f"about {seeds} more seed{'s' * (seeds > 1)} would decide it"


def confidence(p: float) -> str:
    """1 - p as percent, not rounded up to certainty."""
    if p > 0.5:
        return "below 50 %"
    return f"{100 * (1 - p):.1f} %" if p > 1e-3 else "above 99.9 %"


def _settings(study: Study, test: Results) -> str:
    """The means over prompts and seeds, with the standard deviation of the seeds' means."""
    keys = ["kl", *test.known, "length"]
    header = ["method", "setting", *(SHORT[key] for key in keys)]
    lines = []
    for setting in (setting for settings in study.settings.values() for setting in settings):
        cells = [
            f"{numbers.mean():.3f} ± {numbers.mean(axis=0).std(ddof=1):.3f}"
            for numbers in (test.settings[setting][key] for key in keys)
        ]
        lines.append([LABELS[setting.method], params(setting), *cells])
    return markdown_table(header, lines)


def as_json(study: Study, found: Verdict) -> dict[str, Any]:
    """The verdict as plain values."""
    return {
        "criterion": found.criterion,
        "chosen_by": study.criterion,
        "seeds": list(study.seeds),
        "equal_kl": found.most_kl,
        "chosen": {name: _plain(method) for name, method in found.chosen.items()},
        "at_equal_kl": {name: _plain(method) for name, method in found.equal.items()},
        "pairs": [_plain_pair(pair) for pair in found.chosen_pairs],
        "pairs_at_equal_kl": [_plain_pair(pair) for pair in found.equal_pairs],
    }


def _plain(method: Method) -> dict[str, Any]:
    estimates = {"kl": method.kl, **method.scores, **{f"{key}_gain": gain for key, gain in method.gains.items()}}
    return {"setting": method.told} | {name: _numbers(estimate) for name, estimate in estimates.items()}


def _plain_pair(pair: Pair) -> dict[str, Any]:
    return {
        "better": pair.better,
        "worse": pair.worse,
        "difference": _numbers(pair.difference),
        "p": pair.p,
        "called": pair.called,
        "more_seeds": pair.more_seeds,
    }


def _numbers(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "se": estimate.se, "half": estimate.half}


def _not_drawn(found: Verdict, test: Results) -> str:
    names = ", ".join(setting.told for setting in far(found, test))
    return f" Not in the picture, as it went too far: {names}." if names else ""


def far(found: Verdict, test: Results) -> list[Setting]:
    """The settings that went more than twice as far as those that were chosen: beside them, the others would all lie on
    one line of the picture."""
    limit = 2 * max(method.kl.value for method in found.chosen.values())
    return [setting for setting, numbers in test.settings.items() if numbers["kl"].mean() > limit > 0]


def draw(study: Study, found: Verdict, test: Results, mode: str, path: Path) -> None:
    """Every setting's scores against KL, with what any policy could reach if it is known; bars are standard errors over
    the seeds."""
    settings = [setting for settings in study.settings.values() for setting in _by_kl(settings, test)]
    too_far = far(found, test)
    near = [setting for setting in settings if setting not in too_far]
    frontier.draw([*(_point(setting, test) for setting in near), *frontier.landmarks(mode)], path)


def _by_kl(settings: Sequence[Setting], test: Results) -> list[Setting]:
    return sorted(settings, key=lambda setting: test.settings[setting]["kl"].mean())


def _point(setting: Setting, test: Results) -> frontier.Point:
    numbers = test.settings[setting]
    value = dict(setting.params).get(COEFFICIENTS.get(setting.method, ""))
    of_seeds = {key: [*map(float, values.mean(axis=0))] for key, values in numbers.items()}
    measured = {key: frontier.mean_and_error(of_seeds[key]) for key in ("kl", *frontier.VALUES) if key in of_seeds}
    return frontier.Point(setting.method, float(value) if value else None, numbers["kl"].shape[1], measured)
