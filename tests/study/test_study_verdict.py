"""What a study says of its answers."""

import json
import re

import pytest
from studies import DPO, STUDY, results

from rlhf_lib.study import tables
from rlhf_lib.study.intervals import Estimate
from rlhf_lib.study.verdict import Pair, pairs, verdict

KLS = [1.0, 0.5, 0.8, 0.4]


def test_the_choice_is_of_validation_and_the_numbers_are_of_the_test():
    # on the test prompts the other setting of either method is the better one
    found = verdict(STUDY, results([0.6, 0.2, 0.5, 0.1], KLS), results([0.1, 0.9, 0.3, 0.8], KLS, seed=1))
    assert {name: method.told for name, method in found.chosen.items()} == {"ppo": "kl_coef 0.05", "dpo": "beta 0.1"}
    assert found.chosen["ppo"].gains["gold"].value == pytest.approx(0.1, abs=0.03)
    (pair,) = found.chosen_pairs
    assert (pair.better, pair.worse, pair.called) == ("dpo", "ppo", True)
    assert found.criterion == "gold"


def test_methods_are_compared_at_a_kl_that_all_reach():
    found = verdict(STUDY, results([0.6, 0.2, 0.5, 0.1], KLS), results([0.6, 0.2, 0.5, 0.1], KLS, seed=1))
    assert found.most_kl == pytest.approx(0.8)
    # (0.5, 0.2) and (1, 0.6) mixed for 0.8 nats have 0.44, below the line from SFT to (1, 0.6), which has 0.48
    assert found.equal["ppo"].told == "20 % SFT, 80 % kl_coef 0.05"
    assert found.equal["ppo"].kl.value == pytest.approx(0.8)
    assert found.equal["ppo"].gains["gold"].value == pytest.approx(0.48, abs=0.03)
    assert found.equal["dpo"].told == "beta 0.1"


def test_the_text_names_the_better_one_with_its_confidence():
    validation, test = results([0.6, 0.2, 0.5, 0.1], KLS), results([0.6, 0.2, 0.5, 0.1], KLS, seed=1)
    text = tables.told(STUDY, verdict(STUDY, validation, test), validation, test)
    assert re.search(r"\*\*PPO is better than DPO\*\*: \+0\.\d{3} ± 0\.\d{3} in true quality, confidence", text)
    assert "60 test prompts and 3 seeds" in text and "chosen by the judge on 60 validation prompts" in text
    assert all(len(line.split("|")) == 8 for line in text.split("## ")[1].splitlines() if line.startswith("|"))


def test_what_is_undecided_says_how_many_seeds_would_tell():
    def undecided(seeds):
        pair = Pair("ppo", "dpo", Estimate(0.1, ((0.01, 4),)), 0.4, seeds)
        return tables._compared(pair, "judge")

    assert undecided(1).endswith("confidence 60.0 %; about 1 more seed would decide it.")
    assert undecided(7).endswith("about 7 more seeds would decide it.")
    assert undecided(None).endswith("100 seeds would not decide it, only more prompts.")


def test_of_several_pairs_each_needs_more():
    scores = {str(i): results([0.1 * i, 0, 0, 0], KLS, seed=i).settings for i in range(3)}
    alone = {name: next(iter(of.values()))["gold"] for name, of in scores.items()}
    three, (two,) = list(pairs(alone)), pairs({name: alone[name] for name in ("0", "1")})
    same = next(pair for pair in three if {pair.better, pair.worse} == {"0", "1"})
    assert same.difference == two.difference and same.p >= two.p


def test_confidence_is_never_rounded_up_to_certainty():
    assert [tables.confidence(p) for p in (0.9, 0.5, 0.0123, 0.0004)] == [
        "below 50 %",
        "50.0 %",
        "98.8 %",
        "above 99.9 %",
    ]


def test_the_numbers_are_plain_json():
    validation, test = results([0.6, 0.2, 0.5, 0.1], KLS), results([0.6, 0.2, 0.5, 0.1], KLS, seed=1)
    plain = json.loads(json.dumps(tables.as_json(STUDY, verdict(STUDY, validation, test))))
    assert set(plain["chosen"]["ppo"]) == {"setting", "kl", "gold", "judge", "gold_gain", "judge_gain"}
    assert plain["pairs"][0]["called"] is True and plain["seeds"] == [0, 1, 2]


def test_a_setting_that_went_too_far_is_not_drawn_but_said():
    kls = [1.0, 0.5, 70.0, 0.4]
    validation, test = results([0.6, 0.2, 0.1, 0.5], kls), results([0.6, 0.2, 0.1, 0.5], kls, seed=1)
    found = verdict(STUDY, validation, test)
    assert tables.far(found, test) == [DPO[0]]
    assert "Not in the picture, as it went too far: DPO beta 0.1." in tables.told(STUDY, found, validation, test)


def test_where_nothing_moved_every_setting_is_drawn():
    kls = [-0.02, -0.01, -0.01, 0.0]
    test = results([0.6, 0.2, 0.1, 0.5], kls)
    assert tables.far(verdict(STUDY, test, test), test) == []


def test_one_method_alone_has_no_pairs():
    assert list(pairs({"ppo": results([0.1] * 4, KLS).sft["gold"][:, None].repeat(3, axis=1)})) == []
