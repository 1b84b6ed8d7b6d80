"""What the check says of the rows, models and tokenizers at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from encoders import CONTEXT, save_encoder
from project import ROOT
from shipped_params import shipped
from tiny_models import TEXTS as KNOWN
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration, ViTConfig

from rlhf_lib.base.model import fresh_tokenizer
from rlhf_lib.check import __main__ as command
from rlhf_lib.check import models
from rlhf_lib.check.sections import valid_sections

pytestmark = pytest.mark.usefixtures("folder")

TEXTS = [f"Name {n} things that are larger than a house, please." for n in range(40)]


def with_values(changes: dict[str, Any]) -> dict[str, Any]:
    params = shipped()
    for name, value in changes.items():
        section, _, key = name.partition(".")
        params[section][key] = value
    return params


def told(changes: dict[str, Any]) -> list[str]:
    """The faults of the shipped params with some values changed, less the file's name."""
    found, _ = command.check(with_values(changes))
    assert all(text.startswith("params.yaml: ") and text.isprintable() for text in found)
    return [text.removeprefix("params.yaml: ") for text in found]


def write_rows(number: int, words: int = 5, word: str = "good") -> dict[str, Any]:
    """A file of preference rows, and the change that makes it the source."""
    pairs = ((f"{word} " * words + str(n), "bad " * words + str(n)) for n in range(number))
    rows = [{"prompt": f"Tell me of {n}.", "chosen": one, "rejected": other} for n, (one, other) in enumerate(pairs)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"load.sources": [{"reader": "file", "path": "rows.jsonl"}]}


def save_model(path: str, **config: Any) -> str:
    tokenizer = fresh_tokenizer(TEXTS, 300)
    sizes = {"n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 200, "vocab_size": len(tokenizer), **config}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


# ---- rows


def test_the_demo_and_good_rows_of_ones_own_have_no_fault():
    assert command.check(shipped()) == ([], [])
    assert told(write_rows(300)) == []


def test_shares_that_leave_splits_small_are_a_note():
    found, notes = command.check(with_values({**write_rows(6), "prepare.validation_share": 0.01}))
    assert found == []
    assert any(note.startswith("no prompt was left for ") and "validation" in note for note in notes)
    assert any(note.startswith("fewer than 30 prompts in ") and "test 1" in note for note in notes)


def test_lengths_that_drop_most_pairs_are_told():
    changes = {**write_rows(300, words=60), "reward.max_length": 40, "judge.max_length": 70}
    (fault,) = told(changes)
    assert fault.startswith("reward.max_length: ") and fault.endswith("pairs are longer than 40 tokens; raise it")


def test_limits_that_drop_most_prompts_are_told():
    save_model("mine")
    changes = {"prepare.tokenizer_name_or_path": "./mine", "prepare.max_prompt_tokens": 3}
    faults = told({**write_rows(450), **changes})
    assert faults == [] or faults[0].startswith("prepare.max_prompt_tokens: ")
    assert told({**write_rows(300), **changes}), "every row is dropped"


def test_batches_larger_than_the_rows_are_a_note():
    changes = {"dpo.per_device_train_batch_size": 999, "judge.per_device_train_batch_size": 8}
    found, notes = command.check(with_values({**write_rows(300), **changes}))
    sizes = [note for note in notes if "batch_size" in note]
    assert found == [] and len(sizes) == 1
    assert sizes[0].startswith("dpo.per_device_train_batch_size: 999, but there are ")


def test_batches_of_stages_that_are_left_out_are_no_note():
    rows = [{"prompt": f"Tell me of {n}.", "completion": f"good {n}"} for n in range(300)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, notes = command.check(with_values({"load.sources": [{"reader": "file", "path": "rows.jsonl"}]}))
    assert found == [] and any(note.startswith("left out: reward, judge, dpo: ") for note in notes)
    assert not [note for note in notes if "batch_size" in note]


def test_a_broken_file_is_one_line():
    Path("rows.jsonl").write_text('{"prompt": 1\n')
    (fault,) = told({"load.sources": [{"reader": "file", "path": "rows.jsonl"}]})
    assert fault.startswith("load.sources: rows.jsonl: line 1: not JSON")


# ---- models


def test_a_model_in_a_directory_has_no_fault():
    path = save_model("mine")
    adapters = {"lora_r": 4, "lora_target_modules": ["c_attn"]}
    lora = {f"{name}.{key}": value for name in ("sft", "reward", "dpo") for key, value in adapters.items()}
    assert told({"base.model_name_or_path": f"./{path}", **lora}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sft.lora_r": 4, "sft.lora_target_modules": ["lm_head"]}, ["sft.lora_target_modules: lm_head is the head"]),
        ({"dpo.lora_r": 4, "dpo.lora_target_modules": ["wte"]}, ["dpo.lora_target_modules: wte is the embedding"]),
        (
            {"reward.lora_r": 4, "reward.lora_target_modules": ["score"]},
            ["reward.lora_target_modules: score is the head"],
        ),
        ({"ppo.lora_r": 4, "ppo.lora_target_modules": ["q_proj"]}, ["ppo.lora_target_modules: ['q_proj']: "]),
        ({"sft.freeze": ["0-9"]}, ["sft.freeze: 0-9: the model has layers 0 to 3"]),
    ],
)
def test_parts_that_cannot_be_trained_are_told(changes, words):
    (fault,) = told(changes)
    assert all(word in fault for word in words), fault


def test_lengths_above_the_models_context_are_told():
    assert told({"base.model_name_or_path": f"./{save_model('mine', n_positions=100)}"}) == [
        f"{name}.max_length: 128 tokens, but the model attends to 100; lower it"
        for name in ("sft", "reference", "reward", "judge")
    ]


def test_reward_bases_that_cannot_read_pairs_are_told():
    tokenizer = fresh_tokenizer(TEXTS, 300)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": len(tokenizer)}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained("seq2seq")
    ViTConfig(hidden_size=8).save_pretrained("vision")
    for name in ("seq2seq", "vision"):
        tokenizer.save_pretrained(name)
    faults = told({"reward.model_name_or_path": "./seq2seq", "judge.model_name_or_path": "./vision"})
    kinds = {"reward": "./seq2seq is an encoder-decoder", "judge": "./vision is of the kind vit"}
    assert faults == [
        f"{name}.model_name_or_path: {kind}, which cannot read pairs; name a decoder or an encoder"
        for name, kind in kinds.items()
    ]
    (fault,) = told({"base.model_name_or_path": "./seq2seq"})
    assert fault == "base.model_name_or_path: a t5 is no causal language model; name one that is"


def test_an_encoder_is_a_reward_base_for_texts_that_it_knows():
    save_encoder(Path("encoder"), "distilbert")
    sections = valid_sections(with_values({"reward.model_name_or_path": "./encoder", "reward.max_length": CONTEXT}))
    assert list(models.faults(sections, KNOWN)) == []
    (fault,) = models.faults(sections, ["Zwölf Boxkämpfer jagen Viktor."])
    assert fault.startswith("reward.model_name_or_path: the tokenizer of ./encoder loses 1 of 1 texts: 'Zwölf ")
    sections = valid_sections(with_values({"reward.model_name_or_path": "./encoder"}))
    told = f"reward.max_length: 128 tokens, but the model attends to {CONTEXT}; lower it"
    assert list(models.faults(sections, KNOWN)) == [told]


# ---- tokenizers


def test_a_model_without_a_tokenizer_is_told():
    save_model("mine")
    for file in Path("mine").glob("*token*"):
        file.unlink()
    (fault,) = told({"base.model_name_or_path": "./mine"})
    assert fault.startswith("base.model_name_or_path: ") and "tokenizer" in fault


def test_a_tokenizer_that_loses_text_is_told():
    save_model("mine")
    file = Path("mine/tokenizer.json")
    saved = json.loads(file.read_text())
    saved["normalizer"] = {"type": "Replace", "pattern": {"String": "i"}, "content": ""}
    file.write_text(json.dumps(saved))
    assert told({"base.model_name_or_path": "./mine", **write_rows(300)}) == []  # no answer has an i
    (fault,) = told({"base.model_name_or_path": "./mine", **write_rows(300, word="nice")})
    assert fault.startswith("base.model_name_or_path: the tokenizer of ./mine loses 20 of 20 texts: 'nice nice ")


def test_a_tokenizer_that_loses_a_sign_here_and_there_is_taken():
    save_model("mine")
    tokenizer = AutoTokenizer.from_pretrained("mine")
    texts = ["Zoë paid 5 €.", *TEXTS]
    assert list(models._losses("x", "mine", tokenizer, texts, True)) == []


# ---- the command


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process that cannot import torch."""
    (folder / "torch.py").write_text("raise AssertionError('torch was imported')")
    return subprocess.run(
        [sys.executable, "-m", "rlhf_lib.check"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_needs_no_torch_and_tells_all_faults(folder: Path):
    done = run(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (folder / "params.yaml").write_text(yaml.safe_dump(with_values({"sft.seed": -1, "prepare.mixture": {"x": {}}})))
    done = run(folder)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "params.yaml: sft.seed: must be at least 0, got -1",
        "params.yaml: prepare.mixture.x: no source of that name; load.sources has: demo",
    ]


def test_params_that_are_no_yaml_are_one_line(folder: Path):
    (folder / "params.yaml").write_text("policy: [\n")
    done = run(folder)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
