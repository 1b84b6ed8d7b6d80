"""What stage base finds out about models in the manner of those that people bring, and what it refuses."""

import json
import re

import pytest
from chat_standins import FAMILIES, stand_in
from one_line import told
from project import ROOT
from torch import nn

from rlhf_lib.base import contract, model
from rlhf_lib.models import contract as written
from rlhf_lib.models import loading as models
from rlhf_lib.models.attention import IMPLEMENTATION, takes_packing


def examined(name):
    """A stand-in that stage base has been through: model, tokenizer and contract."""
    tokenizer, _, of_family = stand_in(name)
    had_template = tokenizer.chat_template is not None
    new = model.complete(of_family, tokenizer, seed=0)
    return of_family, tokenizer, contract.examine(of_family, tokenizer, had_template, new)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_found(name):
    family = FAMILIES[name]
    _, tokenizer, found = examined(name)
    assert found.architecture == family.kind and found.num_layers == 2 and found.context == 256
    assert sorted(found.stop_tokens) == sorted(set(family.stops))
    begins_with_bos = family.adds_bos or (family.template or "").startswith("{{- bos_token") or name == "smollm2"
    assert found.bos_token == (family.bos if begins_with_bos else None)
    assert found.template == ("the project's" if family.template is None else "the model's own")
    assert found.template_date == ("2024-07-26" if "strftime_now" in (family.template or "") else None)
    roles = {"<|system|>", "<|user|>", "<|assistant|>"}
    assert (roles <= set(found.new_tokens)) == (family.template is None)
    assert found.packs and found.padded_because is None
    assert set(found.new_tokens) <= set(tokenizer.get_vocab())


def test_the_page_shows_one():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    shown = json.loads(re.findall(r"```json\n(.*?)```", page, flags=re.S)[0])
    assert written.Contract(**shown) == examined("llama3_instruct")[2]


def test_later_stages_read_it_in_place_of_guessing(tmp_path, monkeypatch):
    of_family, tokenizer, found = examined("qwen")
    models.save(of_family, tokenizer, tmp_path / "base")
    found.write(tmp_path / "base")

    def guess(asked):
        raise AssertionError("it was proven once")

    monkeypatch.setattr(models, "prove_packing", guess)
    policy = models.load_policy(tmp_path / "base")
    assert takes_packing(policy) and policy.config._attn_implementation == IMPLEMENTATION
    models.save(policy, tokenizer, tmp_path / "sft")
    assert written.read(tmp_path / "sft") == found


def test_a_model_without_layers_is_refused():
    of_family, tokenizer, _ = examined("gpt2")
    of_family.transformer.h = nn.Sequential(*of_family.transformer.h)
    line = told(contract.examine, of_family, tokenizer, False, {})
    assert line.startswith("params.yaml: base.model_name_or_path: no layers are found in a gpt2")


def test_a_template_that_ends_no_answer_is_refused():
    tokenizer, _, of_family = stand_in("qwen")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    line = told(model.complete, of_family, tokenizer, seed=0)
    assert re.match(r"params.yaml: base.model_name_or_path: the chat template .* never ends an answer", line)
