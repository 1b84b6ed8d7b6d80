"""Answers end where the template ends a turn: in our sampler, in transformers and on the screen."""

import json
import math
from copy import deepcopy

import pytest
import torch
from chat_standins import FAMILIES
from peft import LoraConfig, get_peft_model
from same_greedy import differing, ours
from taught_standins import FRESH, OVER, PROMPTS, complete, leaning, teach
from transformers import GenerationConfig
from transformers.generation import StopStringCriteria

from rlhf_lib import talk
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers, response_text
from rlhf_lib.generation.streaming import stream
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.models.logprobs import Distribution, collate, response_logprobs
from rlhf_lib.models.stops import stop_ids

LENGTH = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return leaning(tmp_path_factory.mktemp("leaning"))


@pytest.fixture(scope="module")
def over(folder):
    """A policy and a tokenizer whose turns end with a token that is neither EOS nor special; its id."""
    policy, tokenizer = models.load_policy(folder), models.load_tokenizer(folder)
    return policy, tokenizer, tokenizer.convert_tokens_to_ids(OVER)


def sample(policy, tokenizer, sampling):
    ids = [prompt_ids(tokenizer, prompt) for prompt in PROMPTS]
    return ids, generate(policy, tokenizer, ids, sampling, random_numbers(len(ids), sampling, 1), 16)


@pytest.mark.parametrize("sampling", [Sampling(LENGTH), Sampling(LENGTH, 1.0, top_p=0.9), Sampling(LENGTH, 0.0)])
def test_a_response_ends_with_the_first_token_that_stops(over, sampling):
    policy, tokenizer, end = over
    stops = set(stop_ids(policy))
    assert stops == {end, tokenizer.eos_token_id}
    _, responses = sample(policy, tokenizer, sampling)
    for response in responses:
        *before, last = response.ids
        assert stops.isdisjoint(before) and response.finished == response.stopped == (last in stops)
        assert response.finished or len(response.ids) == LENGTH
    assert sum(response.ids[-1] == end for response in responses) > 5


def test_no_text_shows_the_token_that_stopped(over):
    policy, tokenizer, end = over
    assert OVER in tokenizer.decode([end], skip_special_tokens=True)
    _, responses = sample(policy, tokenizer, Sampling(LENGTH))
    assert not any(OVER in response_text(tokenizer, response) for response in responses)
    cut = next(response for response in responses if not response.finished)
    assert response_text(tokenizer, cut) == tokenizer.decode(cut.ids, skip_special_tokens=True)


def test_a_stop_string_is_no_token_that_stops(over):
    policy, tokenizer, _ = over
    responses = sample(policy, tokenizer, Sampling(LENGTH, stop_strings=("e",)))[1]
    by_text = [response for response in responses if response.finished and not response.stopped]
    assert by_text and all("e" in response_text(tokenizer, response) for response in by_text)


@pytest.mark.parametrize("beams", [1, 2])
def test_the_vocabulary_is_searched_for_a_stop_string_once_and_not_for_each_batch(over, beams, monkeypatch):
    """It takes seconds of a real model's, which come again for every batch in transformers."""
    policy, tokenizer, _ = over
    searched, search = [], StopStringCriteria.clean_tokenizer_vocab
    monkeypatch.setattr(
        StopStringCriteria,
        "clean_tokenizer_vocab",
        staticmethod(lambda *args, **kwargs: searched.append(1) or search(*args, **kwargs)),
    )
    ids = [prompt_ids(tokenizer, prompt) for prompt in PROMPTS[:3]]
    sampling = Sampling(4, 0.0, stop_strings=(f"{beams}, of which nobody speaks",), num_beams=beams)
    assert len(generate(policy, tokenizer, ids, sampling, random_numbers(3, sampling, 1), batch_size=1)) == 3
    assert len(searched) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_none_of_the_stops_comes_early(over, temperature):
    policy, tokenizer, _ = over
    stops = stop_ids(policy)
    responses = sample(policy, tokenizer, Sampling(LENGTH, temperature, min_new_tokens=4))[1]
    assert min(len(response.ids) for response in responses) >= 5
    assert any(response.ids[4] in stops for response in responses)


def test_log_probs_are_of_a_distribution_without_early_stops(over):
    policy, tokenizer, _ = over
    stops = stop_ids(policy)
    prompts, responses = sample(policy, tokenizer, Sampling(LENGTH, min_new_tokens=4))
    batch = collate(policy, prompts[:4], responses[:4], tokenizer.pad_token_id)
    with torch.no_grad():
        got = response_logprobs(policy, batch, Distribution(1.0, 4, stops)).split([len(r.ids) for r in responses[:4]])
        for prompt, response, of_response in zip(prompts, responses, got, strict=False):
            logits = policy(torch.tensor([prompt + response.ids])).logits[0, len(prompt) - 1 : -1]
            logits[:4, list(stops)] = -math.inf
            expected = logits.log_softmax(-1)[range(len(response.ids)), response.ids]
            assert of_response.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_beams_end_with_any_of_the_stops(over):
    policy, tokenizer, end = over
    prompts, responses = sample(policy, tokenizer, Sampling(LENGTH, 0.0, num_beams=3))
    stops = list(stop_ids(policy))
    options = {"max_new_tokens": LENGTH, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    config = GenerationConfig(**options, num_beams=3, eos_token_id=stops)
    for prompt, response in list(zip(prompts, responses, strict=True))[:8]:
        (expected,) = policy.generate(torch.tensor([prompt]), generation_config=config)[:, len(prompt) :].tolist()
        assert response.ids == expected and response.finished == (expected[-1] in stops)
    ended = [response for response in responses if response.ids[-1] == end]
    assert ended and not any(OVER in response_text(tokenizer, response) for response in ended)


def test_beams_that_a_text_ends_are_finished_and_hold_no_padding(over):
    policy, tokenizer, _ = over
    texts = tuple("aeiou")
    _, responses = sample(policy, tokenizer, Sampling(LENGTH, 0.0, num_beams=2, stop_strings=texts))
    ended = [response for response in responses if response_text(tokenizer, response).endswith(texts)]
    assert ended and all(response.finished and not response.stopped for response in ended)
    assert len({len(response.ids) for response in responses}) > 1
    assert not any(tokenizer.pad_token_id in response.ids for response in responses)
    assert all(response.finished or len(response.ids) == LENGTH for response in responses)


def test_beams_that_a_text_ends_hold_no_padding_where_that_is_a_token_that_stops(over):
    """As Qwen2.5's pad token is."""
    policy, tokenizer, texts = deepcopy(over[0]), over[1], tuple("aeiou")
    with torch.no_grad():
        policy.transformer.ln_f.bias.zero_()  # it leans to no end
    policy.generation_config.eos_token_id = [*stop_ids(policy), tokenizer.pad_token_id]
    _, responses = sample(policy, tokenizer, Sampling(LENGTH, 0.0, num_beams=2, stop_strings=texts))
    ended = [response for response in responses if response_text(tokenizer, response).endswith(texts)]
    assert len(ended) > 9 and all(response.finished and not response.stopped for response in ended)
    assert not any(tokenizer.pad_token_id in response.ids for response in ended)


def test_a_streamed_answer_ends_there_and_does_not_show_it(over):
    policy, tokenizer, end = over
    prompts, responses = sample(policy, tokenizer, Sampling(LENGTH, 0.0))
    place = next(i for i, response in enumerate(responses) if response.ids[-1] == end)
    shown = []
    said = stream(policy, tokenizer, prompts[place], 0.0, LENGTH, lambda text, is_last: shown.append(text))
    assert said == "".join(shown) == response_text(tokenizer, responses[place])


def test_talk_finds_what_ends_the_answers_of_a_model_from_elsewhere(folder, tmp_path):
    policy, tokenizer = models.load_policy(folder), models.load_tokenizer(folder)
    policy.generation_config.eos_token_id = tokenizer.eos_token_id
    models.save(policy, tokenizer, tmp_path)
    assert stop_ids(talk.load(str(tmp_path)).model) == stop_ids(models.load_policy(folder))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    models.save(policy, tokenizer, tmp_path)
    with pytest.raises(SystemExit, match=r"never ends an answer: behind it stands nothing; let") as error:
        talk.load(str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path}: ") and "\n" not in str(error.value)


def test_sampling_leaves_every_module_in_its_mode(folder):
    """Adapters come in training mode around a model in eval mode, and dropout must not be switched on by them."""
    policy, tokenizer = models.load_policy(folder), models.load_tokenizer(folder)
    adapted = get_peft_model(policy, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    before = {name: module.training for name, module in adapted.named_modules()}
    assert set(before.values()) == {True, False} and not before["base_model.model.transformer.drop"]
    sample(adapted, tokenizer, Sampling(2))
    assert {name: module.training for name, module in adapted.named_modules()} == before


def await_the_eos_alone(folder):
    file = folder / "generation_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "eos_token_id": models.load_tokenizer(folder).eos_token_id}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen", "gemma"])
def test_a_model_that_is_taught_another_end_than_the_eos_ends_its_answers(name, checkpoints, tmp_path):
    after = teach(complete(name, tmp_path / "base"), tmp_path / "sft", checkpoints)
    assert sum(response.finished for response in ours(after, PROMPTS)[0]) >= 0.95 * len(PROMPTS)
    await_the_eos_alone(after)
    assert not any(response.finished for response in ours(after, PROMPTS)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", [FRESH, *FAMILIES])
def test_transformers_alone_gives_our_greedy_answers(name, checkpoints, tmp_path):
    after = teach(complete(name, tmp_path / "base"), tmp_path / "sft", checkpoints)
    prompts = PROMPTS[-50:]
    assert len(prompts) == 50 and differing(after, prompts) == []
    assert sum(response.finished for response in ours(after, prompts)[0]) >= 0.95 * len(prompts)
