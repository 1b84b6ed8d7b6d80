"""What the check says of the models and tokenizers at hand, and its command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checked import TEXTS, save_model, told, with_values, write_rows
from encoders import CONTEXT, save_encoder
from project import ROOT
from tiny_models import TEXTS as KNOWN
from transformers import (
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from rlhf_lib.base.model import fresh_tokenizer
from rlhf_lib.check import models
from rlhf_lib.check.sections import valid_sections

pytestmark = pytest.mark.usefixtures("folder")


# ---- models


def test_a_model_in_a_directory_has_no_fault():
    path = save_model("mine")
    adapters = {"lora_r": 4, "lora_target_modules": ["c_attn"]}
    lora = {f"{name}.{key}": value for name in ("sft", "reward", "dpo") for key, value in adapters.items()}
    assert told({"base.model_name_or_path": f"./{path}", **lora}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sft.lora_r": 4, "sft.lora_target_modules": ["lm_head"]},
            ["sft.lora_target_modules: ", "its weights are also those of "],
        ),
        (
            {"dpo.lora_r": 4, "dpo.lora_target_modules": ["wte"]},
            ["dpo.lora_target_modules: wte: its weights are also those of lm_head"],
        ),
        (
            {"reward.lora_r": 4, "reward.lora_target_modules": ["score"]},
            ["reward.lora_target_modules: score: the head"],
        ),
        ({"ppo.lora_r": 4, "ppo.lora_target_modules": ["q_proj"]}, ["ppo.lora_target_modules: ['q_proj']: "]),
        ({"sft.freeze": ["0-9"]}, ["sft.freeze: 0-9: the model has layers 0 to 1"]),
    ],
)
def test_parts_that_cannot_be_trained_are_told(changes, words):
    (fault,) = told(changes)
    assert all(word in fault for word in words), fault


def test_a_template_that_ends_no_answer_is_told():
    path = save_model("mine")
    (Path(path) / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    (fault,) = told({"base.model_name_or_path": f"./{path}"})
    assert fault.startswith("base.model_name_or_path: the chat template of") and "never ends an answer" in fault


def test_lengths_above_the_models_context_are_told():
    assert told({"base.model_name_or_path": f"./{save_model('mine', n_positions=100)}"}) == [
        f"{name}.max_length: 128 tokens, but the model attends to 100; lower it"
        for name in ("sft", "reference", "reward", "judge")
    ]


def test_answers_that_leave_no_room_in_the_models_context_are_told():
    mine = {"base.model_name_or_path": f"./{save_model('mine', n_positions=200)}"}
    changes = {"evaluate.max_new_tokens": 192, "ppo.response_length": 193, "candidates.max_new_tokens": 300}
    assert told({**mine, **changes}) == [
        "ppo.response_length: 193 tokens leave no room for a prompt in the model's context of 200; lower it"
    ]


def test_an_attention_that_the_model_has_not_is_told():
    tokenizer = fresh_tokenizer(TEXTS, 300)
    BloomForCausalLM(BloomConfig(hidden_size=8, n_head=2, n_layer=1, vocab_size=len(tokenizer))).save_pretrained("mine")
    tokenizer.save_pretrained("mine")
    bloom = {"base.model_name_or_path": "./mine", "compute.attn_implementation": "sdpa"}
    (fault,) = told(bloom)
    assert fault.startswith("compute.attn_implementation: sdpa: BloomForCausalLM does not support an attention")
    assert told({**bloom, "compute.attn_implementation": "eager"}) == []
    assert told({"base.model_name_or_path": f"./{save_model('other')}", "compute.attn_implementation": "sdpa"}) == []


def test_reward_bases_that_cannot_read_pairs_are_told():
    tokenizer = fresh_tokenizer(TEXTS, 300)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": len(tokenizer)}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained("seq2seq")
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained("vision")
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


def test_a_critic_that_reads_other_tokens_than_the_policy_is_told():
    save_model("mine")
    save_model("same")
    save_model("other")
    fresh_tokenizer(["quite other words, and no more of them"] * 9, 290).save_pretrained("other")
    bases = {"base.model_name_or_path": "./mine", "ppo.critic": "separate"}
    assert told({**bases, "reward.model_name_or_path": "./same"}) == []
    assert told({**bases, "reward.model_name_or_path": "./other", "ppo.critic": "shared"}) == []
    assert told({**bases, "reward.model_name_or_path": "./other"}) == [
        "ppo.critic: separate starts from the reward model, and ./other has another tokenizer than ./mine; set it to "
        "shared"
    ]


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


@pytest.mark.slow
def test_a_part_of_a_model_in_the_hubs_cache_is_no_fault(folder: Path):
    """`hf download owner/name config.json`, which `make plan` needs, comes before the stage that fetches the rest."""
    save_model("mine")
    cached = folder / "home/hub/models--owner--name"
    snapshot = cached / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes((folder / "mine/config.json").read_bytes())
    changes = {"base.model_name_or_path": "owner/name", "base.model_revision": "0" * 40}
    (folder / "params.yaml").write_text(yaml.safe_dump(with_values(changes)))
    done = subprocess.run(
        [sys.executable, "-m", "rlhf_lib.check"],
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder), "HF_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process that cannot import torch."""
    (folder / "without").mkdir(exist_ok=True)
    (folder / "without/torch.py").write_text("raise AssertionError('torch was imported')")
    return subprocess.run(
        [sys.executable, "-m", "rlhf_lib.check"],
        cwd=folder,
        env={"PYTHONPATH": f"{folder / 'without'}:{ROOT}", "PATH": "", "HOME": str(folder)},
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
