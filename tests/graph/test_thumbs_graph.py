"""The whole graph with real DVC on thumbs alone, and KTO beside DPO on pairs."""

from __future__ import annotations

import json

import pytest
import yaml
from copied_project import commit, copy_of_project, executed, run

from rlhf_lib.common.rows import read_jsonl, write_jsonl

pytestmark = pytest.mark.slow

VERBS, THINGS = ("paint", "clean", "store", "lift", "sell"), ("kettle", "bicycle", "lantern", "ladder")
PROMPTS = [f"How do I {verb} a {thing} at home?" for verb in VERBS for thing in THINGS]


def changed(folder, **changes):
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] = {**params[section], **values} if isinstance(values, dict) else values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    commit(folder)


def test_thumbs_alone(tmp_path):
    copy_of_project(tmp_path)
    answers = ("Take a soft cloth and go slowly", True), ("No idea", False)
    records = [
        {"prompt": f"{prompt} Number {n}.", "completion": f"{text}, {n}.", "label": label}
        for n, prompt in enumerate(PROMPTS * 4)
        for text, label in answers[n % 2 : n % 2 + 1]
    ]
    write_jsonl(tmp_path / "thumbs.jsonl", records)
    load = {"sources": [{"reader": "file", "path": "thumbs.jsonl"}]}
    changed(tmp_path, load=load, methods={"kto": True}, policy="kto", kto={"desirable_weight": 3.0})
    told = run(tmp_path, "dvc", "repro")
    why = "left out: only thumbs: no pairs; kto learns from them (methods.kto=true)"
    assert all(f"{stage}: {why}\n" in told for stage in ("reward", "judge", "reference", "dpo", "ppo"))
    assert "where 1 to 1.33 is advised; set kto." in told and "kto: left out" not in told
    learnt = read_jsonl(tmp_path / "data/splits/sft_train.jsonl")
    assert all(row["completion"][0]["content"].startswith("Take") for row in learnt)
    summary = json.loads((tmp_path / "metrics/kto/summary.json").read_text())["kto"]
    thumbs = read_jsonl(tmp_path / "data/splits/thumbs_train.jsonl")
    assert summary["good"] + summary["bad"] == len(thumbs) > 10 and summary["validation_loss"] > 0
    measured = json.loads((tmp_path / "metrics/eval/kto.json").read_text())["t1"]
    assert measured["kl"] > -3 * measured["kl_se"] and "reward" not in measured  # an estimate, which may be below 0
    assert json.loads((tmp_path / "metrics/policy.json").read_text())["eval"]["kl"] == measured["kl"]
    assert "KTO" in (tmp_path / "report/index.html").read_text()
    assert executed(run(tmp_path, "dvc", "repro")) == []
    run(tmp_path, "dvc", "plots", "show")
    # other thumbs run no stage again that has no use for them
    write_jsonl(tmp_path / "thumbs.jsonl", records[:-1])
    assert {"reward", "dpo"} & set(executed(run(tmp_path, "dvc", "repro"))) == set()


def test_kto_beside_dpo_on_the_same_pairs(tmp_path):
    copy_of_project(tmp_path)
    run(tmp_path, "dvc", "repro", "measure@dpo", "kto")
    params = {"methods": {"kto": True}}
    changed(tmp_path, **params)
    ran = executed(run(tmp_path, "dvc", "repro", "measure@kto", "measure@dpo"))
    assert ran == ["kto", "evaluate@kto", "measure@kto"]
    sides = {True: "chosen", False: "rejected"}
    pairs = read_jsonl(tmp_path / "data/splits/preference_train.jsonl")
    thumbs = read_jsonl(tmp_path / "data/splits/thumbs_train.jsonl")
    of_pairs = [(p["prompt"], p[side], side) for p in pairs for side in ("chosen", "rejected")]
    assert [(t["prompt"], t["completion"], sides[t["label"]]) for t in thumbs] == of_pairs
