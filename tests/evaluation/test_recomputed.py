"""The metrics, computed again from the samples by other code: of a run of the stages on tiny models, and of the
repository's own last run where its files are there.

Nothing of what the stages compute with is used here: plain loops, numpy, sacrebleu, rouge_score and the demo's scorer.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from project import ROOT
from rouge_score import rouge_scorer
from sacrebleu import BLEU, sentence_bleu
from safetensors.torch import load_file, save_file
from tiny_models import IN_FP32

# Metrics have six significant digits.
NEAR = {"rel": 2e-5, "abs": 1e-9}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_prompts(samples, value):
    """The mean of the values of each prompt's draws."""
    values = defaultdict(list)
    for s in samples:
        values[s["id"]].append(value(s))
    return [np.mean(v) for v in values.values()]


def won(one, other):
    return 1.0 if one > other else 0.5 if one == other else 0.0


class Run:
    """The files of one run of the pipeline, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def samples(self, policy):
        return lines(self.folder / f"data/samples/{policy}.jsonl")

    def metrics(self, policy):
        return json.loads((self.folder / f"metrics/eval/{policy}.json").read_text(encoding="utf-8"))


def check_means(told, values, key):
    """Told are the mean of prompts' values and its error."""
    assert told[key] == pytest.approx(np.mean(values), **NEAR), key
    if len(values) > 1:
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        assert told[f"{key}_se"] == pytest.approx(error, rel=2e-5, abs=1e-7), f"{key}_se"


def check_mode(told, samples, sft, chosen):
    """The numbers of a mode. `sft` are by prompt and draw, `chosen` by prompt."""
    fine = [s for s in samples if s["id"] in chosen]
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    values = {
        "reward": (samples, lambda s: s["reward"]),
        "judge": (samples, lambda s: s["judge"]),
        "win_rate": (samples, lambda s: won(s["reward"], sft[s["id"], s["draw"]]["reward"])),
        "judge_win_rate": (samples, lambda s: won(s["judge"], sft[s["id"], s["draw"]]["judge"])),
        "win_rate_chosen": (fine, lambda s: won(s["reward"], chosen[s["id"]]["reward"])),
        "judge_win_rate_chosen": (fine, lambda s: won(s["judge"], chosen[s["id"]]["judge"])),
        "kl": (samples, lambda s: s["logprob"] - s["ref_logprob"]),
        "length": (samples, lambda s: s["length"]),
        "eos_rate": (samples, lambda s: 1.0 if s["finished"] else 0.0),
        "repetition": (samples, lambda s: repeated(s["response"].split())),
        "sentence_bleu": (fine, lambda s: sentence_bleu(s["response"], [chosen[s["id"]]["response"]]).score),
    }
    for kind in ("rouge1", "rouge2", "rougeL"):
        values[kind] = (
            fine,
            lambda s, kind=kind: scorer.score(chosen[s["id"]]["response"], s["response"])[kind].fmeasure,
        )
    for key, (rows, value) in values.items():
        check_means(told, of_prompts(rows, value), key)
    references = [chosen[s["id"]]["response"] for s in fine]
    assert told["bleu"] == pytest.approx(BLEU().corpus_score([s["response"] for s in fine], [references]).score, **NEAR)
    for n in (1, 2):
        words = [s["response"].split() for s in samples]
        grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
        assert told[f"distinct_{n}"] == pytest.approx(len(set(grams)) / max(len(grams), 1), **NEAR)
    check_gold(told, samples, sft)


def repeated(words):
    grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def check_gold(told, samples, sft):
    """True quality, by the demo's scorer itself."""
    assert ("gold" in told) == all(s["source"].startswith("demo/") for s in samples)
    if "gold" not in told:
        return
    from rlhf_lib.demo import gold

    truth = {id(s): gold.gold(s["prompt"][-1]["content"], s["response"]) for s in samples}
    assert all(s["gold"] == pytest.approx(truth[id(s)]) for s in samples)
    check_means(told, of_prompts(samples, lambda s: truth[id(s)]), "gold")
    check_means(told, of_prompts(samples, lambda s: truth[id(s)] - sft[s["id"], s["draw"]]["gold"]), "gold_gain")
    for name, quality in told["gold_by_format"].items():
        assert quality == pytest.approx(np.mean([s["gold"] for s in samples if s["format"] == name]), **NEAR)


def check_dataset(told, own):
    """Perplexity of the chosen responses, and preference accuracy of the log-ratios."""
    chosen = [s for s in own if s["chosen"]]
    nats, tokens = -sum(s["logprob"] for s in chosen), sum(s["length"] for s in chosen)
    assert told["perplexity"] == pytest.approx(math.exp(nats / tokens), **NEAR)
    rows = defaultdict(list)
    for s in own:
        rows[s["id"]].append((s["score"], s["logprob"] - s["ref_logprob"]))
    right = [won((a - b) * (r - q), 0.0) for row in rows.values() for (a, r), (b, q) in combinations(row, 2) if a != b]
    assert told["pairs"] == len(right)
    assert told["preference_accuracy"] == pytest.approx(np.mean(right), **NEAR)


def check_policy(run, policy):
    samples, sft, told = run.samples(policy), run.samples("sft"), run.metrics(policy)
    own = [s for s in samples if s["mode"] == "dataset"]
    chosen = {}
    for s in own:  # the first of the highest score
        if s["id"] not in chosen or s["score"] > chosen[s["id"]]["score"]:
            chosen[s["id"]] = s
    assert {id(s) for s in chosen.values()} == {id(s) for s in own if s["chosen"]}
    assert set(told) == {s["mode"] for s in samples}
    for mode in set(told) - {"dataset"}:
        paired = {(s["id"], s["draw"]): s for s in sft if s["mode"] == mode}
        check_mode(told[mode], [s for s in samples if s["mode"] == mode], paired, chosen)
    check_dataset(told["dataset"], own)


def check_best_of_n(run):
    """The mean over all subsets, one by one; n of N."""
    told, candidates = run.metrics("best_of_n"), run.samples("best_of_n")
    prompts = defaultdict(list)
    for s in candidates:
        prompts[s["id"]].append(s)
    for numbers in told.values():
        n = numbers["n"]
        assert numbers["kl_bound"] == pytest.approx(math.log(n) - 1 + 1 / n, **NEAR)
        for key in ("reward", "judge", "length", "gold"):
            if key in numbers:
                check_means(numbers, [best(own, n, key) for own in prompts.values()], key)


def best(candidates, n, key):
    found = []
    for chosen in combinations(candidates, n):
        top = max(s["reward"] for s in chosen)
        found.append(np.mean([s[key] for s in chosen if s["reward"] == top]))
    return np.mean(found)


# ---- a run of the stages on tiny models

ROWS = [
    ("Name the sound of a wolf. Finish with a good wish.", [("It is howl.", 6.0), ("Cat.", 2.0), ("Howl.", 6.0)]),
    ("Name the sound of a cow.", [("Moo.", 7.0), ("The cow.", 7.5), ("The sound of a cow is moo.", 9.0)]),
    ("Describe the sky in one word.", [("Blue.", 3.0), ("A dog in the sky.", 3.0)]),
    ("What is a dog?", [("A cat.", 1.0)]),
    ("Paint the cat.", [("The cat, the cat in the cat, the cat in the sky.", 2.0), ("Paint the cat.", 4.0)]),
]


def teach(model, tokenizer, answers, steps):
    """Fit a tiny model to (prompt, answer) pairs, so that what it says has words in it."""
    import torch

    from rlhf_lib.models.chat import dialogue_ids

    rows = [dialogue_ids(tokenizer, [{"role": "user", "content": prompt}], answer) for prompt, answer in answers]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        ids = torch.tensor([rows[step % len(rows)]])
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def tiny_run(tiny, tmp_path_factory):
    """The files that stages evaluate and best_of_n write. SFT has learnt all answers, PPO more of the best."""
    import torch

    from rlhf_lib.common import environment
    from rlhf_lib.models import loading as models
    from stages import best_of_n, evaluate

    folder = tmp_path_factory.mktemp("run")
    policy, tokenizer = models.load_policy(tiny.policy), models.load_tokenizer(tiny.policy)
    teach(policy, tokenizer, [(prompt, text) for prompt, responses in ROWS for text, _ in responses], 120)
    models.save(policy, tokenizer, folder / "models/sft")
    teach(policy, tokenizer, [(prompt, max(responses, key=lambda r: r[1])[0]) for prompt, responses in ROWS], 15)
    models.save(policy, tokenizer, folder / "models/ppo")
    for name, mean in (("reward", 0.1), ("judge", -0.2)):
        shutil.copytree(tiny.reward, folder / "models" / name)
        (folder / "models" / name / "reward_statistics.json").write_text(json.dumps({"mean": mean, "std": 0.5}))
    judge = folder / "models/judge/model.safetensors"
    weights = load_file(judge)
    weights["score.weight"] += torch.randn(weights["score.weight"].shape, generator=torch.Generator().manual_seed(0))
    save_file(weights, judge, {"format": "pt"})

    rows = [
        {
            "id": f"{i}",
            "source": "demo/facts",
            "prompt": [{"role": "user", "content": prompt}],
            "responses": [{"content": text, "score": score, "target": 0.0} for text, score in responses],
        }
        for i, (prompt, responses) in enumerate(ROWS)
    ]
    (folder / "data/splits").mkdir(parents=True)
    (folder / "data/splits/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluated = yaml.safe_load((ROOT / "params.yaml").read_text())["evaluate"]
    evaluated |= {"samples_per_prompt": 3, "max_new_tokens": 12, "temperatures": [1.0, 0.7, 0.0]}
    sections = {"policy": "ppo", "compute": vars(IN_FP32), "evaluate": evaluated, "best_of_n": {"n": [2, 4]}}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(environment, "prepare", lambda: None)  # it comes before the first heavy import only
        for policy in ("sft", "ppo"):
            patch.setattr(sys, "argv", ["evaluate", policy])
            evaluate.main()
        best_of_n.main()
    return Run(folder)


@pytest.mark.parametrize("policy", ["sft", "ppo"])
def test_the_metrics_are_those_of_the_samples(tiny_run, policy):
    check_policy(tiny_run, policy)


def test_the_best_of_n_is_that_of_the_candidates(tiny_run):
    assert set(tiny_run.metrics("best_of_n")) == {"n2", "n4"}
    check_best_of_n(tiny_run)
    sft = [s["response"] for s in tiny_run.samples("sft") if s["mode"] == "t1"]
    assert [s["response"] for s in tiny_run.samples("best_of_n") if s["draw"] < 3] != sft  # draws of their own


def test_the_run_has_something_to_check(tiny_run):
    """Numbers that are 0 or even everywhere would agree whatever was computed."""
    ppo = tiny_run.metrics("ppo")["t1"]
    assert ppo["kl"] > 0.1 and ppo["win_rate"] != 0.5 and ppo["judge"] != ppo["reward"]
    modes = [tiny_run.metrics(policy)[mode] for policy in ("sft", "ppo") for mode in ("t1", "t0_7")]
    for key in ("bleu", "sentence_bleu", "rouge2", "rougeL", "gold", "repetition", "distinct_2", "eos_rate"):
        assert max(mode[key] for mode in modes) > 0, key


def test_a_wrong_number_is_found(tiny_run):
    told = tiny_run.metrics("ppo")
    own = [s for s in tiny_run.samples("ppo") if s["mode"] == "dataset"]
    check_dataset(told["dataset"], own)
    with pytest.raises(AssertionError):
        check_dataset({**told["dataset"], "perplexity": told["dataset"]["perplexity"] * 1.0001}, own)


# ---- the repository's own last run


def needs(*paths):
    absent = [path for path in paths if not (ROOT / path).is_file()]
    return pytest.mark.skipif(bool(absent), reason=f"not there (dvc repro writes it): {', '.join(absent)}")


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(
            p, marks=needs(f"data/samples/{p}.jsonl", f"metrics/eval/{p}.json", "data/samples/best_of_n.jsonl")
        )
        for p in ("sft", "ppo", "dpo")
    ],
)
def test_the_metrics_of_the_last_run_are_those_of_its_samples(policy):
    check_policy(Run(ROOT), policy)


@needs("data/samples/best_of_n.jsonl", "metrics/eval/best_of_n.json")
def test_the_best_of_n_of_the_last_run_is_that_of_its_candidates():
    check_best_of_n(Run(ROOT))


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(s, marks=needs(f"data/scores/{s}.jsonl", f"metrics/{s}/summary.json", "data/samples/sft.jsonl"))
        for s in ("reward", "judge")
    ],
)
def test_the_reward_models_metrics_of_the_last_run_are_those_of_its_scores(stage):
    told = json.loads((ROOT / f"metrics/{stage}/summary.json").read_text())[stage]
    scores = lines(ROOT / f"data/scores/{stage}.jsonl")
    rows = defaultdict(list)
    for s in scores:
        rows[s["id"]].append(s)
    margins = [
        (a["reward"] - b["reward"]) * (1 if a["score"] > b["score"] else -1)
        for row in rows.values()
        for a, b in combinations(row, 2)
        if a["score"] != b["score"]
    ]
    assert told["pairs"] == len(margins)
    assert told["accuracy"] == pytest.approx(np.mean([won(m, 0) for m in margins]), **NEAR)
    if told.get("ece") is not None:
        check_calibration(told, margins)
    for s in lines(ROOT / "data/samples/sft.jsonl"):
        if s["mode"] == "dataset":  # the same answers, in other batches
            raw = rows[s["id"]][s["draw"]]["reward"]
            assert s[stage] == pytest.approx((raw - told["mean"]) / told["std"], abs=2e-3)


def check_calibration(told, margins):
    """The expected calibration error in ten bins of the preferred answer's probability, from 0.5 to 1."""
    p = 1 / (1 + np.exp(-np.abs(margins)))
    right = np.array([won(m, 0) for m in margins])
    bins = np.minimum(((p - 0.5) * 20).astype(int), 9)
    error = sum(abs(right[bins == b].sum() - p[bins == b].sum()) for b in range(10)) / len(margins)
    assert told["ece"] == pytest.approx(error, **NEAR)
    assert sum(item["pairs"] for item in told["reliability"]) == len(margins)
