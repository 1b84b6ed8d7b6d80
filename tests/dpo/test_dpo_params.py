"""The section dpo: what its losses cannot have together, and TRL's options that are none here, are told in one line."""

import dataclasses
import re
from typing import get_args

import pytest
from shipped_params import check, check_fault
from trl import DPOConfig

from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.dpo.params import DPOParams, Loss

SMOOTHED = "robust, exo_pair, aot, aot_unpaired do"


@pytest.mark.parametrize("loss", get_args(Loss))
def test_a_loss_is_named_by_a_text_or_by_a_list(loss):
    smoothing = {"label_smoothing": 0.1} if loss == "exo_pair" else {}
    one, several = (check("dpo", {"loss_type": value, **smoothing}) for value in (loss, [loss]))
    assert one.losses == several.losses == [loss] and (one.loss_type, several.loss_type) == (loss, [loss])
    assert one.config()["loss_type"] == loss


def test_trl_has_no_other_loss_nor_another_option():
    """So that a new TRL's are seen here: what its config has beside transformers' is a param, is refused with what to
    do, or is none of the losses'."""
    text = next(field for field in dataclasses.fields(DPOConfig) if field.name == "loss_type").metadata["help"]
    assert set(re.findall(r"`'(\w+)'`", text)) == set(get_args(Loss))
    own = names(DPOConfig) - names(DPOConfig.__base__)
    of_others = {"model_init_kwargs", "trust_remote_code", "router_aux_loss_coef", "disable_dropout", "pad_token"}
    of_others |= {"dataset_num_proc", "pad_to_multiple_of", "activation_offloading"}
    assert own - names(DPOParams) - set(DPOParams.unserved) == of_others


def names(config):
    return {field.name for field in dataclasses.fields(config)}


def test_weights_go_with_a_list():
    params = check("dpo", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5]})
    assert params.loss_weights == [1.0, 0.5]
    assert check("dpo", {"loss_weights": [0.5]}).config()["loss_weights"] == [0.5]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss_type": "kto"}, "loss_type: must be one of sigmoid, hinge, ipo, "),
        ({"loss_type": ["sigmoid", "SFT"]}, "loss_type[1]: must be one of sigmoid, hinge, ipo, "),
        ({"loss_type": None}, "loss_type: must be one of sigmoid, hinge, ipo, "),
        ({"loss_type": []}, "loss_type: must name a loss: sigmoid, hinge, ipo, "),
        (
            {"loss_type": ["sft", "sigmoid", "sft"]},
            "loss_type: names sft more than once; give it a weight in dpo.loss_weights",
        ),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]},
            "loss_weights: must have a weight for each loss of dpo.loss_type, which is [sigmoid, sft], got [1.0]",
        ),
        (
            {"loss_weights": [1.0, 0.2]},
            "loss_weights: must have a weight for each loss of dpo.loss_type, which is sigmoid, got [1.0, 0.2]",
        ),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.0, 0.0]},
            "loss_weights: must not all be 0, got [0.0, 0.0]",
        ),
        ({"loss_type": ["ipo", "sft"], "loss_weights": [1.0, -0.1]}, "loss_weights[1]: must be at least 0, got -0.1"),
        ({"loss_weights": 0.5}, "loss_weights: must be a list, got 0.5"),
        ({"loss_type": "robust", "label_smoothing": 0.5}, "label_smoothing: must be below 0.5, got 0.5"),
        (
            {"label_smoothing": 0.1},
            f"label_smoothing: must be 0.0 while dpo.loss_type is sigmoid, which does not read it; {SMOOTHED}",
        ),
        (
            {"loss_type": ["hinge", "sft"], "label_smoothing": 0.1},
            f"label_smoothing: must be 0.0 while dpo.loss_type is [hinge, sft], which does not read it; {SMOOTHED}",
        ),
        (
            {"loss_type": ["exo_pair", "sft"]},
            "label_smoothing: must be above 0 while dpo.loss_type has exo_pair, which takes its logarithm; its authors "
            "set 0.001",
        ),
        (
            {"loss_type": ["sigmoid", "bco_pair", "apo_zero"], "f_divergence_type": "forward_kl"},
            "f_divergence_type: must be reverse_kl while dpo.loss_type has apo_zero and bco_pair; forward_kl goes with "
            "sigmoid, sigmoid_norm, hinge, ipo, exo_pair, robust, discopop, sft",
        ),
        ({"f_divergence_type": "kl"}, "f_divergence_type: must be one of reverse_kl, forward_kl, js_divergence, "),
        ({"f_alpha_divergence_coef": 1.5}, "f_alpha_divergence_coef: must be at most 1, got 1.5"),
        ({"ld_alpha": -0.1}, "ld_alpha: must be at least 0, got -0.1"),
        ({"ld_alpha": 1.1}, "ld_alpha: must be at most 1, got 1.1"),
        ({"discopop_tau": 0.0}, "discopop_tau: must be above 0, got 0.0"),
        *[
            (
                {"loss_type": ["sigmoid", loss], "use_weighting": True},
                f"use_weighting: must be false while dpo.loss_type has {loss}, whose pairs TRL cannot weight",
            )
            for loss in ("hinge", "sft", "aot", "aot_unpaired")
        ],
        (
            {"loss_type": "aot", "per_device_train_batch_size": 1},
            "per_device_train_batch_size: must be at least 2 while dpo.loss_type has aot, which compares the answers "
            "of several pairs",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_line(changes, expected):
    assert check_fault("dpo", changes).startswith(f"params.yaml: dpo.{expected}")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "sync_ref_model",
            True,
            "stage reference computes the reference's log-probs once, so that it cannot follow the policy; take this "
            "out, and let the policy move further with a smaller dpo.beta",
        ),
        ("ref_model_mixup_alpha", 0.6, "stage reference computes the reference's log-probs once, "),
        ("ref_model_sync_steps", 512, "stage reference computes the reference's log-probs once, "),
        ("precompute_ref_log_probs", True, "stage reference always does so; take this out"),
        ("precompute_ref_batch_size", 8, "set reference.precompute_ref_batch_size"),
        ("max_length", 512, "set reference.max_length, which holds for dpo too"),
        ("rpo_alpha", 1.0, "set dpo.loss_type to [sigmoid, sft], and dpo.loss_weights to [1.0, your rpo_alpha]"),
        ("discopop_ta", 0.1, "did you mean dpo.discopop_tau?"),
    ],
)
def test_an_option_that_is_none_here_says_what_to_do(key, value, expected):
    assert check_fault("dpo", {key: value}).startswith(f"params.yaml: dpo.{key}: unknown key; {expected}")


def test_what_dvc_writes_for_a_list_is_read(tmp_path):
    """`dvc exp run -S 'dpo.loss_type=[sigmoid,sft]'` writes a block."""
    (tmp_path / "params.yaml").write_text(
        "dpo:\n  loss_type:\n  - sigmoid\n  - sft\n  loss_weights:\n  - 1\n  - 2.5e-1\n"
    )
    params = check("dpo", load_yaml(tmp_path / "params.yaml")["dpo"])
    assert (params.losses, params.loss_weights, params.shown) == (["sigmoid", "sft"], [1.0, 0.25], "[sigmoid, sft]")
