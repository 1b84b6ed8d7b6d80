"""How evaluate decodes where its params say more than a temperature."""

import itertools

import pytest
import torch
from shipped_params import check, check_fault
from tiny_models import TEXTS

from rlhf_lib.evaluation.draws import Draws
from rlhf_lib.evaluation.sampling import Evaluator
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.scoring.reward_model import RewardModel

ROWS = [
    {
        "id": f"row-{i}",
        "source": "other",
        "prompt": [{"role": "user", "content": text}],
        "responses": [{"content": "", "score": 2.0}, {"content": "Cat.", "score": 6.0}],
    }
    for i, text in enumerate(TEXTS[:4])
]


@pytest.fixture(scope="module")
def policy(tiny):
    """The tiny policy moved to where its likeliest tokens are not its likeliest answers."""
    model = models.load_policy(tiny.policy)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def params(**changes):
    return check("evaluate", {"max_new_tokens": 6, "samples_per_prompt": 4, "temperatures": [1.0], **changes})


@pytest.fixture
def samples(tiny, policy, tokenizer):
    """The samples of the policy, by changes of the section's params."""
    scorers = dict.fromkeys(("reward", "judge"), RewardModel.load(tiny.reward))
    return lambda **changes: Evaluator(params(**changes), policy, policy, scorers, tokenizer).samples(ROWS)


def of_mode(samples, mode):
    return [sample for sample in samples if sample["mode"] == mode]


def test_one_most_likely_token_is_greedy_with_a_probability_of_1(samples):
    got = samples(top_k=1, temperatures=[1.0, 0.0])
    greedy = {sample["id"]: sample["response"] for sample in of_mode(got, "greedy")}
    assert all(sample["response"] == greedy[sample["id"]] for sample in of_mode(got, "t1"))
    assert all(sample["logprob"] == pytest.approx(0.0, abs=1e-6) for sample in of_mode(got, "t1"))
    assert all(sample["logprob"] < -0.01 for sample in of_mode(got, "greedy"))


@pytest.mark.parametrize("changes", [{"top_k": 3}, {"top_p": 0.3}])
def test_logprobs_are_of_the_restricted_distribution(samples, policy, tokenizer, changes):
    """Of one token: its probability over that of the tokens that are left."""
    possible = {}
    for row in ROWS:
        with torch.no_grad():
            logits = policy(torch.tensor([prompt_ids(tokenizer, row["prompt"])])).logits[0, -1].double()
        likely = logits.softmax(0).sort(descending=True).values
        kept = 3 if "top_k" in changes else int((likely.cumsum(0) - likely < 0.3).sum())
        possible[row["id"]] = (likely[:kept].log() - likely[:kept].sum().log()).tolist()
    for sample in of_mode(samples(max_new_tokens=1, **changes), "t1"):
        assert min(abs(sample["logprob"] - value) for value in possible[sample["id"]]) < 1e-4


def test_the_datasets_answers_are_measured_without_restrictions(samples):
    free, restricted = (of_mode(samples(**changes), "dataset") for changes in ({}, {"top_k": 2, "min_new_tokens": 3}))
    assert [s["logprob"] for s in free] == pytest.approx([s["logprob"] for s in restricted], abs=1e-4)


def test_no_answer_is_shorter_than_the_shortest(samples):
    got = [s for s in samples(min_new_tokens=4, temperatures=[1.0, 0.0]) if s["mode"] != "dataset"]
    assert {s["length"] for s in got} <= {4, 5, 6}


@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_no_pair_of_tokens_occurs_twice(policy, tokenizer, temperature):
    def repeats(**changes):
        found = 0
        draws = Draws(policy, tokenizer, ROWS, params(max_new_tokens=20, **changes), temperature, 2, "mode")
        for said in draws(range(len(ROWS))):
            ids = said.prompt + said.response.ids
            pairs = list(itertools.pairwise(ids))
            found += sum(pair in pairs[:i] for i, pair in enumerate(pairs) if i >= len(said.prompt) - 1)
        return found

    assert repeats() > 0 == repeats(no_repeat_ngram_size=2)


def test_beams_take_the_place_of_greedy_answers_and_are_likelier(samples):
    greedy, beams = (samples(temperatures=[0.0, 1.0], num_beams=n) for n in (1, 4))
    assert of_mode(greedy, "t1") == of_mode(beams, "t1")
    of_greedy, of_beams = (of_mode(side, "greedy") for side in (greedy, beams))
    assert [s["id"] for s in of_greedy] == [s["id"] for s in of_beams] == [row["id"] for row in ROWS]
    assert sum(s["logprob"] / s["length"] for s in of_beams) > sum(s["logprob"] / s["length"] for s in of_greedy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"min_new_tokens": 48}, ["evaluate.min_new_tokens: must be below max_new_tokens (48)"]),
        ({"num_beams": 4, "temperatures": [1.0]}, ["evaluate.num_beams: beam search takes the place of greedy"]),
        ({"num_beams": 0}, ["evaluate.num_beams: must be at least 1"]),
        ({"top_p": 0.0}, ["evaluate.top_p: must be above 0"]),
    ],
)
def test_decodings_that_cannot_be_are_told(changes, words):
    line = check_fault("evaluate", changes)
    assert all(word in line for word in words), line
