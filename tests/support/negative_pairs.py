"""Pairs, params of stage negatives, and its samples."""

import shutil
from pathlib import Path

import pytest
from tiny_models import TEXTS

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.schema import check
from rlhf_lib.negatives import sampling as negatives
from rlhf_lib.negatives.params import NegativesParams

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARAMS = {
    **{"model_name_or_path": "models/sft", "num_negatives": 2, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
    **{"max_new_tokens": 6, "per_device_eval_batch_size": 2, "seed": 0},
}


def params(**changes):
    return check(NegativesParams, {**PARAMS, **changes}, "negatives")


def said(text):
    return [{"role": "assistant", "content": text}]


def pair(key, chosen, score, rejected="Bad.", prompt="Q?"):
    prompt = [{"role": "user", "content": prompt}]
    head = {"id": key, "source": "demo/facts", "prompt": prompt, "chosen": said(chosen), "rejected": said(rejected)}
    return {**head, "score_chosen": score, "score_rejected": 1.0}


PAIRS = [
    pair(f"{number:016x}-{i}", answer, score, prompt=text)
    for number, text in enumerate(TEXTS * 2)
    for i, (answer, score) in enumerate([("Cat.", 4.0), ("A dog.", 6.0)])
]


def prompts():
    return negatives.prompts(["data/splits/preference_train.jsonl"])


def sample(name="samples.jsonl", of=None, **changes):
    return negatives.sample(params(**changes), prompts() if of is None else of, Path(name))


@pytest.fixture
def project(ending, tmp_path, monkeypatch):
    """A folder with pairs and an SFT model, where the test runs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ending, "models/sft")
    write_jsonl("data/splits/preference_train.jsonl", PAIRS)
    write_jsonl("data/splits/reward_train.jsonl", PAIRS)
    Path("dvc.yaml").write_text("stages: {negatives: {cmd: x, deps: [data/splits], params: [negatives]}}\n")
    return tmp_path
