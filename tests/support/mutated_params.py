"""The smoke preset's params with one or two keys mutated: values at the edges of what their types and bounds allow."""

from __future__ import annotations

import random
import types
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common.schema import examine
from rlhf_lib.preset.state import Origin

INTS = (0, 1, -1, 2, 3, 7, 8, 9, 64, 1000, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, -(2**63), 10**30, 10**400)
FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 0.1, 0.9, 0.999999, 1.0000001, 2.0, 10.0, 1e3, 1e6, 1e12, 1e30, 1e31, 1e308),
    *(1e-3, 1e-7, 1e-12, 1e-30, 1e-31, 1e-308, 5e-324, float("nan"), float("inf"), float("-inf"), 3, 10**30, 10**400),
)
TEXTS = (
    *("", " ", "x", "é€𝄞", "\u2028", "\x00", "\x1b[31m", "a" * 5000, "null", "1", "%s {x}", "a\nb: c"),
    *(".", "..", "/", "~", "~nobody/x", "/dev/null", "/dev/zero", "/" * 300, "../../..", "C:\\x", "params.yaml"),
    *("models", "models/base", "models/sft", "models/ppo", "./models/sft/", "models/gone", "data/raw/rows.jsonl"),
    *("owner/name", "owner/name@main", "owner/name@" + "0" * 40, "rewards", "rubrics", "a:b", "os:system"),
)
WRONG: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    0.5,
    "",
    "x",
    [],
    [None],
    [[]],
    {},
    {"a": 1},
    [1, 2],
    "true",
    {1: 2},
)
FILE = {"reader": "file", "name": "mine"}

# What is near to what a key takes, where its type says little.
NEAR: dict[str, tuple[Any, ...]] = {
    "lr_scheduler_kwargs": (
        *({"power": 2.0}, {"power": -1.0}, {"lr_end": 0.0}, {"num_cycles": 0.5}, {"num_cycles": 0}, {"num_cycles": 3}),
        *({"min_lr": 1e-5}, {"min_lr_rate": 0.1}, {"min_lr_rate": 2.0}, {"num_decay_steps": 0}, {"num_decay_steps": 2}),
        *({"num_decay_steps": 2, "min_lr_ratio": -1.0}, {"timescale": 0}, {"timescale": 4}, {"factor": 2.0}),
        *({"num_decay_steps": 2, "decay_type": "odd"}, {"mode": "odd"}, {"patience": -1}, {"num_cycles": 1e30}),
    ),
    "optim_args": (
        *("momentum=0.9", "momentum=0.9,nesterov=true", "nesterov=true", "momentum=x", "eps=0", "eps=-1", "eps=nan"),
        *("weight_decay=-1", "alpha=2", "lr_decay=1e30", "momentum=0.9,dampening=0.5,nesterov=true", "a=b", "=", ","),
    ),
    "freeze": (
        *(["embeddings"], ["norms"], ["mlp"], ["attention"], ["head"], ["outer_norms"], ["0"], ["mlp:0"], ["0-0"]),
        *(["0-99"], ["mlp:1"], ["embeddings", "0", "norms", "head"], ["embeddings", "0", "outer_norms"], ["3-1"]),
        *(["x"], ["0"] * 9, ["9" * 5000], ["mlp:"]),
    ),
    "lora_target_modules": (["c_attn"], ["c_proj", "c_fc"], ["wte"], ["lm_head"], ["x"], [], [""], ["all-linear"]),
    "reward_funcs": (
        *(["models/reward"] * 2, ["rewards.examples:brevity"], ["models/reward", "rewards.examples:brevity"]),
        *(
            ["rewards.examples:gone"],
            ["rewards.gone:x"],
            ["models/judge"],
            ["models/sft"],
            ["json:loads"],
            ["os:system"],
        ),
        *(["models/reward/x"], [":"], ["builtins:exit"], ["rewards.examples:demo_gold"], ["./models/reward"]),
    ),
    "reward_weights": ([1.0], [0.0], [-1.0], [1e30], [1e-30], [1.0, 2.0], [None]),
    "stop_strings": ([" "], ["."], ["\n"], [""], ["a"], ["é"], ["x" * 4000], ["a", "a"], ["\x00"]),
    "temperatures": (
        *([0.0], [1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.00000001], [1e-30], [1e30], [0.0, -0.0], [2.5, 0.0], [1e-5]),
        *([100.0], [1.0] + [x / 10 for x in range(2, 9)]),
    ),
    "n": ([2], [3, 2], [2, 2], [16], [10_000], [1], [0], [2**31]),
    "mixture": (
        *({"demo": {"max_rows": 9}}, {"demo": {"weight": 5e-324}}, {"demo": {"weight": 1e-30}}, {"demo": {"share": 1}}),
        *({"demo": {"share": 1e-30}}, {"demo": {"roles": ["sft"]}}, {"demo": {"roles": ["preference", "prompts"]}}),
        *({"demo": {"score_range": [0.0, 1e-30]}}, {"demo": {"score_range": [-1e30, 1e30]}}, {"gone": {}}),
        *(
            {"demo": {"min_score_gap": 1e30}},
            {"demo": {"min_score_ratio": 1e30}},
            {"demo": {"roles": []}},
            {"demo": None},
        ),
    ),
    "target_range": ([0.0, 1e-30], [-1e30, 1e30], [1.0, 0.0], [0.0, 0.0], [-5.0, 5.0], [0.0, 1e308], [1e29, 1e30], [0]),
    "languages": ([], ["en", "de"], ["de"], ["zxx"], ["xx"], ["EN"], [""]),
    "drop_patterns": (
        *(
            ["the"],
            ["."],
            ["^"],
            ["(?i)NAME"],
            ["("],
            ["(a+)+$"],
            ["a{99999999999999999999}"],
            ["(" * 3000],
            ["[" * 3000],
        ),
        *(["\\"], ["(?P<x>a)(?P=x)"], ["[[a]"], ["a{1,65535}" * 9], ["\x00"], ["zz"]),
    ),
    "evaluate.sources": (["demo"], ["demo/facts"], ["gone"], ["demo", "demo"], [""]),
    "load.sources": (
        *([{"reader": "demo"}] * 2, [], [{"reader": "demo", "max_records": 9}], [{"reader": "demo", "test": True}]),
        *(
            [{**FILE, "path": path}]
            for path in ("gone.jsonl", ".", "/dev/zero", "/dev/null", "params.yaml", "**/*", "x\x00")
        ),
        *([{**FILE, "path": path}] for path in ("data/raw/rows.jsonl", "rubrics/*", "rewards/examples.py", "~", "")),
        *([{"reader": "demo", "name": name}] for name in ("x", "a/b", "", "é", "..")),
        [{"reader": "demo", "reward_columns": ["x"]}],
        [{"reader": "hh"}],
    ),
    "dpo.loss_type": (
        *("ipo", "aot", "sft", "sft ", "SFT", ["sigmoid"], ["sigmoid", "sft"], ["sft", "sft"], [], ["x"], [None]),
        *(["hinge", "aot"], ["exo_pair", "robust"], ["sigmoid", ["sft"]], {"sigmoid": 1.0}),
    ),
    "loss_weights": ([1.0], [1.0, 0.5], [0.0], [0.0, 1.0], [-1.0], [1e30], [], [float("nan")], [True]),
    "comparisons": (["ppo-sft"], ["ppo-ppo"], ["x"], ["sft-dpo", "sft-dpo"], ["-"]),
    "base_url": ("http://127.0.0.1:9/v1", "http://[", "http://x:99999", "ftp://x", "http://user:pw@x"),
    "launch": ("python", "python -X utf8", "accelerate launch", "bash", "sh -c true", "python; true", "$(true)"),
    "policy": ("sft", "ppo", "dpo", "SFT", "best_of_n"),
}

# Other ways of a section, from which its keys are mutated too.
OF_TRAINERS: tuple[dict[str, Any], ...] = (
    *(
        {"lora_r": 2},
        {"lora_r": 2, "lora_dropout": 0.5},
        {"optim": "sgd"},
        {"optim": "rmsprop"},
        {"optim": "adafactor"},
    ),
    *({"lr_scheduler_type": "polynomial"}, {"lr_scheduler_type": "cosine_with_restarts"}, {"freeze": ["embeddings"]}),
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 2}},
    {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 2.0},
)
OF_ROWS = ({"eval_strategy": "epoch"}, {"max_steps": -1, "num_train_epochs": 0.2}, {"gradient_accumulation_steps": 2})
WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "sft": (*OF_TRAINERS, *OF_ROWS),
    "judge": (*OF_TRAINERS, *OF_ROWS),
    "reward": (
        *(*OF_TRAINERS, *OF_ROWS, {"loss_type": "margin"}, {"loss_type": "ranking"}, {"loss_type": "mae"}),
        *({"loss_type": "mse", "bounded": True}, {"center_rewards_coefficient": 0.01}),
    ),
    "dpo": (
        *(*OF_TRAINERS, *OF_ROWS, {"loss_type": "ipo"}, {"loss_type": "robust", "label_smoothing": 0.1}),
        *({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}, {"use_weighting": True}, {"ld_alpha": 0.5}),
        *({"loss_type": "aot"}, {"loss_type": "discopop"}, {"f_divergence_type": "alpha_divergence"}),
    ),
    "ppo": (
        *(
            *OF_TRAINERS,
            {"critic": "separate"},
            {"critic": "lora", "lora_r": 2},
            {"kl_in": "loss", "kl_estimator": "k3"},
            {"critic": "none", "advantage_estimator": "reinforce"},
            {"critic": "none", "advantage_estimator": "grpo", "num_generations": 2, "scale_rewards": "group"},
        ),
        *(
            {"kl_target": 1.0},
            {"scale_rewards": "running"},
            {"ptx_coef": 0.5},
            {"dual_clip": 3.0},
            {"max_approx_kl": 0.1},
        ),
        *({"load_best_model_at_end": True}, {"num_generations": 2}, {"stop_strings": ["a"]}, {"whiten_rewards": True}),
        {"reward_funcs": ["models/reward", "rewards.examples:brevity"], "reward_weights": [1.0, 0.5]},
    ),
    "evaluate": ({"num_beams": 2}, {"temperatures": [0.0, 1.0]}, {"top_k": 5}, {"no_repeat_ngram_size": 2}),
    "prepare": (
        *(
            {"sft_responses": "above_score", "sft_min_score": 3.0},
            {"minhash_threshold": 0.7},
            {"pair_rule": "disjoint"},
        ),
        *({"tokenizer_name_or_path": "pretrained", "max_prompt_tokens": 64}, {"mixture": {"demo": {"max_rows": 100}}}),
    ),
}


class Mutation(NamedTuple):
    """changes: the new values by `section.key`; `...` where the key is taken away."""

    changes: dict[str, Any]
    params: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{name}: {ascii(value)[:120]}" for name, value in self.changes.items())

    @property
    def sections(self) -> list[str]:
        return list(dict.fromkeys(name.partition(".")[0] for name in self.changes))


def smoke() -> dict[str, Any]:
    """The smoke preset's params; one process, as a fork is."""
    params = Origin(["smoke"]).params()
    params["load"]["num_proc"] = params["prepare"]["num_proc"] = 1
    params["negatives"]["model_name_or_path"] = "models/sft"
    return params


def mutations(seed: int, number: int) -> Iterator[Mutation]:
    """So many of them, each of them one or two keys of a section."""
    random_ = random.Random(seed)
    start = smoke()
    names = [(section, key) for section, hint in SECTIONS.items() for key in get_type_hints(hint)]
    for _ in range(number):
        section, key = random_.choice([*names, ("launch", ""), ("policy", "")])
        others = [other for name, other in names if name == section and other != key]
        keys = [key, *(random_.sample(others, 1) if others and random_.random() < 0.4 else [])]
        params, changes = deepcopy(start), {}
        if random_.random() < 0.3 and section in WAYS:
            way = random_.choice(WAYS[section])
            params[section] |= deepcopy(way)
            changes = {f"{section}.{key}": value for key, value in way.items()}
        for key in keys:
            value = _value(random_, params, section, key)
            changes[f"{section}.{key}".rstrip(".")] = value
            place = params[section] if key else params
            if value is ...:
                del place[key or section]
            else:
                place[key or section] = deepcopy(value)
        yield Mutation(changes, params)


def _value(random_: random.Random, start: dict[str, Any], section: str, key: str) -> Any:
    """Another value of a key: most are of the right type, and most of those fit into the section."""
    now = start[section].get(key) if key else start[section]
    kind = random_.random()
    if kind < 0.03:
        return ...
    if kind < 0.15:
        return random_.choice([*WRONG, [now], {"x": now}, str(now)])
    values = list(NEAR.get(f"{section}.{key}", NEAR.get(key or section, ())))
    if not values:
        typed = _typed(get_type_hints(SECTIONS[section], include_extras=True)[key], now)
        values = [value for value in typed if type(value) is not type(now) or value != now]
    taken = [value for value in values if key and not isinstance(_examined(start, section, key, value), list)]
    return random_.choice(taken if taken and random_.random() < 0.6 else values)


def _examined(start: dict[str, Any], section: str, key: str, value: Any) -> Any:
    return examine(SECTIONS[section], {**start[section], key: value}, section)


def _typed(hint: Any, now: Any) -> list[Any]:
    """Values of a type hint, at its bounds and beyond."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [limit for bound in arguments[1:] for limit in vars(bound).values()]
        step = 1 if _is_whole(arguments[0]) else 1e-6
        edges = [type(step)(limit) + shift for limit in limits for shift in (-step, 0, step)]
        return [*_typed(arguments[0], now), *edges * 2]
    if origin in (Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        return [None, *_typed(options[0], now if now is not None else _start(options[0]))]
    if origin is Literal:
        return [*arguments * 3, *(str(word).upper() for word in arguments[:2]), f"{arguments[0]} ", arguments[0][:-1]]
    if origin in (list, dict) or is_dataclass(hint):
        return list(WRONG)
    if hint is bool:
        return [True, False]
    if hint is int:
        return [*INTS, *(now + shift for shift in (-1, 1)), now * 2, now * 3, now // 2, -now]
    return [*FLOATS, now * 2, now / 2, -now, now * 1.5] if hint is float else list(TEXTS)


def _is_whole(hint: Any) -> bool:
    return hint is int or int in get_args(hint)


def _start(hint: Any) -> Any:
    """Where a value is null: a usual one of its type."""
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return {int: 4, float: 0.5}.get(hint, "")
