"""The samples as the data of the page's browser (samples.js), side by side for each test prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from markupsafe import Markup

from rlhf_lib.common.policies import LABELS, METHODS
from rlhf_lib.common.terminal import visible
from rlhf_lib.report.inputs import Inputs, Sample, is_number
from rlhf_lib.report.verdict import mode_label

NUMBERS = {"gold": "true quality", "judge": "judge", "reward": "reward", "kl": "KL", "length": "tokens"}
MARGINS = [*((method, "sft") for method in METHODS), *combinations(METHODS, 2)]


def browser_data(inputs: Inputs, max_prompts: int) -> dict[str, Any]:
    """What samples.js shows: up to `max_prompts` prompts in order of their id (a hash: a fair draw), with the first
    answer of each policy in each mode and the dataset's best answer.

    An answer is {"text", "finished", and those of `NUMBERS` that are known}.
    """
    answers: dict[str, dict[str, Any]] = {}
    for policy in inputs.policies:
        for mode in inputs.modes:
            for sample in inputs.drawn(policy, mode):
                if sample["draw"] == 0:
                    card = answers.setdefault(sample["id"], _card(sample))
                    card["answers"].setdefault(mode, {})[policy] = _answer(sample)
    for sample in inputs.chosen():
        if sample["id"] in answers:
            # its log-probs are those of the policy whose file it comes from
            answers[sample["id"]]["chosen"] = {k: v for k, v in _answer(sample).items() if k != "kl"}
    cards = [answers[name] for name in sorted(answers)]
    shown = cards[:max_prompts]
    present = {key for card in shown for mode in card["answers"].values() for a in mode.values() for key in a}
    return {
        "modes": [[mode, mode_label(mode)] for mode in inputs.modes],
        "policies": [[policy, LABELS[policy]] for policy in inputs.policies],
        "margins": [[a, b] for a, b in MARGINS if {a, b} <= set(inputs.policies)],
        "numbers": {key: name for key, name in NUMBERS.items() if key in present},
        "sources": sorted({card["source"] for card in shown}),
        "prompts": shown,
        "total": len(cards),
    }


def _card(sample: Sample) -> dict[str, Any]:
    prompt = [[message["role"], visible(message["content"])] for message in sample["prompt"]]
    return {"id": sample["id"], "source": sample["source"], "prompt": prompt, "answers": {}}


def _answer(sample: Sample) -> dict[str, Any]:
    numbers = {key: round(sample[key], 4) for key in NUMBERS if is_number(sample.get(key))}
    return {"text": visible(sample["response"]), "finished": sample.get("finished", True), **numbers}


def embedded(data: Mapping[str, Any]) -> Markup:
    """`data` as JSON that is safe inside <script type="application/json">, whatever the texts hold: no character that
    HTML or JavaScript would read is left bare."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
