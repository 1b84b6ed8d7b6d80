import json
import math
import random
import sys
import warnings
from statistics import fmean, stdev

import pytest

from rlhf_lib.evaluation.samples import mode_name
from rlhf_lib.measure import comparison
from rlhf_lib.measure.estimates import share_and_se
from rlhf_lib.measure.policy_metrics import dataset_summary, policy_metrics, summary
from stages import select


def sample(prompt, draw, reward, **changes):
    numbers = {"judge": -reward, "logprob": -1.0, "ref_logprob": -1.0, "length": 4, "finished": True, "mode": "t1"}
    truth = {"response": "a b", "gold": 0.5, "format": "list"}
    return {"id": prompt, "draw": draw, "reward": reward, **numbers, **truth, **changes}


def dataset(prompt, draw, reward, score, chosen, **changes):
    return sample(prompt, draw, reward, score=score, chosen=chosen, mode="dataset", **changes)


# Three prompts with two draws each; by prompt, the rewards are 2, 0 and 1 against 0, 0 and 3 of the baseline.
BASELINE = [
    sample(p, d, r, response="x")
    for p, d, r in (("a", 0, 0), ("a", 1, 0), ("b", 0, 1), ("b", 1, -1), ("c", 0, 3), ("c", 1, 3))
]
POLICY = [
    sample("a", 0, 1, logprob=-1.0, ref_logprob=-3.0, gold=1.0, length=2, response="a b c"),
    sample("a", 1, 3, logprob=-2.0, ref_logprob=-2.0, gold=0.5, length=4, response="a b"),
    sample("b", 0, 1, logprob=-4.0, ref_logprob=-3.0, gold=0.0, length=6, response="a", finished=False),
    sample("b", 1, -1, logprob=-1.0, ref_logprob=-2.0, gold=0.5, length=8, response=""),
    sample("c", 0, 1, logprob=-1.0, ref_logprob=-5.0, gold=1.0, length=1, response="b c d", format="fact"),
    sample("c", 1, 1, logprob=-3.0, ref_logprob=-5.0, gold=1.0, length=3, response="x y", format="fact"),
]
# b has no scored response
DATASET = [
    dataset("a", 0, 1.5, 7.0, True, logprob=-2.0, ref_logprob=-1.0, length=4, response="c b a"),
    dataset("a", 1, 0.0, 7.0, False, logprob=-2.0, ref_logprob=-3.0, length=4, response="z"),
    dataset("a", 2, 9.0, 3.0, False, logprob=-1.0, ref_logprob=-1.5, length=2, response="z"),
    dataset("c", 0, 1.0, 2.0, True, logprob=-4.0, ref_logprob=-4.0, length=6, response="b c"),
    dataset("c", 1, 0.0, 1.0, False, logprob=-1.0, ref_logprob=-2.0, length=9, response="z"),
]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 3, 1]])
def test_summary_by_hand(order):
    got = summary(POLICY, [BASELINE[i] for i in order], DATASET)  # the baseline is joined by prompt and draw
    assert got["reward"] == pytest.approx(1.0)
    assert got["reward_se"] == pytest.approx(1 / math.sqrt(3))
    assert got["win_rate"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert got["win_rate_se"] == pytest.approx(0.5 / math.sqrt(3))
    assert got["win_rate_chosen"] == pytest.approx((0.5 + 0.5) / 2)  # 1 and 3 against 1.5; 1 and 1 against 1
    assert got["judge"] == pytest.approx(-1.0)
    assert got["judge_win_rate"] == pytest.approx(1 - got["win_rate"])
    assert got["judge_win_rate_chosen"] == pytest.approx(0.5)
    assert got["kl"] == pytest.approx((1 + 0 + 3) / 3)
    assert got["kl_se"] == pytest.approx(stdev([1, 0, 3]) / math.sqrt(3))
    assert got["length"] == pytest.approx(4.0)
    assert got["eos_rate"] == pytest.approx(5 / 6)
    assert got["eos_rate_se"] == pytest.approx(stdev([1, 0.5, 1]) / math.sqrt(3))
    assert got["repetition"] == 0
    assert got["distinct_1"] == pytest.approx(6 / 11)  # a b c d x y
    assert got["distinct_2"] == pytest.approx(4 / 6)  # ab bc, ab, bc cd, xy
    assert got["rouge1"] == pytest.approx(((1 + 4 / 5) / 2 + (4 / 5 + 0) / 2) / 2)
    assert got["gold"] == pytest.approx(2 / 3)
    assert got["gold_gain"] == pytest.approx(1 / 6)
    assert got["gold_gain_se"] == pytest.approx(stdev([0.25, -0.25, 0.5]) / math.sqrt(3))
    assert got["gold_by_format"] == pytest.approx({"fact": 1.0, "list": 0.5})


def test_where_all_responses_end_some_may_still_not():
    got = summary([{**sample, "finished": True} for sample in POLICY], BASELINE, DATASET)
    assert (got["eos_rate"], got["eos_rate_se"]) == share_and_se([1.0, 1.0, 1.0])


def test_every_number_has_its_error():
    got = policy_metrics([*POLICY, *DATASET], BASELINE, ["t1"])
    values = {key for numbers in got.values() for key in numbers if not key.endswith("_se")}
    errors = {key for numbers in got.values() for key in numbers if key.endswith("_se")}
    assert errors == {f"{key}_se" for key in values - {"gold_by_format", "pairs", "few_prompts"}}
    assert {"bleu", "sentence_bleu", "rouge1", "rouge2", "rougeL", "self_bleu", "distinct_1", "perplexity"} <= values


def test_the_datasets_own_responses_by_hand():
    got = dataset_summary(DATASET)
    assert got["perplexity"] == pytest.approx(math.exp(6 / 10))
    assert got["perplexity_se"] == pytest.approx((math.exp(4 / 6) - math.exp(2 / 4)) / 2)
    # implicit rewards: -1, 1, 0.5 for scores 7, 7, 3, and 0, 1 for 2, 1: of the three pairs one is right
    assert got["preference_accuracy"] == pytest.approx(1 / 3)
    assert got["preference_accuracy_se"] == pytest.approx((1 / 2 - 0) / 2)
    # a prompt whose responses have the same score orders nothing, and is none of the draws that the error rests on
    equal = [{**sample, "id": "equal", "score": 5.0, "chosen": False} for sample in DATASET[:2]]
    more = dataset_summary([*DATASET, *equal])
    assert all(more[f"preference_accuracy{end}"] == got[f"preference_accuracy{end}"] for end in ("", "_se"))
    assert got["pairs"] == 3


def test_a_policy_against_itself_is_even():
    got = summary(BASELINE, BASELINE, DATASET)
    assert (got["win_rate"], got["win_rate_se"], got["judge_win_rate"]) == (0.5, 0.0, 0.5)
    assert (got["kl"], got["kl_se"], got["gold_gain"], got["gold_gain_se"]) == (0.0, 0.0, 0.0, 0.0)


def test_without_true_quality_nothing_is_said_of_it():
    bare = [{key: value for key, value in s.items() if key not in ("gold", "format")} for s in POLICY]
    got = summary(bare, bare, [])
    assert not any("gold" in key for key in got) and got["reward"] == pytest.approx(1.0)


def numbers_of(measured):
    return [n for value in measured.values() for n in (numbers_of(value) if isinstance(value, dict) else [value])]


@pytest.mark.parametrize(
    ("samples", "responses"),
    [
        (POLICY[:1], DATASET[:1]),
        (POLICY[:2], []),
        ([{**s, "response": ""} for s in POLICY], DATASET),
        (POLICY, [{**s, "score": 1.0} for s in DATASET]),
        (POLICY, DATASET[1:3]),
        ([], []),
    ],
    ids=["one prompt", "no responses in the dataset", "empty responses", "no pairs", "none chosen", "nothing"],
)
def test_whatever_the_samples_each_number_is_one_or_unknown(samples, responses):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = policy_metrics([*samples, *responses], BASELINE, ["t1"])
    assert all(n is None or math.isfinite(n) for n in numbers_of(got))


def test_unknown_numbers_are_none():
    got = policy_metrics(POLICY[:2], BASELINE, ["t1"])
    assert (got["t1"]["reward"], got["t1"]["reward_se"]) == (2.0, None)  # the spread over prompts of one prompt
    assert got["t1"]["bleu"] is got["t1"]["win_rate_chosen"] is got["t1"]["self_bleu"] is None
    assert got["dataset"]["perplexity"] is got["dataset"]["preference_accuracy"] is None
    assert got["dataset"]["pairs"] == 0


def test_the_standard_error_is_the_spread_over_repetitions():
    """Draws of one prompt are alike: an error over single draws would be too small by half."""
    rng = random.Random(0)

    def repetition():
        centres = {f"p{i}": rng.gauss(0, 1) for i in range(40)}
        samples = [sample(p, d, centre + rng.gauss(0, 0.5)) for p, centre in centres.items() for d in range(4)]
        return comparison.mean_and_se(comparison.by_prompt(samples, lambda s: s["reward"]))

    means, errors = zip(*(repetition() for _ in range(300)), strict=True)
    assert fmean(errors) == pytest.approx(stdev(means), rel=0.15)


# ---- comparison


@pytest.mark.parametrize(
    ("temperature", "name"), [(1.0, "t1"), (1, "t1"), (0.7, "t0_7"), (0.0, "greedy"), (1.25, "t1_25")]
)
def test_modes_have_names_without_dots(temperature, name):
    assert mode_name(temperature) == name


def test_draws_are_averaged_by_prompt_in_any_order():
    mixed = [POLICY[i] for i in (0, 2, 4, 1, 3, 5)]
    assert comparison.by_prompt(mixed, lambda s: s["reward"]) == [2.0, 0.0, 1.0]


def test_draws_without_a_value_are_left_out():
    assert comparison.by_prompt(POLICY, lambda s: s["reward"] if s["reward"] > 0 else None) == [2.0, 1.0, 1.0]
    assert comparison.by_prompt(POLICY, lambda s: None if s["id"] == "b" else 1.0) == [1.0, 1.0]


def test_wins():
    answers = [{"response": "a", "judge": judge} for judge in (2.0, 1.0, 0.0)]
    assert [comparison.wins(one, {"response": "b", "judge": 1.0}, "judge") for one in answers] == [1.0, 0.5, 0.0]


def test_the_same_answer_is_a_tie_whatever_was_rounded():
    rounded = [{**s, "judge": s["judge"] * (1 + 1e-7), "reward": s["reward"] * (1 + 1e-7)} for s in POLICY]
    got = summary(rounded, POLICY, DATASET)
    assert (got["win_rate"], got["judge_win_rate"], got["judge_lc_win_rate"]) == (0.5, 0.5, 0.5)
    assert (got["win_rate_se"], got["judge_win_rate_se"]) == (0.0, 0.0)


def test_order_accuracy():
    assert comparison.order_accuracy([[3, 1, 1], [1, 2]], [[0.5, 0.2, 0.9], [0.0, 0.0]]) == ((1 + 0.5) / 3, 3)
    assert comparison.order_accuracy([[1, 1]], [[0.5, 0.2]]) == (None, 0)


def test_paired_difference_by_hand():
    value, error = comparison.paired_difference(POLICY, list(reversed(BASELINE)), "reward")
    assert value == pytest.approx((2 + 0 - 2) / 3)
    assert error == pytest.approx(2 / math.sqrt(3))
    assert comparison.paired_difference(POLICY[:4], BASELINE[2:], "reward") == (0.0, None)  # b alone is in both
    assert comparison.paired_difference(POLICY, [], "reward") == (None, None)


# ---- select


def test_select_takes_few_numbers_of_the_headline_mode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate = "{seed: 0, max_prompts: null, samples_per_prompt: 2, temperatures: [0.7, 1.0], max_new_tokens: 8, "
    (tmp_path / "params.yaml").write_text(f"policy: dpo\nevaluate: {evaluate} per_device_eval_batch_size: 4}}\n")
    (tmp_path / "metrics/eval").mkdir(parents=True)
    measured = {"t0_7": summary(POLICY, BASELINE, DATASET), "t1": summary(BASELINE, BASELINE, DATASET)}
    (tmp_path / "metrics/eval/dpo.json").write_text(json.dumps(measured))
    monkeypatch.setattr(sys, "argv", ["select", "dpo"])
    select.main()
    got = json.loads((tmp_path / "metrics/policy.json").read_text())["eval"]
    assert len(got) <= 11 and {"reward", "judge", "win_rate", "judge_win_rate", "kl", "length", "gold"} <= set(got)
    assert (got["reward"], got["kl"]) == (1.0, pytest.approx(4 / 3, rel=1e-5))
    assert (tmp_path / "metrics/frontier.tsv").read_text() == "kl\treward\tjudge\tgold\n1.33333\t1\t-1\t0.666667\n"
