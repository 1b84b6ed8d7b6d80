"""The examples, as a user runs them."""

import os
import re
import subprocess
import sys

import pytest
from project import ROOT
from reward_trainers import load
from tiny_models import TEXTS
from transformers import AutoTokenizer

from rlhf_lib.common.rows import read_jsonl, write_jsonl

SUM = re.compile(r"What is ((\d) ([+-]) (\d) ([+-]) (\d) ([+-]) (\d))\?")
FLAGS = ("--width", "16", "--layers", "1", "--vocab-size", "120")


def run(folder, *flags, example="encoder_reward"):
    command = (sys.executable, "-m", f"examples.{example}", *flags)
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


# ---- sums


def test_the_sums_are_right_and_no_two_have_the_same_terms(tmp_path):
    done = run(tmp_path, example="arithmetic")
    assert (done.returncode, done.stdout) == (0, "arithmetic.jsonl: 3,778 sums\n")
    terms = []
    for row in read_jsonl(tmp_path / "arithmetic.jsonl"):
        found = SUM.fullmatch(row["prompt"])
        assert row == {"prompt": row["prompt"], "completion": str(row["solution"]), "solution": eval(found[1])}
        assert row["solution"] >= 0
        terms.append(
            tuple(
                sorted(
                    int(sign + digit)
                    for sign, digit in zip("+" + found[3] + found[5] + found[7], found.group(2, 4, 6, 8), strict=True)
                )
            )
        )
    assert len(set(terms)) == 3778
    first = (tmp_path / "arithmetic.jsonl").read_bytes()
    assert run(tmp_path, "--output", "again.jsonl", example="arithmetic").returncode == 0
    assert (tmp_path / "again.jsonl").read_bytes() == first


def test_the_share_of_right_answers_is_told(tmp_path):
    write_jsonl(tmp_path / "data/splits/test.jsonl", [{"id": "a", "solution": 7}, {"id": "b", "solution": 12}])
    for policy, said in (("sft", {"a": ["7", "8"], "b": ["12", "12"]}), ("ppo", {"a": ["7", "7"], "b": ["12", "12"]})):
        answers = [("a", "dataset", "7")] + [(key, "t1", text) for key, texts in said.items() for text in texts]
        rows = [{"id": key, "mode": mode, "response": text} for key, mode, text in answers]
        write_jsonl(tmp_path / f"data/samples/{policy}.jsonl", rows)
    done = run(tmp_path, "--share", example="arithmetic")
    # of two prompts the shares are a half and 1: their mean is 3/4, and its standard error a quarter
    assert done.stdout == "sft  t1       0.750 ± 0.250 right\nppo  t1       1.000 ± 0.000 right\n", done.stderr


def test_missing_samples_are_told_in_one_line(tmp_path):
    done = run(tmp_path, "--share", example="arithmetic")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "dvc repro" in done.stderr
