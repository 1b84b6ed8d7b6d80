"""What ends an answer goes with a model through every stage that trains, whatever its trainer writes into configs."""

import json
from functools import partial

import pytest
from chat_standins import FAMILIES
from taught_standins import complete
from tiny_models import Tiny
from trl_trainers import dpo_params, pair_rows, referenced, sft_trainer

from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.models import loading as models
from rlhf_lib.training import weights

NAMES = ["qwen", "qwen_instruct", "gemma", "llama3_instruct", "phi3"]


def export(trainer, section, of, params, folder):
    """The EOS that a trained model is written with, and the tokens that have these ids."""
    trainer.train()
    weights.export(trainer, section, params, "CAUSAL_LM", folder, partial(models.load_policy, of))
    ids = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    return set(models.load_tokenizer(folder).convert_ids_to_tokens(ids))


@pytest.mark.parametrize("adapters", [{}, {"lora_r": 2, "lora_target_modules": ["o_proj"]}], ids=["whole", "LoRA"])
@pytest.mark.parametrize("name", NAMES)
def test_sft_and_dpo_hand_on_what_ends_an_answer(name, adapters, checkpoints, tmp_path):
    base = Tiny(complete(name, tmp_path / "base"), tmp_path)
    few = {"max_steps": 1, "eval_strategy": "no", "max_length": 128, **adapters}
    trainer = sft_trainer(base, checkpoints, **few)
    written = export(trainer, "sft", base.policy, dpo_params(**adapters), tmp_path / "sft")
    assert written == set(FAMILIES[name].stops)
    sft = Tiny(tmp_path / "sft", tmp_path)
    pairs = referenced(sft, pair_rows(), max_length=128)
    params = dpo_params(**{key: value for key, value in few.items() if key != "max_length"})
    trainer = dpo.build(params, 128, str(sft.policy), pairs, pairs, checkpoints)
    assert export(trainer, "dpo", sft.policy, params, tmp_path / "dpo") == written
