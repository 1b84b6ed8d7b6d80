"""What decoding is made of: the restriction of a distribution, random numbers, texts and prompts."""

import pytest
import torch
from numbers_by_hand import close
from torch import tensor
from transformers.generation import NoRepeatNGramLogitsProcessor

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.generation.sampling import Sampling, encode_prompts, random_numbers, repeats, response_text, restrict
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.seeds import seeded

# ---- Restricted sampling


SAMPLING = Sampling(12, temperature=0.8)
HAND = tensor([[0.1, 0.5, 0.15, 0.25]]).log()


@pytest.mark.parametrize(
    ("top_k", "top_p", "ids", "probabilities"),
    [
        (0, 1.0, [1, 3, 2, 0], [0.5, 0.25, 0.15, 0.1]),
        (1, 1.0, [1], [1.0]),
        (2, 1.0, [1, 3], [2 / 3, 1 / 3]),
        (99, 1.0, [1, 3, 2, 0], [0.5, 0.25, 0.15, 0.1]),
        (0, 0.4, [1], [1.0]),
        (0, 0.6, [1, 3], [2 / 3, 1 / 3]),
        (0, 0.8, [1, 3, 2], [5 / 9, 2.5 / 9, 1.5 / 9]),
        (0, 1e-9, [1], [1.0]),  # one token is always left
        # of the three likeliest, renormalised to 0.556, 0.278 and 0.167, two have 0.8
        (3, 0.8, [1, 3], [2 / 3, 1 / 3]),
    ],
)
def test_restrict_by_hand(top_k, top_p, ids, probabilities):
    got, support = restrict(HAND, top_k, top_p)
    assert support.tolist() == [ids]
    close(got, [probabilities])


def test_restricted_rows_are_filled_up_to_the_widest():
    probabilities, support = restrict(torch.cat([HAND, tensor([[0.0, 0.0, 0.0, 9.0]])]), 0, 0.8)
    assert support.tolist() == [[1, 3, 2], [3, -1, -1]]
    close(probabilities[1], [1.0, 0.0, 0.0])


def test_of_equally_likely_tokens_just_as_many_as_needed_are_left():
    probabilities, support = restrict(torch.zeros(1, 4), 2, 1.0)
    assert support.size(1) == 2 and probabilities.tolist() == [[0.5, 0.5]]
    probabilities, support = restrict(torch.zeros(1, 4), 0, 0.5)
    assert support.size(1) == 2 and probabilities.tolist() == [[0.5, 0.5]]


# ---- Repeats


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_repeats_are_those_of_transformers(size):
    generator = torch.Generator().manual_seed(size)
    ids = torch.randint(1, 4, (20, 6), generator=generator)
    logits = torch.zeros(20, 5)
    got = repeats(ids, torch.ones_like(ids), size, 5)
    assert got.equal(NoRepeatNGramLogitsProcessor(size)(ids, logits).isinf())
    # and of rows that are shorter than others
    padded = torch.cat([torch.full((20, 3), 2), ids], dim=1)
    mask = torch.cat([torch.zeros(20, 3), torch.ones(20, 6)], dim=1)
    assert repeats(padded, mask, size, 5).equal(got)


def test_a_repeat_by_hand():
    """Behind 3 1 2 3 1 a 2 would end in 3 1 2 again."""
    ids = tensor([[3, 1, 2, 3, 1]])
    assert repeats(ids, torch.ones_like(ids), 3, 5).tolist() == [[False, False, True, False, False]]


# ---- Random numbers


def test_random_numbers_depend_on_all_the_seeds_and_on_nothing_else():
    drawn = {seeds: random_numbers(3, SAMPLING, *seeds) for seeds in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]}
    assert len({tuple(noise.flatten().tolist()) for noise in drawn.values()}) == len(drawn)
    torch.rand(5)
    for seeds, noise in drawn.items():
        assert noise.shape == (3, 12) and noise.min() >= 0 and noise.max() < 1
        assert random_numbers(3, SAMPLING, *seeds).equal(noise)


def test_random_numbers_leave_torch_s_own_alone():
    state = torch.get_rng_state()
    random_numbers(3, SAMPLING, 1)
    torch.rand(4, generator=seeded(1, 2))
    assert torch.get_rng_state().equal(state)


def test_large_and_negative_seeds_are_taken():
    assert len({torch.rand(1, generator=seeded(seed, 5)).item() for seed in (-1, 0, 2**31, 2**63 + 7)}) == 4


# ---- Texts


def test_a_response_as_text_has_no_special_tokens(tokenizer):
    ids = tokenizer("the cat")["input_ids"]
    assert response_text(tokenizer, Response([*ids, tokenizer.eos_token_id], True)) == "the cat"


def test_a_long_prompt_loses_its_beginning(tokenizer):
    prompt = [{"role": "user", "content": "the cat " * 100}]
    (whole,) = encode_prompts(tokenizer, [prompt], 8, None, "ppo.response_length")
    (cut,) = encode_prompts(tokenizer, [prompt], 8, 64, "ppo.response_length")
    assert len(cut) == 56 and cut == whole[-56:]


@pytest.mark.parametrize("length", [57, 64, 500])
def test_responses_must_leave_room_for_a_prompt(tokenizer, length):
    with pytest.raises(ParamsError, match=r"^params.yaml: ppo\.response_length: .* set it to at most 56$"):
        encode_prompts(tokenizer, [[{"role": "user", "content": "cat"}]], length, 64, "ppo.response_length")
