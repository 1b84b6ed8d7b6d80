"""DPO's policy is its reference before the first step, however both are held."""

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from copied_project import ENV
from project import ROOT
from shipped_params import shipped
from tiny_models import save_tiny
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig, set_seed
from trl_trainers import batch_of, dpo_params, pair_rows, referenced

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.dpo.reference import reference_logprobs
from rlhf_lib.models.loading import load_policy, load_tokenizer
from rlhf_lib.models.logprobs import SAVED_BATCHES

DROPS = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=320, resid_pdrop=0.3, attn_pdrop=0.3),
    "opt": OPTConfig(
        hidden_size=32,
        ffn_dim=48,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_size=320,
        dropout=0.3,
    ),
}


def losses(trainer):
    """The loss of each pair while the policy trains; one whose margin is 0 costs ln 2."""
    trainer.model.train()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return [trainer.compute_loss(trainer.model, batch_of(trainer, [row])).item() for row in range(9)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"freeze": ["embeddings", "mlp"]}, {"lora_r": 4}, {"lora_r": 4, "lora_dropout": 0.5}],
    ids=["all", "freeze", "lora", "lora-dropout"],
)
def test_the_first_margins_are_0(compute, tiny, checkpoints, precision, changes):
    compute(precision=precision)
    pairs = referenced(tiny, pair_rows())
    trainer = dpo.build(dpo_params(**changes), 64, str(tiny.policy), pairs, pairs, checkpoints)
    # in bf16, sums of log-probs of like answers in other batches are rounded otherwise
    assert losses(trainer) == pytest.approx([math.log(2)] * 9, abs=1e-5 if precision == "fp32" else 0.03)


@pytest.mark.parametrize("kind", DROPS)
def test_the_first_margins_of_a_model_with_dropout_are_0(tokenizer, tmp_path, checkpoints, kind):
    set_seed(0)
    dropping = save_tiny(AutoModelForCausalLM.from_config(DROPS[kind]), tokenizer, tmp_path / kind)
    pairs = referenced(dropping, pair_rows())
    trainer = dpo.build(dpo_params(), 64, str(dropping.policy), pairs, pairs, checkpoints)
    assert losses(trainer) == pytest.approx([math.log(2)] * 9, abs=1e-5)


def measured(tiny, file=None):
    """135 pairs, one a batch: in two chunks."""
    rows = [{**row, "id": f"{copy}-{row['id']}"} for copy in range(15) for row in pair_rows()]
    return reference_logprobs(load_policy(tiny.policy), load_tokenizer(tiny.policy), rows, 64, 1, file=file)


def test_what_a_killed_run_saved_is_not_computed_again(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "train.jsonl"
    expected = measured(tiny)
    assert measured(tiny, file) == expected
    first, second = file.read_bytes().splitlines(keepends=True)
    assert (json.loads(first), json.loads(second)) == (expected[:SAVED_BATCHES], expected[SAVED_BATCHES:])
    marked = [{**row, "ref_chosen_logps": 1.0} for row in expected[:SAVED_BATCHES]]
    file.write_bytes(json.dumps(marked).encode() + b"\n" + second[: len(second) // 2])
    capsys.readouterr()
    assert measured(tiny, file) == marked + expected[SAVED_BATCHES:]
    assert capsys.readouterr().out == "resuming after 128 of 135 train pairs\n"


def run_stage(folder, **changes):
    """Stage reference in a folder, on a CPU, with params of dpo changed."""
    params = shipped()
    params["compute"]["device"], params["reference"]["max_length"] = "cpu", 64
    params["dpo"].update(changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    stage = {"cmd": "", "deps": ["models/sft", "data/negatives", "data/splits"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"reference": stage}}))
    command, env = [sys.executable, "-m", "stages.reference"], {**ENV, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["load_in_4bit", pytest.param("load_in_8bit", marks=pytest.mark.slow)])
def test_the_reference_is_held_in_the_bits_of_dpo(tiny, tmp_path, bits):
    """On a CPU they are refused, by the stage that computes the reference as by DPO, and nothing is written."""
    shutil.copytree(tiny.policy, tmp_path / "models/sft")
    for folder, name in (("negatives", "preference_train"), ("splits", "preference_validation")):
        write_jsonl(tmp_path / f"data/{folder}/{name}.jsonl", pair_rows())
    refused = run_stage(tmp_path, lora_r=4, **{bits: True})
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith(f"params.yaml: dpo.{bits}: needs a CUDA GPU")
    assert not (tmp_path / "data/reference").exists()
    assert run_stage(tmp_path, lora_r=4).returncode == 0
    assert {path.name for path in (tmp_path / "data/reference").iterdir()} == {"train.jsonl", "validation.jsonl"}


def test_only_the_bits_of_dpo_run_the_reference_again():
    declared = load_yaml(ROOT / "dvc.yaml")["stages"]["reference"]["params"]
    assert declared == ["compute", "dpo.load_in_4bit", "dpo.load_in_8bit", "methods.dpo", "reference"]
