"""The report as one HTML file that asks for nothing: page.jinja filled with tables, pictures and samples."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rlhf_lib.common.files import replacing
from rlhf_lib.common.policies import LABELS
from rlhf_lib.common.terminal import visible
from rlhf_lib.measure.comparison import order_accuracy
from rlhf_lib.report import attainable, capability, figures, samples, scorer_figures, tables
from rlhf_lib.report.columns import QUALITY, TEXT
from rlhf_lib.report.drawing import MARKERS, PALETTE, SIGNS, Panel, png, svg
from rlhf_lib.report.inputs import SCORERS, Inputs, is_number
from rlhf_lib.report.verdict import mode_label, overoptimisation, verdict

HERE = Path(__file__)
SECTIONS = {
    "verdict": "Verdict",
    "numbers": "Numbers",
    "frontier": "Reward and KL",
    "overoptimisation": "Over-optimisation",
    "training": "Training",
    "scorers": "Reward model",
    "distributions": "Distributions",
    "llm": "LLM judge",
    "capability": "Capability",
    "samples": "Samples",
    "data": "Data",
    "provenance": "How made",
}


def write(inputs: Inputs, out: Path, max_prompts: int) -> Path:
    """Write the page and the pictures into the folder `out`; returns the page's path."""
    path = out / "index.html"
    with replacing(path) as file:
        file.write(render(inputs, max_prompts))
    for name, panels, columns in figures.pictures(inputs):
        png(panels, columns, out / name)
    return path


def render(inputs: Inputs, max_prompts: int) -> str:
    """The page as HTML."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # what is Markup is made here
    )
    template = environment.from_string(HERE.with_suffix(".jinja").read_text(encoding="utf-8"))
    return template.render(
        **_frame(inputs),
        **_comparison(inputs),
        **_training(inputs),
        **_samples(inputs, max_prompts),
        **_provenance(inputs),
    )


def _frame(inputs: Inputs) -> dict[str, Any]:
    left_out = set() if tables.llm_judge_table(inputs).rows else {"llm"}
    left_out |= set() if capability.by_model(inputs) or capability.stale(inputs) else {"capability"}
    return {
        "palette": PALETTE,
        "shapes": {kind: SIGNS[marker] for kind, marker in MARKERS.items()} | {"attainable": "╌"},
        "compared": f"{', '.join(LABELS[method] for method in inputs.methods)} and {LABELS['sft']}",
        "css": Markup(HERE.with_suffix(".css").read_text(encoding="utf-8")),
        "page_js": Markup(HERE.with_suffix(".js").read_text(encoding="utf-8")),
        "samples_js": Markup(HERE.with_name("samples.js").read_text(encoding="utf-8")),
        "sections": [(name, title) for name, title in SECTIONS.items() if name not in left_out],
        "headline": mode_label(inputs.headline),
        "left_out": inputs.left_out,
        "test_note": tables.test_note(inputs),
        "validation_note": tables.validation_note(inputs.data),
    }


def _drawn(panels: Sequence[Panel]) -> list[tuple[Panel, Markup]]:
    return [(panel, svg(panel)) for panel in panels]


def _comparison(inputs: Inputs) -> dict[str, Any]:
    """What the sections from the verdict to the distributions, less those of the training, show."""
    legend = [(policy, LABELS[policy]) for policy in inputs.policies]
    return {
        "verdict": verdict(inputs),
        "differences": tables.difference_table(inputs),
        "quality": tables.policy_table(inputs, QUALITY),
        "text": tables.policy_table(inputs, TEXT),
        "dataset": tables.dataset_table(inputs),
        "formats": tables.format_table(inputs),
        "not_evaluated": [(p, LABELS[p]) for p in ("sft", *inputs.methods) if p not in inputs.policies],
        "policy_legend": legend,
        "policy_figures": _drawn(figures.policies(inputs)),
        "frontier_figures": _drawn(figures.frontier(inputs)),
        "frontier_legend": [
            *legend,
            *([("best_of_n", "best of n")] if inputs.best_of_n else []),
            *([("attainable", attainable.LABEL)] if attainable.is_there(inputs) else []),
        ],
        **_attainable(inputs),
        "has_best_of_n": bool(inputs.best_of_n) or not inputs.params["best_of_n"]["n"],
        "distribution_figures": _drawn(figures.distributions(inputs)),
        "llm_judge": tables.llm_judge_table(inputs),
        "llm_cost": _llm_cost(inputs.llm_judge),
        "capability": capability.sentences(inputs),
        "capability_tables": capability.task_tables(inputs),
        "capability_basis": capability.basis(inputs),
        "capability_stale": capability.stale(inputs),
    }


def _attainable(inputs: Inputs) -> dict[str, Any]:
    return {
        "attainable_objective": attainable.objective_table(inputs),
        "attainable_shares": attainable.share_table(inputs),
        "attainable_blame": attainable.blame(inputs),
        "attainable_doubt": attainable.doubt(inputs),
        "has_attainable": attainable.is_there(inputs) or not inputs.params["attainable"]["n"],
        "kl_coef": f"{inputs.params['ppo']['kl_coef']:g}",
    }


def _llm_cost(counts: Mapping[str, Any]) -> str:
    words = {
        "requests": "{:,} requests",
        "prompt_tokens": "{:,} tokens of prompts",
        "completion_tokens": "{:,} of verdicts",
        "cost": "a cost of {:,}",
    }
    known = [text.format(counts[key]) for key, text in words.items() if is_number(counts.get(key))]
    return ", ".join(known) + "." if known else ""


def _training(inputs: Inputs) -> dict[str, Any]:
    curve = inputs.overoptimisation
    has_gold = any(row.get("gold") is not None for row in curve)
    return {
        "overoptimisation_sentences": overoptimisation(curve),
        "overoptimisation_figures": _drawn(figures.overoptimisation(curve)),
        "overoptimisation_legend": [(k, v) for k, v in figures.RUN_LABELS.items() if k != "gold" or has_gold],
        "curve_figures": _drawn(figures.curves(inputs)),
        "scorers": tables.scorer_table(inputs),
        "sources": tables.source_table(inputs),
        "scorer_figures": _drawn(scorer_figures.scorers(inputs)),
        "scorer_legend": [(stage, tables.SCORER_LABELS[stage]) for stage in inputs.reward_models],
        "agreement": agreement(inputs),
        "not_trained": [(s, tables.SCORER_LABELS[s]) for s in SCORERS if s not in inputs.reward_models],
    }


def agreement(inputs: Inputs) -> str:
    """How often the judge orders two answers to a test prompt as the reward model does; empty without both."""
    if len(inputs.scores) < 2:
        return ""
    by_row: list[dict[tuple[str, int], float]] = [
        {(row["id"], row["response"]): row["reward"] for row in rows} for rows in inputs.scores.values()
    ]
    shared = sorted(by_row[0].keys() & by_row[1].keys())
    grouped = [list(keys) for _, keys in groupby(shared, key=itemgetter(0))]
    first, second = ([[scores[key] for key in keys] for keys in grouped] for scores in by_row)
    share, pairs = order_accuracy(first, second)
    return f"The two order {share:.1%} of {pairs:,} pairs of answers alike." if share is not None else ""


def _samples(inputs: Inputs, max_prompts: int) -> dict[str, Any]:
    data = samples.browser_data(inputs, max_prompts)
    return {
        "samples_json": samples.embedded(data),
        "samples_total": data["total"],
        "samples_shown": len(data["prompts"]),
    }


def _provenance(inputs: Inputs) -> dict[str, Any]:
    return {
        "data": inputs.data,
        "splits": tables.split_table(inputs.data),
        "dropped": tables.dropped(inputs.data),
        "model": inputs.model,
        # less the top-level `policy`, on which nothing here depends: a page is the same for dvc exp run -S policy=...
        "params": {n: _params(section) for n, section in inputs.params.items() if isinstance(section, Mapping)},
        "versions": versions(Path("requirements.txt")),
        "hashes": inputs.hashes,
    }


def _params(section: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value in section.items()]


def versions(requirements: Path) -> list[tuple[str, str]]:
    """(name, installed version) of Python and of what a requirements file names."""
    text = requirements.read_text(encoding="utf-8") if requirements.is_file() else ""
    names = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", text, flags=re.MULTILINE)
    return [("python", platform.python_version()), *((name, _version(name)) for name in names)]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
