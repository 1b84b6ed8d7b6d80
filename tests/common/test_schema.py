"""What is told of a faulty params.yaml: a file, a section or a value."""

import math
import typing

import pytest
from shipped_params import check, check_fault, fault

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common import schema
from rlhf_lib.sft.params import SFTParams

ALONE = {"critic": "none", "advantage_estimator": "reinforce"}

# ---- the file


@pytest.mark.parametrize("text", ["policy: ppo\npolicy: dpo\n", "policy: ppo\nsft:\n  seed: 1\n  seed: 2\n"])
def test_a_key_twice_is_told_in_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    told = fault(schema.load_yaml, tmp_path / "params.yaml")
    assert text.splitlines()[-1].split(":")[0].strip() in told and "twice" in told


@pytest.mark.parametrize(
    "content",
    [
        b"policy: [ppo\n",
        b"policy: ppo\n\tsft: 1\n",
        b"policy: !!python/object:os.system x\n",
        b"policy: ppo\n? [a]\n: 1\n",
        b"",
        b"- a\n",
        b"just text\n",
        b"policy: ppo # \xff\n",
        b"policy: ppo\nsft: 2001-99-99\n",
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    assert "params.yaml" in fault(schema.load_yaml, tmp_path / "params.yaml")


def test_a_missing_file_is_told_in_one_line(tmp_path):
    assert "root" in fault(schema.load_yaml, tmp_path / "params.yaml")


def test_a_missing_section_is_named(tmp_path):
    (tmp_path / "params.yaml").write_text("policy: ppo\n")
    assert "sft" in fault(schema.read, "sft", SFTParams, tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["policy: nosuch\n", "policy: [ppo]\n", "policy: true\n", "load: 1\n"])
def test_a_wrong_or_missing_policy_is_told_with_the_known_ones(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    told = fault(schema.read, "sft", SFTParams, tmp_path / "params.yaml")
    assert "policy" in told and all(policy in told for policy in ("sft", "ppo", "dpo"))


@pytest.mark.parametrize("argv", [["stages/evaluate.py"], ["x", "nosuch"], ["x", "ppo", "dpo"]])
def test_a_wrong_policy_argument_is_told_with_the_known_ones(argv):
    told = fault(schema.policy_argument, argv)
    assert all(policy in told for policy in ("sft", "ppo", "dpo"))


def test_a_policy_argument_is_taken():
    assert schema.policy_argument(["x", "dpo"]) == "dpo"


# ---- sections


@pytest.mark.parametrize("values", [None, 3, "text", [1]])
def test_a_section_that_is_no_mapping_is_named(values):
    assert "sft" in fault(schema.check, SFTParams, values, "sft")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("sft", {"learning_rat": 1.0}, ["sft.learning_rat:", "did you mean sft.learning_rate"]),
        ("ppo", {"clip_range": 1.0}, ["ppo.clip_range:", "ppo.cliprange"]),
        ("evaluate", {"zzzzzz": 1}, ["evaluate.zzzzzz:", "known keys", "max_new_tokens"]),
        ("dpo", {"sync_ref_model": True}, ["dpo.sync_ref_model: unknown key; stage reference", "take this out"]),
        ("sft", {"a\nb": 1}, ["unknown key"]),
        ("sft", {1: 1}, ["sft.1:", "unknown key"]),
        ("sft", {"seed": ...}, ["sft.seed:", "missing"]),
        ("sft", {"seed": "one"}, ["sft.seed:", "whole number", "'one'"]),
        ("sft", {"seed": 1.0}, ["sft.seed:", "whole number", "1.0"]),
        ("sft", {"seed": True}, ["sft.seed:", "whole number", "True"]),
        ("sft", {"seed": None}, ["sft.seed:", "None"]),
        ("sft", {"learning_rate": "fast"}, ["sft.learning_rate:", "a number", "'fast'"]),
        ("sft", {"learning_rate": True}, ["sft.learning_rate:", "a number", "True"]),
        ("sft", {"learning_rate": [1.0]}, ["sft.learning_rate:", "a number"]),
        ("sft", {"learning_rate": -1e-3}, ["sft.learning_rate:", "at least 0", "-0.001"]),
        ("sft", {"learning_rate": math.nan}, ["sft.learning_rate:", "nan"]),
        ("sft", {"adam_beta2": 1.5}, ["sft.adam_beta2:", "below 1", "1.5"]),
        ("sft", {"num_train_epochs": 0}, ["sft.num_train_epochs:", "above 0"]),
        ("sft", {"lr_scheduler_type": "cosin"}, ["sft.lr_scheduler_type:", "linear, cosine", "'cosin'"]),
        ("sft", {"lr_scheduler_type": ["cosine"]}, ["sft.lr_scheduler_type:"]),
        ("sft", {"max_steps": 0}, ["sft.max_steps:", "-1"]),
        ("sft", {"max_steps": -2}, ["sft.max_steps:", "-1"]),
        ("sft", {"max_length": 7}, ["sft.max_length:", "at least 8"]),
        ("ppo", {"whiten_advantages": "yes"}, ["ppo.whiten_advantages:", "true or false", "'yes'"]),
        ("ppo", {"whiten_advantages": 1}, ["ppo.whiten_advantages:", "true or false"]),
        ("ppo", {"temperature": 0}, ["ppo.temperature:", "above 0"]),
        ("ppo", {"cliprange": None}, ["ppo.cliprange:", "None"]),
        ("ppo", {"cliprange_value": 0.0}, ["ppo.cliprange_value:", "above 0"]),
        ("ppo", {"kl_estimator": "k4"}, ["ppo.kl_estimator:", "k1, k2, k3"]),
        ("ppo", {"num_minibatches": 3}, ["ppo.num_minibatches:", "rollout_batch_size"]),
        ("ppo", {"per_device_train_batch_size": 24}, ["ppo.per_device_train_batch_size:", "32"]),
        ("ppo", {"num_generations": 5}, ["ppo.num_generations:", "rollout_batch_size", "64", "5"]),
        ("ppo", {"min_new_tokens": 48}, ["ppo.min_new_tokens:", "response_length", "48"]),
        ("ppo", {"kl_in": "loss"}, ["ppo.kl_estimator:", "k1", "k2 or k3"]),
        ("ppo", {"use_bias_correction_kl": True}, ["ppo.use_bias_correction_kl:", "kl_in: loss"]),
        ("ppo", {"kl_in": "losses"}, ["ppo.kl_in:", "reward, loss"]),
        ("ppo", {"kl_target": 6.0, "kl_horizon": 12.8}, ["ppo.kl_horizon:", "a fifth of rollout_batch_size (64)"]),
        ("ppo", {"kl_target": 6.0, "kl_coef": 0.0}, ["ppo.kl_coef:", "above 0 while kl_target is set"]),
        ("ppo", {"reward_weights": [1.0, 2.0]}, ["ppo.reward_weights:", "2 for 1"]),
        ("ppo", {"reward_weights": ["one"]}, ["ppo.reward_weights[0]:", "a number"]),
        ("ppo", {"reward_funcs": []}, ["ppo.reward_funcs:", "empty"]),
        ("ppo", {"reward_funcs": "models/reward"}, ["ppo.reward_funcs:", "a list"]),
        ("ppo", {"reward_funcs": ["rewards.mine:"]}, ["ppo.reward_funcs:", "module:function", "'rewards.mine:'"]),
        ("ppo", {"reward_funcs": ["owner/name"]}, ["ppo.reward_funcs:", "commit", "'owner/name'"]),
        ("ppo", {"reward_funcs": ["nonsense"]}, ["ppo.reward_funcs:", "'nonsense'"]),
        ("ppo", {"top_p": 0.0}, ["ppo.top_p:", "above 0"]),
        ("ppo", {"top_p": 1.1}, ["ppo.top_p:", "at most 1"]),
        ("ppo", {"top_k": -1}, ["ppo.top_k:", "at least 0"]),
        ("ppo", {"dual_clip": 1.0}, ["ppo.dual_clip:", "above 1"]),
        ("ppo", {"critic": "mine"}, ["ppo.critic:", "shared, separate, lora, none"]),
        ("ppo", {"critic": "none"}, ["ppo.critic:", "gae needs one", "rloo, grpo, reinforce"]),
        ("ppo", {"advantage_estimator": "rloo"}, ["ppo.critic:", "rloo", "none", "shared"]),
        ("ppo", {"advantage_estimator": "reinforce", "critic": "separate"}, ["ppo.critic:", "reinforce", "separate"]),
        ("ppo", {**ALONE, "advantage_estimator": "grpo"}, ["ppo.num_generations:", "grpo", "2 or more"]),
        ("ppo", {**ALONE, "critic_learning_rate": 0.1}, ["ppo.critic_learning_rate:", "null"]),
        ("ppo", {**ALONE, "scale_rewards": "group"}, ["ppo.scale_rewards:", "rloo and grpo", "reinforce"]),
        ("ppo", {"scale_rewards": "batch"}, ["ppo.scale_rewards:", "batch", "with gae", "running or none"]),
        ("ppo", {"scale_rewards": True}, ["ppo.scale_rewards:", "none, running, group, batch", "True"]),
        ("ppo", {"scale_rewards": False}, ["ppo.scale_rewards:", "none, running, group, batch", "False"]),
        (
            "ppo",
            {**ALONE, "advantage_estimator": "rloo", "num_generations": 2, "gamma": 0.9},
            ["ppo.gamma:", "rloo", "set it to 1", "0.9"],
        ),
        ("ppo", {"loss_aggregation": "dapo"}, ["ppo.loss_aggregation:", "token, sequence, constant"]),
        ("ppo", {"stop_strings": "stop"}, ["ppo.stop_strings:", "a list"]),
        ("ppo", {"metric_for_best_model": "kl"}, ["ppo.metric_for_best_model:", "reward, objective"]),
        ("evaluate", {"temperatures": 1.0}, ["evaluate.temperatures:", "a list"]),
        ("evaluate", {"temperatures": []}, ["evaluate.temperatures:", "empty"]),
        ("evaluate", {"temperatures": [1.0, -0.5]}, ["evaluate.temperatures[1]:", "at least 0"]),
        ("evaluate", {"temperatures": [1.0, "hot"]}, ["evaluate.temperatures[1]:", "a number"]),
        ("evaluate", {"max_prompts": 0}, ["evaluate.max_prompts:", "at least 1"]),
        ("base", {"n_head": 3, "n_embd": 32}, ["base.n_head:", "n_embd"]),
        ("base", {"vocab_size": 299}, ["base.vocab_size:", "at least 300"]),
        ("base", {"model_name_or_path": 5}, ["base.model_name_or_path:", "a text"]),
        ("load", {"sources": []}, ["load.sources:", "empty"]),
        ("load", {"sources": {"reader": "demo"}}, ["load.sources:", "a list"]),
        ("load", {"sources": ["demo"]}, ["load.sources[0]:", "a mapping"]),
        ("load", {"sources": [{"reader": "demo"}, {"path": "a"}]}, ["load.sources[1].reader:", "missing"]),
        ("load", {"sources": [{"reader": "nosuch"}]}, ["load.sources[0].reader:", "ultrafeedback"]),
        ("load", {"sources": [{"reader": "hh", "pth": "a"}]}, ["load.sources[0].pth:", "load.sources[0].path?"]),
        ("load", {"sources": [{"reader": "demo", "path": "a"}]}, ["load.sources[0].path:", "demo"]),
        ("load", {"sources": [{"reader": "hh", "path": "a", "hub_id": "o/n"}]}, ["load.sources[0].path:", "hub_id"]),
        ("load", {"sources": [{"reader": "hh", "hub_id": "o/n"}]}, ["load.sources[0].revision:", "40 hex"]),
        ("load", {"sources": [{"reader": "hh", "revision": "main"}]}, ["load.sources[0].revision:", "'main'"]),
        ("load", {"sources": [{"reader": "hh", "revision": "g" * 40}]}, ["load.sources[0].revision:", "40 hex"]),
        ("load", {"sources": [{"reader": "file"}]}, ["load.sources[0].path:", "glob"]),
        ("load", {"sources": [{"reader": "hh", "name": "a/b"}]}, ["load.sources[0].name:", "'a/b'"]),
        ("load", {"sources": [{"reader": "hh", "score": "honesty"}]}, ["load.sources[0].score:", "ultrafeedback"]),
        ("load", {"sources": [{"reader": "hh", "columns": {"prompt": "q"}}]}, ["load.sources[0].columns:", "file"]),
        ("load", {"sources": [{"reader": "hh", "columns": {1: "q"}}]}, ["load.sources[0].columns:", "names"]),
        ("load", {"sources": [{"reader": "hh"}, {"reader": "hh"}]}, ["load.sources:", "'hh'"]),
        ("load", {"num_proc": 0}, ["load.num_proc:", "at least 1"]),
        ("prepare", {"sft_share": 0.5}, ["prepare.preference_share:", "must be 1", "1.1"]),
        ("prepare", {"reward_share": 0.0}, ["prepare.reward_share:", "above 0"]),
        ("prepare", {"judge_share": 0.0, "test_share": 0.2}, ["prepare.judge_share:", "above 0"]),
        ("prepare", {"max_prompt_tokens": 9}, ["prepare.tokenizer_name_or_path:", "must be set"]),
        ("prepare", {"drop_patterns": ["ok", "(a"]}, ["prepare.drop_patterns:", "'(a'", "regular expression"]),
        ("prepare", {"target_range": [1.0, 0.0]}, ["prepare.target_range:", "the lower first"]),
        ("prepare", {"target_range": [1.0]}, ["prepare.target_range:", "two numbers"]),
        ("prepare", {"target_range": [0.0, 1e-30]}, ["prepare.target_range:", "at least 0.001 wide"]),
        ("prepare", {"target_range": [0.0, 1e30]}, ["prepare.target_range:", "within 1e+06 of 0"]),
        ("sft", {"lora_r": 2, "lora_dropout": 1.0}, ["sft.lora_dropout:", "below 1"]),
        ("sft", {"lora_r": 65_537}, ["sft.lora_r:", "at most 65536"]),
        ("dpo", {"gradient_accumulation_steps": 2**32 - 1}, ["dpo.gradient_accumulation_steps:", "at most 1000000"]),
        ("sft", {"num_train_epochs": 1e9}, ["sft.num_train_epochs:", "at most 1000000"]),
        ("evaluate", {"num_beams": 2**32 - 1}, ["evaluate.num_beams:", "at most 1000"]),
        ("prepare", {"mixture": {"hh": {"max_rows": 5, "share": 0.5}}}, ["prepare.mixture.hh.max_rows:", "one of"]),
        ("prepare", {"mixture": {"hh": {"roles": ["ppo"]}}}, ["prepare.mixture.hh.roles[0]:", "sft, preference"]),
        ("prepare", {"mixture": {"hh": {"roles": []}}}, ["prepare.mixture.hh.roles:", "empty"]),
        ("prepare", {"mixture": {"hh": {"wieght": 1}}}, ["prepare.mixture.hh.wieght:", "prepare.mixture.hh.weight?"]),
        ("prepare", {"mixture": {"a": {"share": 0.6}, "b": {"share": 0.6}}}, ["prepare.mixture:", "1.2"]),
        ("prepare", {"mixture": {"a": {"score_range": [3]}}}, ["prepare.mixture.a.score_range:", "two numbers"]),
        ("prepare", {"sft_responses": "above_score"}, ["prepare.sft_min_score:", "above_score"]),
        ("prepare", {"validation_share": 0.6}, ["prepare.validation_share:", "at most 0.5"]),
        ("prepare", {"languages": "en"}, ["prepare.languages:", "a list"]),
        ("prepare", {"languages": [False]}, ["prepare.languages[0]:", "a text"]),
    ],
)
def test_a_fault_names_the_key_and_the_way_out(name, changes, words):
    told = check_fault(name, changes)
    assert told.startswith("params.yaml: ") and all(word in told for word in words), told


def test_an_int_stands_for_a_float():
    params = check("sft", {"learning_rate": 1, "warmup_steps": 10})
    assert (params.learning_rate, params.warmup_steps) == (1.0, 10.0)
    assert type(params.learning_rate) is float


@pytest.mark.parametrize("name", SECTIONS)
def test_null_is_taken_exactly_where_the_type_allows_it(name):
    hints = typing.get_type_hints(SECTIONS[name])
    for key in hints:
        if type(None) in typing.get_args(hints[key]):
            # the shares must sum to 1
            rest = {"preference_share": 0.8} if key == "sft_share" else {}
            assert getattr(check(name, {key: None, **rest}), key) is None
        else:
            assert f"{name}.{key}:" in check_fault(name, {key: None})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("prepare", {"sft_share": None, "reward_share": 0.2, "preference_share": 0.6}),
        ("prepare", {"max_response_tokens": 9, "tokenizer_name_or_path": "models/base"}),
        ("prepare", {"sft_responses": "above_score", "sft_min_score": 7.5}),
        ("prepare", {"sft_share": 0.1, "preference_share": 0.1, "judge_share": 0.1, "test_share": 0.7}),
        ("ppo", {"rollout_batch_size": 6, "num_minibatches": 3, "per_device_train_batch_size": 2}),
        ("ppo", {"kl_in": "loss", "kl_estimator": "k3", "num_generations": 4, "min_new_tokens": 47}),
        ("ppo", {"reward_funcs": ["models/reward", "rewards.examples:brevity"], "reward_weights": [1.0, 0.0]}),
        ("ppo", {**ALONE, "gamma": 0.9}),
        ("ppo", {**ALONE, "advantage_estimator": "grpo", "num_generations": 2, "scale_rewards": "group"}),
        ("ppo", {**ALONE, "advantage_estimator": "rloo", "num_generations": 64, "scale_rewards": "running"}),
        ("evaluate", {"temperatures": [0]}),
    ],
)
def test_fields_that_fit_together_are_taken(name, changes):
    params = check(name, changes)
    assert {key: getattr(params, key) for key in changes} == changes


def test_a_source_is_called_as_its_reader_unless_it_has_a_name():
    hub = {"reader": "ultrafeedback_binarized", "hub_id": "owner/name", "revision": "0123456789abcdef" * 2 + "01234567"}
    first, second = check("load", {"sources": [hub, {**hub, "name": "other", "subsets": ["a"]}]}).sources
    assert (first.name, first.subsets, second.name, second.subsets) == (first.reader, [], "other", ["a"])


def test_ppo_batch_sizes_follow_from_the_params():
    sizes = {"rollout_batch_size": 24, "num_minibatches": 2, "per_device_train_batch_size": 3, "num_ppo_epochs": 4}
    params = check("ppo", sizes)
    assert (params.minibatch_size, params.steps_per_rollout) == (12, 8)
    for processes, micro_batches in ((1, 4), (2, 2), (4, 1)):
        assert params.trainer_config(processes)["gradient_accumulation_steps"] == micro_batches
    with pytest.raises(ValueError, match=r"^per_device_train_batch_size: 3 processes with 3 each .* of 12 responses$"):
        params.trainer_config(3)
