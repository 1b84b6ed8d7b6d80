"""The examples, as a user runs them."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, TEXTS

from rlhf_lib.rewards import STATISTICS_FILE, RewardModel
from rlhf_lib.rows import write_jsonl

FLAGS = ("--output", "quality", "--epochs", "1", "--width", "16", "--layers", "1", "--vocab-size", "120")


def run(folder, *flags):
    command = (sys.executable, "-m", "examples.encoder_reward", *flags)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def pair(text):
    answers = {"chosen": text.split()[2].capitalize(), "rejected": "I do not know. " * 3}
    messages = {key: [{"role": "assistant", "content": content}] for key, content in answers.items()}
    return {"prompt": [{"role": "user", "content": text}], **messages}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with splits of a few pairs, one of them longer than the encoder's context, and an encoder of them."""
    folder = tmp_path_factory.mktemp("project")
    pairs = [*map(pair, TEXTS), pair(f"Name the cat {'and the dog ' * 60}")]
    write_jsonl(folder / "data/splits/preference_train.jsonl", pairs * 4)
    write_jsonl(folder / "data/splits/preference_validation.jsonl", pairs[:5])
    done = run(folder, *FLAGS)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "quality: validation accuracy" in done.stdout
    return folder


def test_the_encoder_is_a_reward_model_of_normalised_scores(project):
    reward = RewardModel.load(project / "quality")
    assert reward.tokenizer.chat_template is None
    rows = [pair(text) for text in TEXTS[:5]]
    prompts = [row["prompt"] for row in rows] * 2
    rewards = reward(prompts, [row[key][0]["content"] for key in ("chosen", "rejected") for row in rows])
    # the validation answers themselves, so that their own mean and spread are taken out
    mean = sum(rewards) / len(rewards)
    assert mean == pytest.approx(0, abs=1e-3)
    assert sum((r - mean) ** 2 for r in rewards) / len(rewards) == pytest.approx(1, abs=1e-3)


def test_the_encoder_reads_a_pair(project):
    tokenizer = RewardModel.load(project / "quality").tokenizer
    batch = tokenizer(["Paint the cat"], ["the dog"])
    assert set(batch) == {"input_ids", "attention_mask"}
    tokens = ["[CLS]", "Paint", "the", "cat", "[SEP]", "the", "dog", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][0]) == tokens


def test_the_same_seed_gives_the_same_files(project):
    """The tokenizer too: WordPiece's trainer alone would number its tokens otherwise in every process."""
    first = {file.name: file.read_bytes() for file in (project / "quality").iterdir()}
    assert {"model.safetensors", "tokenizer.json", STATISTICS_FILE} < first.keys()
    assert run(project, *FLAGS, "--output", "again").returncode == 0
    assert {file.name: file.read_bytes() for file in (project / "again").iterdir()} == first


def test_missing_pairs_are_told_in_one_line(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "data/splits/preference_train.jsonl" in done.stderr
    assert "dvc repro prepare" in done.stderr
