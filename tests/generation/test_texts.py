"""What a response says: its tokens as text."""

import pytest
from tiny_models import TEXTS
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

from rlhf_lib.base import model as base
from rlhf_lib.generation.sampling import response_text
from rlhf_lib.models.chat import dialogue_and_start
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.settled import settle

QUESTION = [{"role": "user", "content": "Name the cat."}]
# A channel is named before an answer, as in gpt-oss.
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# Thoughts, which may be none, stand before an answer, as in Qwen3.
THOUGHTS = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<think></think>{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def tokenizer_of(template):
    made = base.fresh_tokenizer(TEXTS, 320)
    made.add_special_tokens({"extra_special_tokens": ["<|start|>", "<|channel|>", "<|message|>"]})
    made.add_tokens(["<think>", "</think>"])
    made.chat_template = template
    settle(made)
    return made


def said(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stopped = ids[-1] == tokenizer.eos_token_id
    return response_text(tokenizer, Response(ids, stopped, stopped=stopped))


@pytest.mark.parametrize("answer", ["Paris.", "", " final", "the final one"])
def test_a_channels_name_is_no_part_of_the_answer_in_it(answer):
    tokenizer = tokenizer_of(CHANNELS)
    dialogue, start = dialogue_and_start(tokenizer, QUESTION, answer)
    assert response_text(tokenizer, Response(dialogue[start:], True, stopped=True)) == answer
    thoughts = "<|channel|>analysis<|message|>It is final.<|end|><|start|>assistant"
    assert said(tokenizer, f"{thoughts}<|channel|>final<|message|>{answer}<|end|>") == answer


def test_an_answer_outside_of_the_channel_stays_as_it_is():
    assert said(tokenizer_of(CHANNELS), "final answer<|end|>") == "final answer"
    assert said(tokenizer_of(None), "final answer<|end|>") == "final answer"


def test_tags_that_are_text_are_what_a_model_says():
    assert said(tokenizer_of(THOUGHTS), "<think></think>Paris.<|end|>") == "<think></think>Paris."


def test_spaces_before_punctuation_stay():
    """Whatever `clean_up_tokenization_spaces` says, which transformers keeps to where a vocabulary is a Unigram's."""
    backend = Tokenizer(tokenizer_models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(["a . b , c ! isn 't"] * 9, trainer)
    names = {"eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": True}
    assert said(PreTrainedTokenizerFast(tokenizer_object=backend, **names), "a . b , isn 't") == "a . b , isn 't"
