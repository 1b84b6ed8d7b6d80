"""Which tokens end an answer, by template, tokenizer and generation config, and that what is written keeps them."""

import json
import re

import pytest
from chat_standins import FAMILIES, WITH_TEMPLATE, stand_in, tokenizer_of
from one_line import told
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

from rlhf_lib.base import model as base
from rlhf_lib.base.tokens import add_special_tokens
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_and_start
from rlhf_lib.models.stops import NeverEnds, answer_ends, set_ends, stop_ids, up_to_stop

QUESTION = [{"role": "user", "content": "What colour is the sea?"}]
# What a template may write behind an answer that is no end of it.
ENDLESS = {
    "nothing": ("", "nothing"),
    "a line": ("\n\n", r"only the text '\n\n'"),
    "words": ("\n### Question: ", r"only the text '\n### Question: '"),
    "a token that the vocabulary lacks": ("<|im_ended|>", "only the text '<|im_ended|>'"),
}


def ids_of(tokenizer, tokens):
    return sorted(tokenizer.convert_tokens_to_ids(list(tokens)))


def ending_with(tail):
    tokenizer = stand_in("gpt2").tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content }}" + tail + "{% endfor %}"
    return tokenizer


# ---- what ends an answer


@pytest.mark.parametrize("name", FAMILIES)
def test_what_ends_an_answer_is_found_for_every_family(name):
    tokenizer, eos_ids, model = stand_in(name)
    assert answer_ends(tokenizer, model.generation_config) == ids_of(tokenizer, FAMILIES[name].stops)
    assert set(eos_ids) <= set(answer_ends(tokenizer, model.generation_config))


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_what_sft_teaches_holds_a_token_that_ends_it(name):
    tokenizer, _, model = stand_in(name)
    dialogue, start = dialogue_and_start(tokenizer, QUESTION, "Green.")
    answer, stopped = up_to_stop(dialogue[start:], answer_ends(tokenizer, model.generation_config))
    assert stopped and tokenizer.decode(answer[:-1]).strip() == "Green."


def test_the_turns_end_is_found_without_the_models_own_list():
    tokenizer = tokenizer_of("phi3")
    assert answer_ends(tokenizer, None) == ids_of(tokenizer, ["<|endoftext|>", "<|end|>"])
    assert answer_ends(tokenizer, GenerationConfig()) == answer_ends(tokenizer, None)


def test_the_eos_behind_other_text_ends_an_answer():
    tokenizer = ending_with(" -- {{ eos_token }}")
    assert answer_ends(tokenizer, None) == [tokenizer.eos_token_id]


def test_an_added_token_that_is_not_special_ends_an_answer():
    tokenizer = ending_with("(over)")
    tokenizer.add_tokens([AddedToken("(over)", special=False, normalized=False)])
    assert answer_ends(tokenizer, None) == sorted([tokenizer.eos_token_id, len(tokenizer) - 1])


def test_white_space_among_the_added_tokens_ends_none():
    """GPT-NeoX's and Gemma's tokenizers have runs of spaces and lines there."""
    tokenizer = ending_with("\n\n<|turn|>")
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("\n\n", "▁▁", "<|turn|>")])
    assert answer_ends(tokenizer, None) == sorted([tokenizer.eos_token_id, len(tokenizer) - 1])


def test_an_id_beyond_the_vocabulary_ends_none():
    tokenizer, _, model = stand_in("qwen")
    model.generation_config.eos_token_id = [0, 151_645, len(tokenizer)]
    assert answer_ends(tokenizer, model.generation_config) == ids_of(tokenizer, FAMILIES["qwen"].stops)


def with_gaps(tokenizer, by):
    """The tokenizer, with its last tokens' ids higher by some, as of vocabularies that were made for other programs."""
    written = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, added = written["model"]["vocab"], written["added_tokens"]
    first = len(vocabulary) - len(added)
    texts = [piece for piece in sorted(vocabulary, key=vocabulary.get) if piece not in {a["content"] for a in added}]
    names = [entry["content"] for entry in added]
    numbers = [*range(first), *(number + by for number in range(first, len(vocabulary)))]
    written["model"]["vocab"] = dict(zip([*texts, *names], numbers, strict=True))
    written["added_tokens"] = [entry | {"id": written["model"]["vocab"][entry["content"]]} for entry in added]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(written))
    return tokenizer


def test_a_vocabulary_may_leave_ids_out():
    tokenizer = with_gaps(stand_in("qwen").tokenizer, 50)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end >= len(tokenizer) and end in answer_ends(tokenizer, None)
    said = told(add_special_tokens, stand_in("qwen").model, tokenizer, {"pad_token": "<|pad|>"}, seed=0)
    assert re.search(
        r"its tokenizer leaves ids out .* so that <\|pad\|> cannot be added; name tokens that it has", said
    )
    assert add_special_tokens(stand_in("qwen").model, tokenizer, {"pad_token": "<|im_start|>"}, seed=0) == {}


def test_a_template_that_wants_a_system_message_gets_one():
    tokenizer = ending_with("{{ eos_token }}")
    wanting = "{% if messages[0].role != 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    tokenizer.chat_template = wanting + tokenizer.chat_template.replace("{{ eos_token }}", "<|turn|>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    assert answer_ends(tokenizer, None) == sorted([tokenizer.eos_token_id, len(tokenizer) - 1])


# ---- a template that never ends an answer


@pytest.mark.parametrize("tail", ENDLESS)
def test_a_template_that_never_ends_an_answer_is_refused_in_one_line(tail):
    written, told = ENDLESS[tail]
    tokenizer, model = ending_with(written), stand_in("gpt2").model
    with pytest.raises(ParamsError) as error:
        base.complete(model, tokenizer, seed=0)
    line = str(error.value)
    assert line.startswith("params.yaml: base.model_name_or_path: the chat template of the model never ends an answer:")
    assert f"behind it stands {told}; let the template write <|endoftext|> behind an assistant's message" in line
    assert "\n" not in line


def test_a_reward_model_needs_no_end():
    tokenizer = ending_with("")
    config = stand_in("gpt2").model.config
    base.complete(AutoModelForSequenceClassification.from_config(config), tokenizer, seed=0)
    with pytest.raises(NeverEnds):
        answer_ends(tokenizer, None)


# ---- where it is written and read


@pytest.mark.parametrize("name", FAMILIES)
def test_stage_base_writes_what_ends_an_answer(name, tmp_path):
    tokenizer, _, model = stand_in(name)
    base.complete(model, tokenizer, seed=0)
    models.save(model, tokenizer, tmp_path)
    written = json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]
    expected = ids_of(tokenizer, FAMILIES[name].stops)
    assert written == (expected if len(expected) > 1 else expected[0])
    assert stop_ids(models.load_policy(tmp_path)) == tuple(expected)
    assert stop_ids(AutoModelForCausalLM.from_pretrained(tmp_path)) == tuple(expected)
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_the_ids_are_read_whatever_form_they_have():
    model = stand_in("gemma").model
    for written, read in ((None, ()), (7, (7,)), ([7], (7,)), ([7, 3], (7, 3))):
        model.generation_config.eos_token_id = written
        assert stop_ids(model) == read
        adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
        assert stop_ids(adapted) == read
        model = adapted.unload()


def test_a_model_from_elsewhere_is_told_what_ends_its_answers():
    tokenizer, _, model = stand_in("qwen")
    assert stop_ids(model) == (tokenizer.eos_token_id,)
    set_ends(model, tokenizer)
    assert stop_ids(model) == tuple(ids_of(tokenizer, FAMILIES["qwen"].stops))


def test_up_to_stop_by_hand():
    assert up_to_stop([5, 6, 7, 6], {6, 7}) == ([5, 6], True)
    assert up_to_stop([5, 7, 6], (6, 7)) == ([5, 7], True)
    assert up_to_stop([5, 5], (6, 7)) == ([5, 5], False)
    assert up_to_stop([6], (6,)) == ([6], True)
    assert up_to_stop([], (6,)) == ([], False) and up_to_stop([6], ()) == ([6], False)
