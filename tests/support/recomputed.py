"""The metrics of samples, computed by other code than the library's."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from rouge_score import rouge_scorer
from sacrebleu import BLEU, sentence_bleu
from torch.autograd import functional as autograd

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
    """Told are the mean of prompts' values and its error; of a share that is 0 or 1, that with which all come out alike
    once in 20 at two errors' distance."""
    assert told[key] == pytest.approx(np.mean(values), **NEAR), key
    if (key == "eos_rate" or "win_rate" in key) and set(values) in ({0.0}, {1.0}):
        assert (1 - 2 * told[f"{key}_se"]) ** len(values) == pytest.approx(0.05, rel=1e-3), f"{key}_se"
    elif len(values) > 1:
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
    check_length_control(told, samples, sft)
    references = [chosen[s["id"]]["response"] for s in fine]
    assert told["bleu"] == pytest.approx(BLEU().corpus_score([s["response"] for s in fine], [references]).score, **NEAR)
    for n in (1, 2):
        words = [s["response"].split() for s in samples]
        grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
        assert told[f"distinct_{n}"] == pytest.approx(len(set(grams)) / max(len(grams), 1), **NEAR)
    check_gold(told, samples, sft)


def check_length_control(told, samples, sft):
    """The regression on tanh of the length, maximised by torch, and its error by autograd."""
    pairs = [(s["id"], won(s["judge"], (o := sft[s["id"], s["draw"]])["judge"]), s, o) for s in samples]
    y = torch.tensor([pair[1] for pair in pairs], dtype=torch.float64)
    d = torch.tensor([len(s["response"]) - len(o["response"]) for *_, s, o in pairs], dtype=torch.float64)
    if told["judge_lc_win_rate"] is None:  # lengths alone tell wins from losses
        wins, losses = d[y > 0].tolist(), d[y < 1].tolist()
        assert min(wins) >= max(losses) or max(wins) <= min(losses)
        return
    if set(y.tolist()) <= {0.0} or set(y.tolist()) <= {1.0}:
        assert told["judge_lc_win_rate"] == y[0]
        return
    names = sorted({pair[0] for pair in pairs})
    place = torch.tensor([names.index(pair[0]) for pair in pairs])
    w = 1 / torch.bincount(place)[place].double()
    d = d / ((w * (d - (w * d).sum() / len(names)) ** 2).sum() / (len(names) - 1)).sqrt() if d.any() else d

    def penalised(b, without=-1):
        losses = torch.nn.functional.binary_cross_entropy_with_logits(b[0] + b[1] * torch.tanh(d), y, reduction="none")
        return (losses * w * (place != without)).sum() + b[1] ** 2 / 50

    b = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [b], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        penalised(b).backward()
        return penalised(b)

    search.step(closure)
    found, shifts = b.detach(), []
    for i in range(len(names)):
        slope, curvature = (f(partial(penalised, without=i), found) for f in (autograd.jacobian, autograd.hessian))
        shifts.append(torch.linalg.solve(curvature, slope)[0].item())
    inverse = torch.linalg.inv(autograd.hessian(penalised, found))
    variance = (len(names) - 1) / len(names) * np.sum(np.square(shifts)) + (inverse[0, 1] ** 2 / 25).item()
    rate = b[0].sigmoid().item()
    assert told["judge_lc_win_rate"] == pytest.approx(rate, **NEAR)
    error = rate * (1 - rate) * variance**0.5
    assert told["judge_lc_win_rate_se"] == pytest.approx(error, rel=2e-5, abs=1e-7)


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


def check_calibration(told, margins):
    """The expected calibration error in ten bins of the preferred answer's probability, from 0.5 to 1."""
    p = 1 / (1 + np.exp(-np.abs(margins)))
    right = np.array([won(m, 0) for m in margins])
    bins = np.minimum(((p - 0.5) * 20).astype(int), 9)
    error = sum(abs(right[bins == b].sum() - p[bins == b].sum()) for b in range(10)) / len(margins)
    assert told["ece"] == pytest.approx(error, **NEAR)
    assert sum(item["pairs"] for item in told["reliability"]) == len(margins)
