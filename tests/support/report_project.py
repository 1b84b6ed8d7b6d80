"""A folder with every file that the report reads, made up, in the formats that the stages write."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from lm_eval_entries import entry
from project import DEMO, ROOT

from rlhf_lib.common.files import write_curve, write_json
from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.measure.comparison import by_prompt
from rlhf_lib.measure.estimates import mean_and_se
from rlhf_lib.models.contract import Contract

MODES = {"t1": 2, "t0_7": 2, "greedy": 1}  # draws
SHIFT = {"sft": 0.0, "ppo": 0.5, "dpo": 0.25}  # in reward; true quality moves by a fifth of it
SOURCES = ("demo/facts", "demo/lists", "other")
WORDS = ("the", "leaf", "turns", "slowly", "over", "a", "river", "of", "small", "bright", "stones", "while", "evening")
CONTRACT = Contract(
    architecture="qwen2",
    layers="model.layers",
    num_layers=24,
    context=32_768,
    bos_token=None,
    stop_tokens=["<|im_end|>", "<|endoftext|>"],
    template="the model's own",
    template_date=None,
    new_tokens={},
    packs=True,
    padded_because=None,
)
Sample = dict[str, Any]

_MARKUP = '</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 1">\u2028<!-- & {{ 7 * 7 }}'
# What steers a terminal, or the direction of a text, is not shown.
NASTY, NASTY_SHOWN = _MARKUP + "\x1b]0;hacked\x07\x9b2J\x00\u202e", _MARKUP + "�]0;hacked��2J��"


def make_project(
    root: Path, prompts: int = 30, gold: bool = True, policies: tuple[str, ...] = ("sft", "ppo", "dpo"), **shift: float
) -> Path:
    """Write the files into `root`; `shift` moves a policy's reward, judge and true quality."""
    (root / "params.yaml").write_text(DEMO.read_text(encoding="utf-8"), encoding="utf-8")
    (root / "requirements.txt").write_text("jinja2==3.1.6\nno-such-library==1\n")
    (root / "dvc.lock").write_text(LOCK)
    samples = {
        policy: policy_samples(policy, prompts, gold, {**SHIFT, **shift}[policy]) for policy in ("sft", *policies)
    }
    for policy in policies:
        write_jsonl(root / f"data/samples/{policy}.jsonl", samples[policy])
        write_json(root / f"metrics/eval/{policy}.json", evaluation(samples[policy], samples["sft"], policy))
    write_json(root / "metrics/eval/best_of_n.json", best_of_n(gold))
    write_curve(root / "metrics/overoptimisation.tsv", overoptimisation(gold))
    for stage in ("reward", "judge"):
        write_json(root / f"metrics/{stage}/summary.json", {stage: scorer(stage)})
        write_jsonl(root / f"data/scores/{stage}.jsonl", scores(stage, prompts))
    write_training(root)
    write_json(root / "metrics/llm_judge.json", {"llm_judge": LLM_JUDGE})
    write_json(root / "metrics/lm_eval.json", {"models/ppo": {"facts": entry(0.6, diff=-0.1, model_md5=PPO_MD5)}})
    write_json(root / "metrics/data.json", DATA)
    (root / "models/base").mkdir(parents=True)
    CONTRACT.write(root / "models/base")
    return root


def make_nasty(root: Path) -> Path:
    """Put texts that a careless page would run, a prompt of two messages and a number that is not known into the first
    prompt's samples."""
    for policy in ("sft", "ppo", "dpo"):
        path = root / f"data/samples/{policy}.jsonl"
        rows = read_jsonl(path)
        for row in rows:
            if row["id"] == rows[0]["id"]:
                row["prompt"] = [{"role": "system", "content": "Be <i>brief</i>."}, {"role": "user", "content": NASTY}]
                row["response"] = NASTY
                del row["gold"]
        write_jsonl(path, rows)
    return root


def run_report(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.report", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(directory), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def policy_samples(policy: str, prompts: int, gold: bool, shift: float) -> list[Sample]:
    """Draws in every mode, and the dataset's own answers in mode "dataset"."""
    made = []
    for mode, draws in MODES.items():
        made += [sample(policy, mode, i, draw, gold, shift) for i in range(prompts) for draw in range(draws)]
    for i in range(prompts):
        for draw in range(2):
            scored = sample("data", "dataset", i, draw, gold, 0.3)
            made.append({**scored, "score": 9.0 - 3 * draw, "chosen": draw == 0})
    return made


def sample(policy: str, mode: str, i: int, draw: int, gold: bool, shift: float) -> Sample:
    common, own = random.Random(f"{mode} {i} {draw}"), random.Random(f"{policy} {mode} {i} {draw}")
    quality = common.gauss(0, 0.5) + own.gauss(0, 0.3) + shift
    ref = -own.uniform(2, 9)
    made = {
        "id": f"{i * 7919 % 100003:016x}",
        "source": SOURCES[i % len(SOURCES)],
        "mode": mode,
        "draw": draw,
        "prompt": [{"role": "user", "content": f"Question {i}: what is the plural of {WORDS[i % len(WORDS)]}?"}],
        "response": " ".join(own.choices(WORDS, k=own.randint(3, 30))).capitalize() + ".",
        "reward": quality + own.gauss(0, 0.2),
        "judge": quality + own.gauss(0, 0.3),
        "length": own.randint(5, 40),
        "finished": own.random() < 0.95,
        "logprob": ref + (0 if policy == "sft" else own.gauss(0.8, 0.8)),
        "ref_logprob": ref,
    }
    return (
        {**made, "gold": min(1.0, max(0.0, 0.5 + quality / 5)), "format": "word" if i % 2 else "list"} if gold else made
    )


def evaluation(samples: list[Sample], baseline: list[Sample], policy: str) -> dict[str, Any]:
    modes = {
        mode: numbers([s for s in samples if s["mode"] == mode], [s for s in baseline if s["mode"] == mode])
        for mode in MODES
    }
    dataset = {"perplexity": 1.6 + 0.1 * len(policy), "perplexity_se": 0.02, "pairs": 60}
    return {**modes, "dataset": {**dataset, "preference_accuracy": 0.7, "preference_accuracy_se": 0.03}}


def numbers(samples: list[Sample], baseline: list[Sample]) -> dict[str, Any]:
    sft = {(s["id"], s["draw"]): s for s in baseline}
    values = {
        "reward": lambda s: s["reward"],
        "judge": lambda s: s["judge"],
        "win_rate": lambda s: float(s["reward"] > sft[s["id"], s["draw"]]["reward"]),
        "judge_win_rate": lambda s: float(s["judge"] > sft[s["id"], s["draw"]]["judge"]),
        "judge_lc_win_rate": lambda s: float(s["judge"] > sft[s["id"], s["draw"]]["judge"] + 0.1),
        "win_rate_chosen": lambda s: float(s["reward"] > 0.4),
        "judge_win_rate_chosen": lambda s: float(s["judge"] > 0.4),
        "kl": lambda s: s["logprob"] - s["ref_logprob"],
        "length": lambda s: s["length"],
        "eos_rate": lambda s: s["finished"],
    }
    if "gold" in samples[0]:
        values |= {"gold": lambda s: s["gold"], "gold_gain": lambda s: s["gold"] - sft[s["id"], s["draw"]]["gold"]}
    made: dict[str, Any] = {}
    for key, value in values.items():
        made[key], made[f"{key}_se"] = mean_and_se(by_prompt(samples, value))
    for i, key in enumerate(("repetition", "distinct_1", "distinct_2", "rouge1", "rouge2", "rougeL")):
        made |= {key: 0.1 + 0.07 * i, f"{key}_se": 0.004}
    for i, key in enumerate(("self_bleu", "bleu", "sentence_bleu")):
        made |= {key: 12.3 + 11 * i, f"{key}_se": 0.8}
    if "gold" in samples[0]:
        formats = {s["format"] for s in samples}
        made["gold_by_format"] = {f: fmean(s["gold"] for s in samples if s["format"] == f) for f in formats}
    return made


def best_of_n(gold: bool) -> dict[str, Any]:
    made = {}
    for n in (2, 4, 8):
        bound = math.log(n) - (n - 1) / n
        entry = {"n": n, "kl_bound": bound}
        keys = {"reward": 0.6, "judge": 0.4, "length": 20.0, "win_rate": 0.7, "judge_win_rate": 0.6}
        for key, value in {**keys, **({"gold": 0.55, "gold_gain": 0.05} if gold else {})}.items():
            entry |= {key: value * (1 + 0.1 * math.sqrt(bound)), f"{key}_se": 0.03 * value}
        made[f"n{n}"] = entry
    return made


def overoptimisation(gold: bool, fall: float = 0.3) -> list[dict[str, Any]]:
    """A run whose reward rises throughout; its judge follows, its true quality falls after the middle."""
    rows: list[dict[str, Any]] = []
    for rollout in range(0, 101, 10):
        t = rollout / 100
        row = {"rollout": rollout, "reward": 1.5 * t, "reward_se": 0.05, "judge": math.sqrt(t), "judge_se": 0.05}
        known = {"gold": 0.5 + 0.2 * t - fall * max(0.0, t - 0.5) * 2, "gold_se": 0.015} if gold else {}
        rows.append({**row, "gold": None, "gold_se": None, **known, "kl": 6 * t * t, "kl_se": 0.1})
    return rows


def scorer(stage: str) -> dict[str, Any]:
    accuracy = 0.82 if stage == "reward" else 0.76
    gaps = {"0-0.5": 0.55, "0.5-1": 0.66, "1-2": 0.78, "2-4": 0.9, "4-10": 0.97}
    by_source = {source: {"accuracy": accuracy - 0.02 * i, "pairs": 400 - 100 * i} for i, source in enumerate(SOURCES)}
    bins = [
        {
            "probability": p,
            "accuracy_se": 0.02,
            "accuracy": p - (0.08 if stage == "judge" else 0.03) * math.sin(6.28 * p),
            "pairs": 120,
        }
        for p in (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
    ]
    return {
        **{"accuracy": accuracy, "accuracy_se": 0.012, "pairs": 1330, "gold_accuracy": accuracy + 0.04},
        **{"gold_pairs": 1263, "loss": 0.266, "mean": -0.95, "std": 2.58, "train_pairs": 6908},
        **{"validation_accuracy": 0.83, "ece": 0.031, "reliability": bins, "accuracy_by_source": by_source},
        "accuracy_by_gap": {gap: {"accuracy": share, "pairs": 200} for gap, share in gaps.items()},
    }


def scores(stage: str, prompts: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(prompts):
        for response in range(4):
            common, own = random.Random(f"score {i} {response}"), random.Random(f"{stage} {i} {response}")
            score = common.randint(2, 20) / 2
            place = {"id": f"{i * 7919 % 100003:016x}", "source": SOURCES[i % len(SOURCES)], "response": response}
            rows.append({**place, "score": score, "target": score / 10, "reward": score / 3 + own.gauss(0, 0.8)})
    return rows


def write_training(root: Path) -> None:
    """Falling losses, rising rewards, with noise."""
    for stage in ("sft", "reward", "judge", "dpo", "ppo"):
        noise = random.Random(stage)

        def row(step: int, prefix: str, spread: float, noise: random.Random = noise) -> dict[str, float]:
            down, up = 2 * math.exp(-step / 80) + 0.45, 1 - math.exp(-step / 120)
            values = {"loss": down, "accuracy": 0.5 + 0.35 * up, "rewards/margins": up, "reward": up, "kl": 1.4 * up}
            values |= {"entropy": down, "length": 20 - 8 * up}
            return {"step": step, **{f"{prefix}{k}": v + noise.gauss(0, spread) for k, v in values.items()}}

        write_curve(root / f"metrics/{stage}/train.tsv", [row(step, "", 0.04) for step in range(5, 405, 5)])
        write_curve(root / f"metrics/{stage}/eval.tsv", [row(step, "eval_", 0.01) for step in range(100, 401, 100)])


PPO_MD5 = "fedcba9876543210fedcba9876543210.dir"
LOCK = f"""schema: '2.0'
stages:
  prepare:
    cmd: python -m stages.prepare
    outs:
    - path: data/splits/test.jsonl
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 10
  ppo:
    cmd: python -m stages.ppo
    outs:
    - path: models/ppo
      hash: md5
      md5: {PPO_MD5}
      size: 10
    - path: metrics/ppo/summary.json
      hash: md5
      md5: 00000000000000000000000000000000
      size: 10
"""
DATA = {
    "rows_in": 4886,
    "rows_kept": 4600,
    "rejected_by_load": {"empty_prompt": {"demo/facts": 5, "demo/tasks": 1}},
    "dropped_rows": {"duplicate_prompt": {"demo/facts": 85, "demo/lists": 13}, "foreign_prompt": {"demo/foreign": 184}},
    "dropped_responses": {"duplicate_response": {"demo/facts": 1940}},
    "truncated": {},
    "splits": {
        "preference_train": {"prompts": 1927, "rows": 6908, "mean_score_chosen": 8.31804, "mean_score_gap": 3.0566},
        "test": {"prompts": 348, "rows": 348, "rows_by_source": {"demo/facts": 300}},
    },
}
LLM_JUDGE = {
    name: {
        **{
            "prompts": 100,
            "win_rate": rate,
            "win_rate_se": 0.04,
            "lc_win_rate": rate - 0.05,
            "lc_win_rate_se": 0.05,
            "wins": 55,
            "ties": 10,
            "losses": 35,
        },
        **{"position_agreement": 0.83, "unparsed": 1, "refused": 0, "inconsistent": 6, "identical": 2},
    }
    for name, rate in (("ppo-sft", 0.61), ("dpo-sft", 0.57), ("ppo-dpo", 0.53))
} | {"requests": 600, "prompt_tokens": 123456, "completion_tokens": 1200, "cost": 0.0193}
