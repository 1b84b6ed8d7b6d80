"""The metrics, computed again from the samples by other code: of a run of the stages on tiny models, and of the
repository's own last run where its files are there.

Nothing of what the stages compute with is used here: plain loops, numpy, sacrebleu, rouge_score and the demo's scorer.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
import yaml
from project import DEMO, ROOT
from recomputed import NEAR, Run, check_best_of_n, check_calibration, check_dataset, check_policy, lines, won
from safetensors.torch import load_file, save_file
from tiny_models import IN_FP32

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
    """The files that stages evaluate, best_of_n and measure write. SFT has learnt all answers, PPO more of the best."""
    import torch

    from rlhf_lib.common import environment
    from rlhf_lib.models import loading as models
    from stages import best_of_n, evaluate, measure

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
    evaluated = yaml.safe_load(DEMO.read_text())["evaluate"]
    at_once = {name: {"per_device_eval_batch_size": 2} for name in ("reward", "judge")}
    evaluated |= {"samples_per_prompt": 3, "max_new_tokens": 12, "temperatures": [1.0, 0.7, 0.0]}
    sections = {"policy": "ppo", "compute": vars(IN_FP32), "evaluate": evaluated, "best_of_n": {"n": [2, 4]}, **at_once}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))
    each = {"foreach": ["sft", "ppo"], "do": {"cmd": "", "deps": ["models/sft", "models/${item}", "data/splits"]}}
    stages = {"evaluate": each, "best_of_n": {"cmd": "", "deps": ["models/sft", "data/splits"]}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(environment, "prepare", lambda: None)  # it comes before the first heavy import only
        for policy in ("sft", "ppo"):
            patch.setattr(sys, "argv", ["evaluate", policy])
            evaluate.main()
        best_of_n.main()
        for name in ("sft", "ppo", "best_of_n"):
            patch.setattr(sys, "argv", ["measure", name])
            measure.main()
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
