"""Values, errors and differences, by hand."""

import math
from statistics import fmean, stdev

import pytest
from lm_eval_entries import about, entry, rows

from rlhf_lib.capability import numbers

RIGHT, LESS = rows(1, 1, 1, 0), rows(1, 0, 0, 0)


def made(of_rows, value, metric="acc", **settings):
    given = {f"{metric},none": value, f"{metric}_stderr,none": 9.0, "alias": "x", "sample_len": 4}
    return numbers.entry(given, of_rows, about(higher_is_better={metric: True}, **settings))


def known(**models):
    return lambda model, task: models.get(model, [])


def test_a_mean_has_the_textbook_error_of_its_documents():
    found = made(RIGHT, 0.75)
    assert found["acc"] == 0.75 and found["acc_se"] == pytest.approx(stdev([1, 1, 1, 0]) / 2)
    assert found["about"][0]["higher_is_better"] == {"acc": True}


@pytest.mark.parametrize(
    ("metric", "value"),
    [("bits_per_byte", 6 / 12 / math.log(2)), ("byte_perplexity", math.exp(6 / 12))],
)
def test_what_is_made_of_sums_has_the_error_of_leaving_each_document_out(metric, value):
    texts = [[-1.0, 4], [-2.0, 3], [-3.0, 5]]  # nats, bytes
    found = made(rows(*texts, metric=metric), value, metric)
    without = [sum(-t[0] for t in texts if t is not x) / sum(t[1] for t in texts if t is not x) for x in texts]
    if metric == "bits_per_byte":
        without = [nats / math.log(2) for nats in without]
    else:
        without = [math.exp(nats) for nats in without]
    by_hand = math.sqrt(2 / 3 * sum((w - fmean(without)) ** 2 for w in without))
    assert found[metric] == value and found[f"{metric}_se"] == pytest.approx(by_hand)


def test_the_perplexity_of_single_numbers_is_known_by_its_value():
    found = made(rows(-1.0, -3.0, metric="perplexity"), math.exp(2.0), "perplexity")
    assert found["perplexity_se"] == pytest.approx(math.sqrt(0.5 * 2 * ((math.e**3 - math.e) / 2) ** 2))


def test_what_the_documents_do_not_explain_keeps_the_library_s_error():
    assert made(RIGHT, 0.3)["acc_se"] == 9.0  # such as an F1
    assert made([], 0.75)["acc_se"] == 9.0  # such as that of a group


def test_a_filter_is_part_of_the_name():
    of_filter = [{**row, "filter": "strict"} for row in RIGHT]
    found = numbers.entry({"acc,strict": 0.75, "acc_stderr,strict": "N/A"}, of_filter, about())
    assert found["acc,strict"] == 0.75 and found["acc,strict_se"] == pytest.approx(0.25)


def compared(baseline, other, **of_rows):
    entries = {"sft": {"task": baseline}, "ppo": {"task": other}}
    return numbers.compared(entries, "sft", entries["sft"], known(**of_rows))["ppo"]["task"]


def test_a_difference_is_paired_by_document():
    found = compared(made(RIGHT, 0.75), made(LESS, 0.25), sft=RIGHT, ppo=LESS)
    assert found["acc_diff"] == -0.5
    assert found["acc_diff_se"] == pytest.approx(stdev([0, -1, -1, 0]) / 2)
    assert found["about"][0]["paired"] is True


def test_without_the_documents_the_errors_are_taken_as_independent():
    found = compared(entry(0.75, 0.03), entry(0.25, 0.04), sft=RIGHT)
    assert found["acc_diff"] == -0.5 and found["acc_diff_se"] == pytest.approx(0.05)
    assert found["about"][0]["paired"] is False
    assert compared(entry(0.75, None), entry(0.25, 0.04))["acc_diff_se"] is None


@pytest.mark.parametrize("changed", [{"limit": 10}, {"n_shot": 2}, {"documents": "e"}, {"apply_chat_template": False}])
def test_what_was_asked_otherwise_is_not_compared(changed):
    old = entry(0.25, diff=0.1, paired=True, **changed)  # a difference from before
    found = compared(entry(0.75), old)
    assert "acc_diff" not in found and "acc_diff_se" not in found and "paired" not in found["about"][0]


def test_the_hashes_of_models_need_not_agree():
    assert compared(entry(0.75, model_md5="a"), entry(0.25, model_md5="b"))["acc_diff"] == -0.5


def test_a_guess_is_right_once_in_as_many_times_as_there_are_choices():
    assert numbers.chance([{"resps": [[-1.0, False]] * 4}, {"resps": [[-1.0, False]] * 2}]) == pytest.approx(3 / 8)


def test_documents_that_differ_have_another_hash():
    assert numbers.documents(RIGHT) == numbers.documents(LESS) != numbers.documents(RIGHT[:3])
