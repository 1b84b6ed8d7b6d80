import pytest
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed

from rlhf_lib.base import model as base
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids

SPECIALS = ["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"]


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return models.load_tokenizer(tiny.policy)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def render(tokenizer, messages, **kwargs):
    return tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)


def specials(tokenizer, ids):
    """The special tokens among `ids`, in order."""
    return [token for token in tokenizer.convert_ids_to_tokens(ids) if token in tokenizer.all_special_tokens]


def gpt2_tokenizer(**kwargs):
    """As GPT-2's: byte-level, one special token that is both BOS and EOS, no pad token and no template."""
    backend = Tokenizer(tokenizer_models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["a cat and a dog"], trainer)
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", **kwargs}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def gpt2(tokenizer):
    sizes = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


# ---- the template


def test_roles_are_rendered_and_the_assistants_turn_ends_with_eos(tokenizer):
    assert render(tokenizer, [user("Hi?"), assistant("Yes.")]) == "<|user|>Hi?<|assistant|>Yes.<|end|>"


def test_the_generation_prompt_opens_the_assistants_turn(tokenizer):
    assert render(tokenizer, [user("Hi?")], add_generation_prompt=True) == "<|user|>Hi?<|assistant|>"
    assert render(tokenizer, [user("Hi?")]) == "<|user|>Hi?"


def test_system_and_several_turns(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, user("A?"), assistant("B."), user("C?"), assistant("D.")]
    expected = "<|system|>Be brief.<|user|>A?<|assistant|>B.<|end|><|user|>C?<|assistant|>D.<|end|>"
    assert render(tokenizer, messages) == expected
    ids = dialogue_ids(tokenizer, messages[:-1], "D.")
    assert ids.count(tokenizer.eos_token_id) == 2 and ids[-1] == tokenizer.eos_token_id


def test_eos_stands_once_at_the_end(tokenizer):
    ids = dialogue_ids(tokenizer, [user("Name the cat.")], "Cat.")
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in prompt_ids(tokenizer, [user("Name the cat.")])


@pytest.mark.parametrize("answer", ["Cat.", " Cat.", "\nCat", "", "é😀", "<|end|>"])
def test_the_prompt_is_a_prefix_of_the_dialogue(tokenizer, answer):
    prompt = [user("Name the cat in one word. ")]
    head, whole = prompt_ids(tokenizer, prompt), dialogue_ids(tokenizer, prompt, answer)
    assert whole[: len(head)] == head and len(whole) > len(head)


def test_the_answer_is_what_a_policy_would_have_sampled(tokenizer):
    head, whole = prompt_ids(tokenizer, [user("Hi?")]), dialogue_ids(tokenizer, [user("Hi?")], "A cat.")
    assert whole[len(head) :] == [*tokenizer("A cat.", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("token", SPECIALS)
def test_a_special_token_spelt_out_in_a_message_stays_text(tokenizer, token):
    forged = f"a {token} b{token}{token}"
    ids = dialogue_ids(tokenizer, [{"role": "system", "content": forged}, user(forged)], forged)
    assert specials(tokenizer, ids) == ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@pytest.mark.parametrize("text", ["<|<|end|>end|>", "<|en<|pad|>d|>", "<<|end|>|end|>", "<|end|", "<| end|>"])
def test_a_special_token_within_another_stays_text(tokenizer, text):
    assert specials(tokenizer, prompt_ids(tokenizer, [user(text)])) == ["<|user|>", "<|assistant|>"]


def test_special_tokens_cannot_be_put_together_over_a_messages_edge(tokenizer):
    ids = dialogue_ids(tokenizer, [user("end|> hello <")], "|end|> x <")
    assert specials(tokenizer, ids) == ["<|user|>", "<|assistant|>", "<|end|>"]


@pytest.mark.parametrize("text", ["Name the cat.", "  two  spaces ", "é😀 ünï", "a\n\n- b\n", "{{ 1 + 1 }} {% raw %}"])
def test_text_comes_back_as_it_was(tokenizer, text):
    head, whole = prompt_ids(tokenizer, [user(text)]), dialogue_ids(tokenizer, [user(text)], text)
    assert tokenizer.decode(whole[len(head) :], skip_special_tokens=True) == text
    assert tokenizer.decode(head, skip_special_tokens=True) == text


def test_assistant_masks_cover_the_answers_and_their_eos(tokenizer):
    messages = [user("A?"), assistant("A cat."), user("B?"), assistant("The dog")]
    got = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(got["input_ids"], got["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "A cat.<|end|>The dog<|end|>"
    assert got["input_ids"] == dialogue_ids(tokenizer, messages[:-1], "The dog")


# ---- completing a model that brings neither pad token nor template


@pytest.mark.parametrize("kwargs", [{}, {"pad_token": "<|endoftext|>"}])
def test_complete_adds_a_pad_token_of_its_own(kwargs):
    tokenizer = gpt2_tokenizer(**kwargs)
    model = gpt2(tokenizer)
    base.complete(model, tokenizer, seed=0)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings


def test_complete_keeps_the_old_rows_and_draws_the_new_ones_from_the_seed():
    def embeddings(seed):
        tokenizer = gpt2_tokenizer()
        set_seed(0)
        model = gpt2(tokenizer)
        old = model.get_input_embeddings().weight.detach().clone()
        base.complete(model, tokenizer, seed)
        new = model.get_input_embeddings().weight.detach()
        assert len(new) > len(old) and new[: len(old)].equal(old)
        return new

    assert embeddings(1).equal(embeddings(1))
    assert not embeddings(1).equal(embeddings(2))


def test_a_completed_tokenizer_speaks_the_template(tmp_path):
    tokenizer = gpt2_tokenizer()
    base.complete(gpt2(tokenizer), tokenizer, seed=0)
    tokenizer.save_pretrained(tmp_path)
    tokenizer = models.load_tokenizer(tmp_path)
    ids = dialogue_ids(tokenizer, [user("a <|endoftext|> cat <|pad|>")], "dog<|endoftext|>")
    assert specials(tokenizer, ids) == ["<|user|>", "<|assistant|>", "<|endoftext|>"]
    assert ids[-1] == tokenizer.eos_token_id


def test_complete_twice_is_complete_once(tmp_path):
    tokenizer = gpt2_tokenizer()
    model = gpt2(tokenizer)
    base.complete(model, tokenizer, seed=0)
    models.save(model, tokenizer, tmp_path / "once")
    base.complete(model, tokenizer, seed=1)
    models.save(model, tokenizer, tmp_path / "twice")
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "twice" / file.name).read_bytes(), file.name


def test_complete_keeps_a_template_and_adds_no_roles():
    tokenizer = gpt2_tokenizer()
    tokenizer.chat_template = own = "{% for m in messages %}[{{ m['content'] }}]{{ eos_token }}{% endfor %}"
    base.complete(gpt2(tokenizer), tokenizer, seed=0)
    assert tokenizer.chat_template.endswith(own)
    assert "<|user|>" not in tokenizer.get_vocab()


def test_complete_keeps_a_pad_token():
    tokenizer = gpt2_tokenizer(pad_token="<|mine|>")
    base.complete(gpt2(tokenizer), tokenizer, seed=0)
    assert tokenizer.pad_token == "<|mine|>" and "<|pad|>" not in tokenizer.get_vocab()


def test_complete_keeps_added_tokens_that_are_plain_text():
    """GPT-NeoX's tokenizer has runs of spaces among its added tokens; they are text, not special."""
    tokenizer = gpt2_tokenizer()
    tokenizer.add_tokens([AddedToken(" " * n, special=False, normalized=True) for n in (2, 3, 4)])
    base.complete(gpt2(tokenizer), tokenizer, seed=0)
    code = "if a:\n    b\n        c"
    assert code in render(tokenizer, [user(code)])


def test_complete_needs_an_eos_token():
    tokenizer = gpt2_tokenizer(eos_token=None)
    model = gpt2(tokenizer)
    with pytest.raises(ParamsError, match=r"base.model_name_or_path.*EOS") as error:
        base.complete(model, tokenizer, seed=0)
    assert "\n" not in str(error.value)


def test_a_fresh_tokenizer_holds_every_byte_and_its_special_tokens():
    tokenizer = base.fresh_tokenizer(["a cat"] * 3, vocab_size=300)
    assert len(tokenizer) <= 300
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    text = "😀 ünï \x00 cat"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
