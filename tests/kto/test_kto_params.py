"""The params of KTO, and what is told of good and bad answers that do not weigh alike."""

import pytest
from kto_trainers import kto_params
from shipped_params import PARAMS as FILE

from rlhf_lib.check.sections import faults
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.kto.balance import told

PARAMS = load_yaml(FILE)


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"beta": 0.0}, "kto.beta: must be above 0"),
        ({"loss_type": "sigmoid"}, "kto.loss_type: must be one of kto, apo_zero_unpaired"),
        ({"per_device_train_batch_size": 1}, "kto.per_device_train_batch_size: must be at least 2 while kto.loss_type"),
        ({"desirable_weight": -1.0}, "kto.desirable_weight: must be at least 0"),
        ({"desirable_weight": 0.0, "undesirable_weight": 0.0}, "kto.desirable_weight: must not be 0 while"),
        ({"precompute_ref_log_probs": True}, "kto.precompute_ref_log_probs: unknown key; stage kto always does so"),
        ({"sync_ref_model": True}, "kto.sync_ref_model: unknown key; the reference's log-probs are computed once"),
    ],
)
def test_a_bad_param_is_told_in_one_line(changes, start):
    (told,) = faults({**PARAMS, "kto": {**PARAMS["kto"], **changes}})
    assert told.startswith(f"params.yaml: {start}") and "\n" not in told


def test_a_length_beyond_the_context_is_told_where_kto_is_wanted():
    params = {**PARAMS, "kto": {**PARAMS["kto"], "max_length": 1000}}
    assert faults(params) == []
    (told,) = faults({**params, "methods": {**PARAMS["methods"], "kto": True}})
    assert told.startswith("params.yaml: kto.max_length: 1000 tokens, but the fresh model has base.n_positions")


def test_apo_needs_no_second_row():
    assert not kto_params(loss_type="apo_zero_unpaired", per_device_train_batch_size=1).estimates_kl


@pytest.mark.parametrize(
    ("good", "bad", "weights", "expected"),
    [
        (100, 100, {}, None),
        (133, 100, {}, None),
        (20, 100, {"desirable_weight": 5.0}, None),
        # 100 * 1 / (20 * 1) = 5: the bad ones must weigh 100 / 20 / 1.33 to 100 / 20
        (100, 20, {}, "weigh 5.00 to 1, where 1 to 1.33 is advised; set kto.undesirable_weight to 3.76 to 5.00"),
        # 0.2: the good ones must weigh 100 / 20 to 1.33 times that, here twice as much
        (20, 100, {}, "weigh 0.20 to 1, where 1 to 1.33 is advised; set kto.desirable_weight to 5.00 to 6.65"),
        (20, 100, {"undesirable_weight": 2.0}, "weigh 0.10 to 1, where 1 to 1.33 is advised; set kto.desirable_weight "
         "to 10.00 to 13.30"),
        (100, 100, {"desirable_weight": 3.0}, "weigh 3.00 to 1, where 1 to 1.33 is advised; set kto.undesirable_weight "
         "to 2.26 to 3.00"),
        (7, 0, {}, "kto: all 7 answers are good: there is nothing to tell them from; add bad ones"),
        (0, 7, {}, "kto: all 7 answers are bad: there is nothing to tell them from; add good ones"),
        (1, 100, {"undesirable_weight": 0.0}, None),
    ],
)  # fmt: skip
def test_the_weights_that_would_balance_the_answers(good, bad, weights, expected):
    found = told(good, bad, kto_params(**weights))
    assert found == expected or (found is not None and expected is not None and found.endswith(expected))
