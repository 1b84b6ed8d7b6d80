"""Forward passes, sampling, and a model on disk, of every architecture in docs/models.md."""

import pytest
import torch
from architectures import draw, make
from model_table import TABLE
from transformers import AutoModelForCausalLM

from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers
from rlhf_lib.models import loading as models
from rlhf_lib.models import proof
from rlhf_lib.models.logprobs import Response, collate, response_logprobs, sequence_logprobs

ARCHITECTURES = pytest.mark.parametrize("kind", TABLE)
LENGTHS = [(1, 12), (9, 1), (4, 5), (2, 1), (11, 7), (4, 3)]  # of prompts and responses


def drawn(length, seed):
    return torch.randint(3, 50, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


PROMPTS = [drawn(prompt, k) for k, (prompt, _) in enumerate(LENGTHS)]
RESPONSES = [Response(drawn(response, 100 + k), True) for k, (_, response) in enumerate(LENGTHS)]


@ARCHITECTURES
@torch.no_grad()
def test_logprobs_are_those_of_each_row_alone(kind):
    """Whether they lie end to end or are padded. `alone` is what transformers computes, without padding."""
    plain, fast = make(kind)
    alone = [
        plain(torch.tensor([prompt + response.ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    expected = torch.cat(
        [x.gather(1, torch.tensor([r.ids]).T).squeeze(1) for x, r in zip(alone, RESPONSES, strict=True)]
    )
    assert expected.std() > 0.2
    batch = collate(fast, PROMPTS, RESPONSES, pad_id=0)
    assert (batch.inputs["input_ids"].size(0) == 1) is (TABLE[kind].rows == "packed")
    torch.testing.assert_close(response_logprobs(fast, batch), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@ARCHITECTURES
def test_a_response_does_not_depend_on_its_neighbours(kind, temperature, tokenizer):
    """Prompts of different lengths, two of them asked twice; some end at different steps and leave the batch."""
    _, model = make(kind)
    prompts = [*PROMPTS, PROMPTS[2], PROMPTS[4]]
    sampling = Sampling(16, temperature)
    noise = random_numbers(len(prompts), sampling, 0)
    # ends with any of the tokens that a free response draws at different places
    model.generation_config.eos_token_id = None
    free = generate(model, tokenizer, prompts, sampling, noise, batch_size=1)
    eos = free[2].ids[3]
    model.generation_config.eos_token_id = [eos]
    alone = [
        generate(model, tokenizer, [prompt], sampling, noise[k : k + 1], batch_size=1)[0]
        for k, prompt in enumerate(prompts)
    ]
    together = generate(model, tokenizer, prompts, sampling, noise, batch_size=len(prompts))
    assert [(r.ids, r.finished) for r in together] == [(r.ids, r.finished) for r in alone]
    assert alone[2].finished and len({len(r.ids) for r in alone}) > 1
    for size in (2, 4):
        again = generate(model, tokenizer, prompts, sampling, noise, batch_size=size)
        assert [r.ids for r in again] == [r.ids for r in alone]


@ARCHITECTURES
def test_what_is_sampled_greedily_is_the_likeliest_token_of_the_whole_row(kind, tokenizer):
    """The cache, where there is one, makes no difference."""
    plain, model = make(kind)
    assert proof.takes_cache(model) is (TABLE[kind].sampling == "yes")
    sampling = Sampling(8, temperature=0.0)
    responses = generate(model, tokenizer, PROMPTS, sampling, random_numbers(len(PROMPTS), sampling, 0), batch_size=6)
    for prompt, response in zip(PROMPTS, responses, strict=True):
        with torch.no_grad():
            logits = plain(torch.tensor([prompt + response.ids])).logits[0, len(prompt) - 1 : -1]
        best = logits.max(-1).values
        chosen = logits.gather(1, torch.tensor([response.ids]).T).squeeze(1)
        assert (best - chosen).max() < 1e-4


@ARCHITECTURES
def test_an_exported_model_is_one_that_transformers_loads_alone(kind, tokenizer, tmp_path):
    model = draw(kind, len(tokenizer))
    models.save(model, tokenizer, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    ids = torch.tensor([drawn(9, 0)])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    # and so does every stage
    policy = models.load_policy(tmp_path)
    (expected,) = sequence_logprobs(model, PROMPTS[:1], RESPONSES[:1], 0, batch_size=1)
    assert sequence_logprobs(policy, PROMPTS[:1], RESPONSES[:1], 0, batch_size=1)[0] == pytest.approx(
        expected, abs=1e-4
    )


@ARCHITECTURES
def test_no_architecture_of_the_table_is_refused(kind):
    assert proof.unfit(draw(kind)) is None
