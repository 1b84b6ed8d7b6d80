import copy
import math
import random
from statistics import fmean, stdev

import pytest
import torch

from rlhf_lib import comparison, models
from rlhf_lib.chat import dialogue_ids, prompt_ids
from rlhf_lib.evaluation import Evaluator
from rlhf_lib.generation import Sampling, generate, random_numbers
from rlhf_lib.params.evaluate import EvaluateParams
from rlhf_lib.rewards import RewardModel

# ---- numbers by hand


def sample(prompt, draw, reward, **changes):
    numbers = {"logprob": -1.0, "ref_logprob": -1.0, "length": 4, "finished": True, "response": "a b"}
    return {"id": prompt, "draw": draw, "reward": reward, **numbers, "gold": 0.5, "format": "list", **changes}


# Three prompts with two draws each; by prompt, the rewards are 2, 0 and 1 against 0, 0 and 3 of the baseline.
BASELINE = [
    sample(p, d, r) for p, d, r in (("a", 0, 0), ("a", 1, 0), ("b", 0, 1), ("b", 1, -1), ("c", 0, 3), ("c", 1, 3))
]
POLICY = [
    sample("a", 0, 1, logprob=-1.0, ref_logprob=-3.0, gold=1.0, length=2, response="a b c"),
    sample("a", 1, 3, logprob=-2.0, ref_logprob=-2.0, gold=0.5, length=4, response="a b"),
    sample("b", 0, 1, logprob=-4.0, ref_logprob=-3.0, gold=0.0, length=6, response="a", finished=False),
    sample("b", 1, -1, logprob=-1.0, ref_logprob=-2.0, gold=0.5, length=8, response=""),
    sample("c", 0, 1, logprob=-1.0, ref_logprob=-5.0, gold=1.0, length=1, response="b c d", format="fact"),
    sample("c", 1, 1, logprob=-3.0, ref_logprob=-5.0, gold=1.0, length=3, response="x y", format="fact"),
]


@pytest.mark.parametrize(
    ("temperature", "name"), [(1.0, "t1"), (1, "t1"), (0.7, "t0_7"), (0.0, "greedy"), (1.25, "t1_25")]
)
def test_modes_have_names_without_dots(temperature, name):
    assert comparison.mode_name(temperature) == name


def test_mean_and_se():
    assert comparison.mean_and_se([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, math.sqrt(14 / 3) / 2))
    assert comparison.mean_and_se([2.5]) == (2.5, 0.0)


def test_draws_are_averaged_by_prompt_in_any_order():
    mixed = [POLICY[i] for i in (0, 2, 4, 1, 3, 5)]
    assert comparison.by_prompt(mixed, lambda s: s["reward"]) == [2.0, 0.0, 1.0]


def test_distinct_2():
    assert comparison.distinct_2(["a b c", "a b", "b"]) == pytest.approx(2 / 3)
    assert comparison.distinct_2(["a", ""]) == 0.0 == comparison.distinct_2([])
    assert comparison.distinct_2(["a", "b"]) == 0.0  # no pair over two texts


def test_wins():
    assert [comparison.wins(r, 1.0) for r in (2.0, 1.0, 0.0)] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 3, 1]])
def test_summary_by_hand(order):
    got = comparison.summary(POLICY, [BASELINE[i] for i in order])  # the baseline is joined by prompt and draw
    assert got["reward"] == pytest.approx(1.0)
    assert got["reward_se"] == pytest.approx(1 / math.sqrt(3))
    assert got["win_rate"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert got["win_rate_se"] == pytest.approx(0.5 / math.sqrt(3))
    assert got["kl"] == pytest.approx((1 + 0 + 3) / 3)
    assert got["kl_se"] == pytest.approx(stdev([1, 0, 3]) / math.sqrt(3))
    assert got["length"] == pytest.approx(4.0)
    assert got["eos_rate"] == pytest.approx(5 / 6)
    assert got["distinct_2"] == pytest.approx(4 / 6)  # ab bc, ab, bc cd, xy
    assert got["gold"] == pytest.approx(2 / 3)
    assert got["gold_gain"] == pytest.approx(1 / 6)
    assert got["gold_gain_se"] == pytest.approx(stdev([0.25, -0.25, 0.5]) / math.sqrt(3))
    assert got["gold_by_format"] == pytest.approx({"fact": 1.0, "list": 0.5})


def test_a_policy_against_itself_is_even():
    got = comparison.summary(BASELINE, BASELINE)
    assert (got["win_rate"], got["win_rate_se"]) == (0.5, 0.0)
    assert (got["kl"], got["kl_se"], got["gold_gain"], got["gold_gain_se"]) == (0.0, 0.0, 0.0, 0.0)


def test_without_true_quality_nothing_is_said_of_it():
    bare = [{key: value for key, value in s.items() if key not in ("gold", "format")} for s in POLICY]
    got = comparison.summary(bare, bare)
    assert not any("gold" in key for key in got) and got["reward"] == pytest.approx(1.0)


def test_the_standard_error_is_the_spread_over_repetitions():
    """Draws of one prompt are alike: an error over single draws would be too small by half."""
    rng = random.Random(0)

    def repetition():
        centres = {f"p{i}": rng.gauss(0, 1) for i in range(40)}
        samples = [sample(p, d, centre + rng.gauss(0, 0.5)) for p, centre in centres.items() for d in range(4)]
        got = comparison.summary(samples, samples)
        return got["reward"], got["reward_se"]

    means, errors = zip(*(repetition() for _ in range(300)), strict=True)
    assert fmean(errors) == pytest.approx(stdev(means), rel=0.15)


# ---- the evaluator on a tiny model

TASK = "Name the sound of a wolf. Finish with a good wish."
ROWS = [
    {
        "id": f"row-{i}",
        "source": "demo/facts",
        "prompt": [{"role": "user", "content": text}],
        "responses": [{"content": "It is howl.", "score": 6.0}, {"content": "Cat.", "score": 2.0}],
    }
    for i, text in enumerate([TASK, "the wolf", "Describe the sky in one word."])
]
KEYS = {
    *("id", "source", "draw", "mode", "prompt", "response", "reward", "logprob", "ref_logprob", "length", "finished"),
    *("gold", "format"),
}


def params(**changes):
    defaults = {"seed": 0, "max_prompts": None, "samples_per_prompt": 2, "temperatures": [1.0, 0.0]}
    return EvaluateParams(**{**defaults, "max_new_tokens": 6, "per_device_eval_batch_size": 4, **changes})


@pytest.fixture(scope="module")
def sft(tiny):
    return models.load_policy(tiny.policy)


@pytest.fixture(scope="module")
def moved(sft):
    policy = copy.deepcopy(sft)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return policy


@pytest.fixture(scope="module")
def reward(tiny):
    return RewardModel.load(tiny.reward)


def evaluator(policy, sft, reward, tokenizer, **changes):
    return Evaluator(params(**changes), policy, sft, reward, tokenizer)


def test_samples_have_the_documented_keys(moved, sft, reward, tokenizer):
    got = evaluator(moved, sft, reward, tokenizer).samples(ROWS, 0.7)
    assert all(set(s) == KEYS for s in got)
    assert [(s["id"], s["draw"]) for s in got] == [(row["id"], draw) for row in ROWS for draw in range(2)]
    assert {s["mode"] for s in got} == {"t0_7"}
    assert all(s["prompt"] == row["prompt"] for s, row in zip(got, [r for r in ROWS for _ in range(2)], strict=True))
    assert all(1 <= s["length"] <= 6 and (s["finished"] or s["length"] == 6) for s in got)
    assert all(0 <= s["gold"] <= 1 for s in got)


def test_a_source_without_a_rule_has_no_true_quality(moved, sft, reward, tokenizer):
    got = evaluator(moved, sft, reward, tokenizer).samples([{**row, "source": "other"} for row in ROWS], 1.0)
    assert all(set(s) == KEYS - {"gold", "format"} for s in got)


def test_the_seed_alone_decides_the_samples(moved, sft, reward, tokenizer):
    first = evaluator(moved, sft, reward, tokenizer)
    expected = first.samples(ROWS, 1.0)
    torch.rand(7)  # whatever was drawn before
    assert first.samples(ROWS, 1.0) == expected
    assert evaluator(moved, sft, reward, tokenizer, seed=1).samples(ROWS, 1.0) != expected


def test_the_draws_of_a_prompt_differ(moved, sft, reward, tokenizer):
    got = evaluator(moved, sft, reward, tokenizer, samples_per_prompt=8).samples(ROWS[:1], 1.0)
    assert len(got) == 8 and len({s["response"] for s in got}) > 1


def test_greedy_is_one_draw(moved, sft, reward, tokenizer):
    got = evaluator(moved, sft, reward, tokenizer).samples(ROWS, 0.0)
    assert [(s["id"], s["draw"], s["mode"]) for s in got] == [(row["id"], 0, "greedy") for row in ROWS]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_the_sft_model_is_at_no_distance_from_itself(tiny, sft, reward, tokenizer, temperature):
    again = models.load_policy(tiny.policy)
    samples = evaluator(again, sft, reward, tokenizer).samples(ROWS, temperature)
    assert all(s["logprob"] == s["ref_logprob"] for s in samples)
    got = comparison.summary(samples, samples)
    assert (got["kl"], got["win_rate"], got["gold_gain"]) == (0.0, 0.5, 0.0)


def logprob_by_hand(model, prompt, ids, temperature):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits.log_softmax(-1)[range(len(ids)), ids].sum().item()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_logprobs_and_rewards_are_those_of_the_response(moved, sft, reward, tokenizer, temperature):
    got = evaluator(moved, sft, reward, tokenizer).samples(ROWS, temperature)
    prompts = [prompt_ids(tokenizer, s["prompt"]) for s in got]
    sampling = Sampling(6, temperature)
    responses = generate(moved, tokenizer, prompts, sampling, random_numbers(len(prompts), sampling, 0), 4)
    for s, prompt, response in zip(got, prompts, responses, strict=True):
        ids = response.ids
        assert (s["length"], s["finished"]) == (len(ids), response.finished)
        assert s["response"] == tokenizer.decode(ids, skip_special_tokens=True)
        for key, model in (("logprob", moved), ("ref_logprob", sft)):
            assert s[key] == pytest.approx(logprob_by_hand(model, prompt, ids, temperature or 1.0), abs=1e-3)
        dialogue = torch.tensor([dialogue_ids(tokenizer, s["prompt"], s["response"])[-64:]])
        with torch.no_grad():
            score = reward.model.score(reward.model.transformer(dialogue).last_hidden_state[0, -1]).item()
        assert s["reward"] == pytest.approx((score - 0.1) / 0.5, abs=1e-4)


def test_preference_accuracy_of_the_sft_model_is_even(tiny, sft, reward, tokenizer):
    assert evaluator(models.load_policy(tiny.policy), sft, reward, tokenizer).preference_accuracy(ROWS) == 0.5


def test_preference_accuracy_is_that_of_the_log_ratios(moved, sft, reward, tokenizer):
    right = []
    for row in ROWS:
        prompt = prompt_ids(tokenizer, row["prompt"])
        answers = [dialogue_ids(tokenizer, row["prompt"], r["content"])[len(prompt) :] for r in row["responses"]]
        better, worse = (
            logprob_by_hand(moved, prompt, ids, 1.0) - logprob_by_hand(sft, prompt, ids, 1.0) for ids in answers
        )
        right.append(better > worse)
    got = evaluator(moved, sft, reward, tokenizer).preference_accuracy(ROWS)
    assert got == pytest.approx(fmean(right))
    flipped = [{**row, "responses": [{**r, "score": -r["score"]} for r in row["responses"]]} for row in ROWS]
    assert evaluator(moved, sft, reward, tokenizer).preference_accuracy(flipped) == pytest.approx(1 - got)


def test_preference_accuracy_bears_a_prompt_that_fills_the_context(moved, sft, reward, tokenizer):
    long = {**ROWS[0], "prompt": [{"role": "user", "content": "cat " * 100}]}
    assert 0 <= evaluator(moved, sft, reward, tokenizer).preference_accuracy([*ROWS, long]) <= 1


def test_preference_accuracy_without_pairs_is_unknown(moved, sft, reward, tokenizer):
    lone = [{**row, "responses": row["responses"][:1]} for row in ROWS]
    assert evaluator(moved, sft, reward, tokenizer).preference_accuracy(lone) is None


def test_each_policy_is_told_by_the_same_metrics(moved, sft, reward, tokenizer):
    of_sft, of_moved = (evaluator(policy, sft, reward, tokenizer).samples(ROWS, 1.0) for policy in (sft, moved))
    first, second = comparison.summary(of_sft, of_sft), comparison.summary(of_moved, of_sft)
    assert list(first) == list(second) and second["kl"] != 0
