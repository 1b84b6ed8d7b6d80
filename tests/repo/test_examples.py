"""The examples, as a user runs them."""

import os
import subprocess
import sys

import pytest
from project import ROOT
from reward_trainers import load
from tiny_models import TEXTS
from transformers import AutoTokenizer

from rlhf_lib.common.rows import write_jsonl

FLAGS = ("--width", "16", "--layers", "1", "--vocab-size", "120")


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
    """A folder with pairs to learn the tokenizer from, and an encoder."""
    folder = tmp_path_factory.mktemp("project")
    write_jsonl(folder / "data/splits/reward_train.jsonl", map(pair, TEXTS))
    done = run(folder, *FLAGS)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "models/encoder: a DistilBERT of" in done.stdout
    return folder


def test_a_reward_model_can_start_from_the_encoder(project):
    reward = load(project / "models/encoder", max_length=128)
    assert reward.tokenizer.chat_template is None and reward.model.num_labels == 1
    prompts = [pair(text)["prompt"] for text in TEXTS]
    assert len(set(reward.scores(prompts, ["Cat."] * len(prompts)))) > 1


def test_the_encoder_reads_a_pair(project):
    tokenizer = AutoTokenizer.from_pretrained(project / "models/encoder")
    batch = tokenizer(["Paint the cat"], ["the dog"])
    assert set(batch) == {"input_ids", "attention_mask"}
    tokens = ["[CLS]", "Paint", "the", "cat", "[SEP]", "the", "dog", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][0]) == tokens


def test_the_same_seed_gives_the_same_files(project):
    """The tokenizer too: WordPiece's trainer alone would number its tokens otherwise in every process."""
    first = {file.name: file.read_bytes() for file in (project / "models/encoder").iterdir()}
    assert {"model.safetensors", "tokenizer.json"} < first.keys()
    assert run(project, *FLAGS, "--output", "again").returncode == 0
    assert {file.name: file.read_bytes() for file in (project / "again").iterdir()} == first


def test_missing_pairs_are_told_in_one_line(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "data/splits/reward_train.jsonl" in done.stderr and "dvc repro" in done.stderr
