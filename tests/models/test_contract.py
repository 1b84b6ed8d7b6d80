"""The contract beside a model: what it says, that it comes back, and that it goes with the model."""

import dataclasses

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_lib.models import contract
from rlhf_lib.models import loading as models
from rlhf_lib.models.attention import takes_packing

CONTRACT = contract.Contract(
    architecture="gpt2",
    layers="transformer.h",
    num_layers=2,
    context=64,
    bos_token=None,
    stop_tokens=["<|end|>"],
    template="the project's",
    template_date=None,
    new_tokens={},
    packs=True,
    padded_because=None,
)
OTHER = dataclasses.replace(
    CONTRACT,
    context=None,
    bos_token="<s>",
    stop_tokens=["<|im_end|>", "<|endoftext|>"],
    template="the model's own",
    template_date="2024-07-26",
    new_tokens={"<|pad|>": "as </s>"},
    packs=False,
    padded_because="a convolution",
)


def test_what_it_says():
    assert dict(CONTRACT.told()) == {
        "architecture": "gpt2: 2 layers (transformer.h)",
        "context": "64 tokens",
        "a dialogue begins with": "its first turn (no BOS token)",
        "an answer ends with": "<|end|>",
        "chat template": "the project's",
        "new tokens": "none",
        "rows": "end to end",
    }
    assert dict(OTHER.told()) == {
        "architecture": "gpt2: 2 layers (transformer.h)",
        "context": "no limit of its own",
        "a dialogue begins with": "<s>",
        "an answer ends with": "<|im_end|> or <|endoftext|>",
        "chat template": "the model's own; the day in it is 2024-07-26",
        "new tokens": "<|pad|>: as </s>",
        "rows": "padded: a convolution",
    }


@pytest.mark.parametrize("written", [CONTRACT, OTHER])
def test_it_comes_back(written, tmp_path):
    assert contract.read(tmp_path) is None
    written.write(tmp_path)
    assert contract.read(tmp_path) == written


@pytest.mark.parametrize("auto_class", [AutoModelForCausalLM, AutoModelForSequenceClassification])
def test_it_goes_with_the_model(tiny, tmp_path, auto_class):
    first, second = tmp_path / "first", tmp_path / "second"
    tokenizer = models.load_tokenizer(tiny.policy)
    models.save(AutoModelForCausalLM.from_pretrained(tiny.policy), tokenizer, first)
    assert contract.read(first) is None
    OTHER.write(first)
    models.save(auto_class.from_pretrained(first, num_labels=1), tokenizer, second)
    assert contract.read(second) == OTHER


def test_that_of_another_architecture_is_not_the_models(tiny, tmp_path):
    """Somebody put another model's files over the old ones."""
    models.save(AutoModelForCausalLM.from_pretrained(tiny.policy), models.load_tokenizer(tiny.policy), tmp_path)
    dataclasses.replace(CONTRACT, architecture="opt", packs=False).write(tmp_path)
    loaded = models.load_policy(tmp_path)
    assert contract.of(loaded) is None and takes_packing(loaded)
    CONTRACT.write(tmp_path)
    assert contract.of(loaded) == CONTRACT


@pytest.mark.parametrize("text", ["", "[]", '{"terms": "of a licence"}', '{"architecture": "gpt2"}', "\xff"])
def test_a_file_of_that_name_that_is_none(tmp_path, text):
    (tmp_path / contract.FILE).write_text(text, encoding="latin-1")
    assert contract.read(tmp_path) is None
