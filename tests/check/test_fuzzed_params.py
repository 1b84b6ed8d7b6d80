"""Mutated params: the check gives lines or takes them; nothing it says is a traceback, and it comes to an end."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import DEMO, ROOT

from rlhf_lib.check import patterns, rows
from rlhf_lib.check.__main__ import check
from rlhf_lib.common.yaml import ParamsError, load_yaml, parse_yaml
from rlhf_lib.preset.overlay import leaves
from rlhf_lib.preset.state import Origin

pytestmark = pytest.mark.usefixtures("folder")

PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**32, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e-308, 5e-324, 1e308),
    *(float("inf"), float("-inf"), float("nan"), 1e-30, 1.0000001, "", " ", "x", "null", "1", "1e5", "true", "\n"),
    *("a\nb: c", "é€𝄞", "\u2028", "\x00", "../../..", "/", ".", "~", "~nobody/x", "C:\\x", "a" * 5000, "/" * 300),
    *("models/sft", "models/ppo", "models/reward", "owner/name", "owner/name@main", "owner/name@" + "0" * 40),
    *(
        "a:b",
        "os:system",
        "rewards.examples:brevity",
        "rewards.examples:gone",
        "rewards:x",
        "a.b.c:d",
        ":",
        "@",
        "%s {x}",
    ),
    *("python", "bash", "accelerate launch --config_file", "accelerate launch --config_file " + "y" * 5000),
    *(
        "(a+)+$",
        "a{99999999999}",
        "(" * 200,
        "[",
        "\\",
        "(?P<x>a)(?P=x)",
        "*.jsonl",
        "**/*",
        "[a",
        "params.yaml",
        "0-99",
    ),
    *("9" * 5000, "9" * 5000 + "-1", "3-1", "-", "http://[", "http://x:99999", "ppo-ppo", "rubrics/../x", "rubrics/"),
    *(
        [],
        [None],
        [[]],
        [[[[[[]]]]]],
        [1, 2],
        ["x"],
        ["x", "x"],
        [{}],
        [0.0, -0.0],
        [1.0, 1.00000001],
        ["embeddings"] * 2,
    ),
    *({}, {"a": 1}, {"a": {"b": {"c": {}}}}, {1: 2}, {None: None}, {True: 1}, {"": ""}, {"x" * 500: []}, {"a.b": {}}),
    [{"reader": "demo"}, {"reader": "demo"}],
    [{"reader": "file"}],
    [{"reader": "file", "path": "/dev/null"}],
    [{"reader": "file", "path": "."}],
    [{"reader": "file", "path": "params.yaml"}],
    [{"reader": "file", "path": "x\x00y"}],
    [{"reader": "hh", "path": "gone.jsonl", "columns": {"prompt": "x"}}],
    [{"reader": "stack_exchange", "subsets": ["../x"], "revision": "0" * 40}],
    {"demo": {"weight": 1e-29}},
    {"demo": {"share": 1, "roles": ["prompts"]}},
    {"x": None},
    {"demo": {"score_range": [1e308, -1e308]}},
]
TEXTS = [
    "&a [*a]",
    "&a {x: *a}",
    "!!python/object:os.system x",
    "!!binary aGk=",
    "!!set {a, b}",
    "2001-01-01",
    "0x" + "f" * 9999,
]
TEXTS += [
    "9" * 9999,
    "[" * 2000,
    "[" * 40 + "]" * 40,
    "{a: " * 30 + "1" + "}" * 30,
    "? [a]",
    "|\n    x",
    ">-",
    "'",
    '"\\x',
    "%",
    "@x",
]
TEXTS += [
    "*gone",
    "<<: 1",
    "- a\n - b",
    "\t",
    "1 2 3: 4: 5",
    "!!float 1",
    "!!int x",
    "~",
    "<<: *x",
    "\ufeff",
    "#",
    "--- 1",
    "...",
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few rows, and little patience with regular expressions."""
    monkeypatch.setattr(patterns, "SECONDS", 1)
    monkeypatch.setattr(rows, "RECORDS", 20)


def mutated(random_: random.Random, params: dict[str, Any]) -> dict[str, Any]:
    """Params with one to three things wrong, or odd."""
    params = copy.deepcopy(params)
    for _ in range(random_.choice((1, 1, 1, 2))):
        path, value = random_.choice(list(leaves(params)))
        section, key = params, path[-1]
        for name in path[:-1]:
            section = section[name]
        kind = random_.randrange(10)
        if kind < 3:
            section[key] = copy.deepcopy(random_.choice(VALUES))
        elif kind < 5:
            alike = [other for other in VALUES if isinstance(other, type(value))]
            section[key] = copy.deepcopy(random_.choice(alike or VALUES))
        elif kind == 5:
            del section[key]
        elif kind == 6:
            section[random_.choice(["x", 1, None, "", "seeds", f"{key}s", "__class__"])] = value
        elif kind == 7:
            name = random_.choice(list(params))
            params[name] = random_.choice([*map(copy.deepcopy, params.values()), *VALUES[:20], {}, []])
        elif kind == 8 and isinstance(value, int | float) and not isinstance(value, bool):
            section[key] = random_.choice(
                [-value, value * 10**6, value * 2, value + 1, value / 7, str(value), [value], -1 - value]
            )
        else:
            section[key] = {key: value} if random_.random() < 0.5 else [value, value]
    return params


def as_text(random_: random.Random, params: dict[str, Any]) -> str:
    """The params as YAML, sometimes with a value that is odd as a text, or with a line broken."""
    text = yaml.safe_dump(params, allow_unicode=True, sort_keys=False)
    lines = text.splitlines()
    if random_.random() < 0.2:
        number = random_.randrange(len(lines))
        name, _, _ = lines[number].partition(":")
        lines[number] = random_.choice(
            [f"{name}: {random_.choice(TEXTS)}", lines[number][:-1], lines[number] + ":", " " + lines[number]]
        )
    return "\n".join(lines) + "\n"


def outcome(text: str) -> str:
    """What the check makes of a file: "taken", "faults", or "not YAML"; each line that it says is one."""
    try:
        params = parse_yaml(text, Path("params.yaml"))
    except ParamsError as error:
        said, result = [str(error)], "not YAML"
    else:
        said, _ = check(params)
        result = "faults" if said else "taken"
    assert all(line.startswith("params.yaml") and len(line) < 2000 for line in said), said
    assert all(line == " ".join(line.split()) or line.isprintable() for line in said), said
    return result


def outcomes(seed: int, times: int) -> dict[str, int]:
    """How the check took so many mutations of the demo's params and of each preset's."""
    random_ = random.Random(seed)
    starts = [load_yaml(DEMO), *(Origin([name]).params() for name in PRESETS)]
    counts = dict.fromkeys(("taken", "faults", "not YAML"), 0)
    for number in range(times):
        params = mutated(random_, starts[number % len(starts)])
        counts[outcome(as_text(random_, params))] += 1
    return counts


def test_mutated_params_are_taken_or_told():
    counts = outcomes(seed=0, times=60)
    assert sum(counts.values()) == 60 and counts["faults"] > 20, counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_mutated_params_are_taken_or_told(seed):
    counts = outcomes(seed, times=200)
    print(counts)
    assert sum(counts.values()) == 200, counts


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:20])
def test_an_odd_value_anywhere_of_a_kind_is_taken_or_told(value):
    """The same value in a key of each type."""
    keys = [
        "load.sources",
        "prepare.mixture",
        "prepare.drop_patterns",
        "base.model_name_or_path",
        "base.n_embd",
        "sft.seed",
    ]
    keys += [
        "sft.learning_rate",
        "sft.freeze",
        "reward.model_name_or_path",
        "ppo.reward_funcs",
        "ppo.load_best_model_at_end",
    ]
    keys += ["evaluate.temperatures", "llm_judge.base_url", "llm_judge.rubric", "llm_judge.comparisons"]
    for key in keys:
        params = load_yaml(DEMO)
        name, _, field = key.partition(".")
        params[name][field] = value
        said, _ = check(params)
        assert all(line.startswith("params.yaml") for line in said)
    for key in ("policy", "launch", "sft", "unknown"):
        said, _ = check({**load_yaml(DEMO), key: value})
        assert all(line.startswith("params.yaml") for line in said)
