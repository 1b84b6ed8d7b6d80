"""The numbers of answers that no reward model scored, to prompts whose answers have no score."""

import pytest

from rlhf_lib.evaluation.samples import DATASET
from rlhf_lib.measure.policy_metrics import policy_metrics

HEAD = {"logprob": -1.0, "ref_logprob": -1.0, "length": 2, "finished": True}
ANSWERS = [
    {"id": prompt, "draw": 0, "mode": "t1", "response": text, **HEAD} for prompt, text in (("a", "x y"), ("b", "z z"))
]
REFERENCES = [
    {"id": prompt, "draw": 0, "mode": DATASET, "response": "x y", "score": None, "chosen": True, **HEAD}
    for prompt in ("a", "b")
]


def test_what_needs_no_score_is_measured():
    got = policy_metrics([*ANSWERS, *REFERENCES], ANSWERS, ["t1"])
    assert {"reward", "judge", "win_rate", "judge_win_rate", "judge_lc_win_rate", "gold"}.isdisjoint(got["t1"])
    assert got["t1"]["rouge1"] == pytest.approx(0.5)  # the first answer is its reference, the second shares no word
    assert got["t1"]["distinct_1"] == pytest.approx(3 / 4)
    assert (got["t1"]["length"], got["t1"]["eos_rate"], got["t1"]["kl"]) == (2, 1, 0)
    assert got["t1"]["few_prompts"] == 2
    assert got["dataset"]["perplexity"] == pytest.approx(2.718281828 ** (1 / 2))
    assert (got["dataset"]["preference_accuracy"], got["dataset"]["pairs"]) == (None, 0)


def test_prompts_without_any_answer_have_no_reference():
    got = policy_metrics(ANSWERS, ANSWERS, ["t1"])
    assert got["t1"]["bleu"] is None and got["t1"]["distinct_1"] == pytest.approx(3 / 4)
    assert got["dataset"]["perplexity"] is None


def test_one_of_the_two_scorers():
    judged = [{**sample, "judge": float(place)} for place, sample in enumerate([*ANSWERS, *REFERENCES])]
    got = policy_metrics(judged, judged[:2], ["t1"])["t1"]
    # the first answer is its reference, whatever its score, and the second is beaten
    assert (got["judge"], got["judge_win_rate"], got["judge_win_rate_chosen"]) == (0.5, 0.5, 0.25)
    assert "reward" not in got and "win_rate" not in got


def test_thirty_prompts_are_not_few():
    many = [{**ANSWERS[0], "id": str(number)} for number in range(30)]
    assert "few_prompts" not in policy_metrics(many, many, ["t1"])["t1"]
