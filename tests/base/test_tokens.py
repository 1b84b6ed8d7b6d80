"""Special tokens that a model never saw: what their rows start from, and that LoRA can learn with them."""

import logging

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    set_seed,
)
from trl_trainers import assistant, sft_trainer

from rlhf_lib.base import model as base
from rlhf_lib.base.params import BaseParams
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.training import trainer as training

END = "<|endoftext|>"
RESERVED = ["<|turn_start|>", "<|turn_end|>", "<|spare|>"]
WORDS = ["cat", "dog", "sky", "tree", "house", "river", "stone", "bird"]
TEXTS = [
    f"the user said {word}, the assistant of the system said {word} at the start and end of a turn" for word in WORDS
]
TEMPLATE = (
    "{% for m in messages %}{{ '<|turn_start|>' + m['role'] + ' ' + m['content'] + '<|turn_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn_start|>assistant ' }}{% endif %}"
)
ROWS = 384  # of the embedding, more than the tokenizer has tokens
TIED = GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=64, vocab_size=ROWS, bos_token_id=0, eos_token_id=0)
UNTIED = LlamaConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    vocab_size=ROWS,
    bos_token_id=0,
    eos_token_id=0,
)
BOTH = pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])


def pretrained(config, reserved=(), rows=None):
    """A model with a spread of embeddings as GPT-2's, and a byte-level tokenizer without pad token and template."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    options = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    tokenizer.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=340, special_tokens=[END, *reserved], **options)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)
    set_seed(0)
    config = config.__class__(**{**config.to_dict(), "vocab_size": rows or len(tokenizer)})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for table in tables(model):
            table.normal_(0.05, 0.14)
    return model, tokenizer


def tables(model):
    """The embedding and, where it is another one, the output layer."""
    read, said = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return [read] if said is read else [read, said]


def row(model, tokenizer, token, of=0):
    return tables(model)[of][tokenizer.convert_tokens_to_ids(token)].detach().clone()


def most_likely(model, token_id):
    """The highest probability of a token over many last hidden states, and the number of tokens."""
    hidden = 3 * torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    probabilities = (hidden @ model.get_output_embeddings().weight.T).softmax(-1)
    return probabilities[:, token_id].max().item(), probabilities.size(1)


@BOTH
@pytest.mark.parametrize("rows", [None, ROWS], ids=["added-rows", "spare-rows"])
def test_added_roles_start_near_their_words_and_are_not_said(config, rows):
    model, tokenizer = pretrained(config, rows=rows)
    before = [table.detach().clone() for table in tables(model)]
    started = base.complete(model, tokenizer, seed=0)
    assert list(started) == ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert started["<|user|>"] == "half-way from the mean to 'user'"
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in started}
    mean = tables(model)[0].detach()[[i for i in range(len(before[0])) if i not in ids.values()]].mean(0)
    word = before[0][tokenizer(" user")["input_ids"]].mean(0)
    torch.testing.assert_close(row(model, tokenizer, "<|user|>"), (mean + word) / 2, atol=2e-4, rtol=0)
    roles = torch.stack([row(model, tokenizer, f"<|{role}|>") for role in ("system", "user", "assistant")])
    norm = before[0].norm(dim=1).mean()
    assert torch.cdist(roles, roles)[[0, 0, 1], [1, 2, 2]].min() > 0.4 * norm
    assert (roles[1] - word).norm() > 0.3 * norm  # a role is not the word in a text
    for table, old in zip(tables(model), before, strict=True):
        assert table[: min(ids.values())].equal(old[: min(ids.values())])
    for token, number in ids.items():
        likely, count = most_likely(model, number)
        assert likely < (count**-0.5 if len(before) == 1 else 1 / count), token


def test_that_rows_are_added_is_told_by_what_they_start_from_alone(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model, tokenizer = pretrained(UNTIED)
    base.complete(model, tokenizer, seed=0)
    assert len(tables(model)[0]) > len(pretrained(UNTIED)[1]) and not caplog.records


def sft_rows():
    """The user's every word is answered with one word, the system's with another."""
    answers = {"user": "cat", "system": "dog"}
    return [
        {"id": f"{role}-{word}", "prompt": [{"role": role, "content": word}], "completion": assistant(answer)}
        for word in WORDS
        for role, answer in answers.items()
    ]


def test_a_policy_with_adapters_learns_who_speaks(checkpoints, tmp_path):
    model, tokenizer = pretrained(TIED)
    base.complete(model, tokenizer, seed=0)
    models.save(model, tokenizer, tmp_path / "base")
    before = row(model, tokenizer, "<|user|>") - row(model, tokenizer, "<|system|>")
    changes = {"lora_r": 8, "lora_target_modules": ["c_attn", "c_proj", "c_fc"], "learning_rate": 1e-2, "max_steps": 40}
    steps = {"per_device_train_batch_size": 16, "eval_steps": 1000, "save_steps": 1000}
    trainer = sft_trainer(_In(tmp_path / "base"), checkpoints, sft_rows(), **changes, **steps)
    training.run(trainer, checkpoints)
    policy = trainer.model.eval().merge_and_unload()
    after = row(policy, tokenizer, "<|user|>") - row(policy, tokenizer, "<|system|>")
    assert after.equal(before) and after.norm() > 0.4 * row(model, tokenizer, "<|user|>").norm()
    for given in sft_rows():
        with torch.no_grad():
            logits = policy(torch.tensor([prompt_ids(tokenizer, given["prompt"])])).logits[0, -1]
        first = tokenizer(given["completion"][0]["content"])["input_ids"][0]
        assert logits.argmax() == first, given["id"]


class _In:
    def __init__(self, policy):
        self.policy = policy


def reserved(config, fill):
    """A model whose reserved tokens were never trained, and whose template writes two of them."""
    model, tokenizer = pretrained(config, RESERVED, ROWS)
    ids = tokenizer.convert_tokens_to_ids(RESERVED)
    with torch.no_grad():
        for table in tables(model):
            table[ids] = fill(table, ids)
    tokenizer.chat_template = TEMPLATE
    return model, tokenizer, ids


FILLS = {
    "zero": lambda table, ids: torch.zeros(3, 64),
    "alike": lambda table, ids: table.mean(0) + 1e-5 * torch.randn(3, 64, generator=torch.Generator().manual_seed(1)),
}


@BOTH
@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_reserved_tokens_that_the_template_writes_start_near_their_words(config, fill):
    model, tokenizer, ids = reserved(config, fill)
    before = [table.detach().clone() for table in tables(model)]
    started = base.complete(model, tokenizer, seed=0)
    assert set(started) == {"<|pad|>", "<|turn_start|>", "<|turn_end|>"}
    assert started["<|turn_start|>"] == "half-way from the mean to 'turn start'"
    assert started["<|turn_end|>"] == f"half-way from the mean to 'turn end', to be said like {END}"
    start, end = (row(model, tokenizer, token) for token in RESERVED[:2])
    words = before[0][tokenizer(" turn start")["input_ids"]].mean(0)
    torch.testing.assert_close(start, (before[0].mean(0) + words) / 2, atol=5e-3, rtol=0)
    assert (start - end).norm() > 0.3 * before[0].norm(dim=1).mean()
    others = [i for i in range(len(tokenizer)) if i not in [*ids[:2], tokenizer.pad_token_id]]
    assert all(table[others].equal(old[others]) for table, old in zip(tables(model), before, strict=True))


@BOTH
def test_an_end_of_turn_that_was_never_said_can_be_said_as_the_eos_and_an_opening_cannot(config):
    model, tokenizer, (opening, ending, _) = reserved(config, FILLS["zero"])
    base.complete(model, tokenizer, seed=0)
    said = model.get_output_embeddings().weight.detach()
    assert (said[ending] - said[0]).norm() < 0.2 * said[0].norm() and not said[ending].equal(said[0])
    assert most_likely(model, ending)[0] > 0.5 * most_likely(model, 0)[0]
    likely, count = most_likely(model, opening)
    assert likely < (count**-0.5 if config is TIED else 1 / count)


def test_an_end_that_was_said_and_never_read_is_said_as_before():
    model, tokenizer, (_, ending, _) = reserved(UNTIED, FILLS["zero"])
    with torch.no_grad():
        tables(model)[1][ending] = tables(model)[1][5] * 1.5
    before = tables(model)[1].detach().clone()
    base.complete(model, tokenizer, seed=0)
    assert tables(model)[1][ending].equal(before[ending])
    assert row(model, tokenizer, "<|turn_end|>").norm() > 0.1


@BOTH
def test_what_was_started_is_left_alone_the_next_time(config):
    model, tokenizer, _ = reserved(config, FILLS["alike"])
    base.complete(model, tokenizer, seed=0)
    before = [table.detach().clone() for table in tables(model)]
    assert base.complete(model, tokenizer, seed=1) == {}
    assert all(table.equal(old) for table, old in zip(tables(model), before, strict=True))


def test_a_fresh_model_has_its_roles_from_the_start():
    params = BaseParams(
        model_name_or_path=None,
        model_revision=None,
        seed=0,
        vocab_size=340,
        n_positions=64,
        n_embd=32,
        n_layer=1,
        n_head=2,
    )
    tokenizer = base.fresh_tokenizer(TEXTS, params.vocab_size)
    model = base.fresh_model(params, tokenizer)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert base.complete(model, tokenizer, seed=0) == {}
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())
