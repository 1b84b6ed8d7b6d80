"""What each phase of a stage holds, and what is to be made smaller where the greatest does not fit."""

import dataclasses
import subprocess
import sys

import pytest
from project import DEMO, ROOT
from transformers import Gemma3TextConfig, GPT2Config, MambaConfig

from rlhf_lib.check.sections import SECTIONS, valid_sections
from rlhf_lib.common.schema import check
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data.lengths import Lengths
from rlhf_lib.models.output_layer import CHUNK
from rlhf_lib.plan import estimate, memory, phases, shapes
from rlhf_lib.plan.device import Device
from rlhf_lib.plan.memory import Parts
from rlhf_lib.training.memory import Compute, ForwardPass, activation_bytes, copies_keys, logits_bytes

SIZES = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 12}
GPU = Compute(2, keeps_scores=False, few_calls=True)


def shape(config=None, kind="policy"):
    return shapes.shape("sft", config or GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0), kind, None)


def section(name, **changes):
    return check(SECTIONS[name], {**load_yaml(DEMO)[name], **changes}, name)


def planned(stage, **sections):
    params = load_yaml(DEMO)
    for name, changes in sections.items():
        params[name] |= changes
    found = valid_sections(params)
    plans = estimate.plans(found, Lengths(found["base"], found["prepare"]), Device("cpu", 1e9, 1e9, 4))
    return next(plan for plan in plans if plan.stage == stage)


# ---- what a forward pass holds


def test_a_forward_pass_holds_a_layer_or_the_logits():
    of = shape()
    # a token: 3 D; 2 (8 + 16) + 8 of attention and 2 heads x 10 keys, twice; or 2 x 32 of the MLP
    layer = 30 * (3 * 4 * 8 + 4 * max(2 * 24 + 8 + 40, 64))
    assert memory.forward_bytes(of, ForwardPass(3, 10, 6), Compute()) == layer
    wide = dataclasses.replace(of, vocab=1000)
    # the last hidden states, and the logits of 6 tokens
    assert memory.forward_bytes(wide, ForwardPass(3, 10, 6), Compute()) == 30 * 4 * 8 + 6 * 1000 * 4


def test_on_a_gpu_the_logits_of_a_chunk_are_alive():
    of = dataclasses.replace(shape(), vocab=150_000)
    batch = ForwardPass(16, 1000, 16_000)
    assert logits_bytes(of, batch, GPU) == CHUNK * (3 * 4 + 2 * 2)
    assert memory.forward_bytes(of, batch, GPU) == 16_000 * 4 * 8 + CHUNK * (2 + 2 * 4)
    assert logits_bytes(of, ForwardPass(1, 10, 5), GPU) == 5 * 150_000 * 16


def test_the_cache_keeps_no_more_than_the_windows():
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 2,
    }
    kinds = ["sliding_attention", "full_attention"]
    of = shape(Gemma3TextConfig(**sizes, num_hidden_layers=2, vocab_size=16, sliding_window=5, layer_types=kinds))
    assert of.windows == (5, None)
    # keys and values of 2 heads of 2: 5 and 12 tokens, and 12 once more; a window's in fp32
    assert memory.cache_bytes(of, 3, 12, Compute()) == 2 * 3 * 4 * 4 * (5 + 12 + 12)
    assert memory.cache_bytes(of, 3, 12, GPU) == 2 * 3 * 4 * (4 * 5 + 2 * 12 + 2 * 12)


def test_on_a_gpu_shared_keys_are_copied_in_fp32_and_where_there_is_a_mask():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2}
    of, batch = shape(Gemma3TextConfig(**sizes, head_dim=2, num_hidden_layers=2, vocab_size=16)), ForwardPass(3, 10, 6)
    in_fp32 = dataclasses.replace(GPU, value=4)
    # 3 D; 2 (8 + 2 x 4) + 8 of attention; copies of keys and values, 8 each
    assert memory.forward_bytes(of, batch, GPU) == 30 * (3 * 4 * 8 + 2 * 40)
    assert memory.forward_bytes(of, batch, GPU, prefill=True) == 30 * (3 * 4 * 8 + 2 * (40 + 16))
    assert memory.forward_bytes(of, batch, in_fp32) == 30 * (3 * 4 * 8 + 4 * (40 + 16))
    more = activation_bytes(of, batch, in_fp32) - activation_bytes(dataclasses.replace(of, kv_heads=4), batch, in_fp32)
    assert more == 0  # all heads have their own
    assert copies_keys(of, in_fp32) and not copies_keys(of, GPU)
    assert not copies_keys(shape(), in_fp32) and not copies_keys(of, Compute())


def test_a_model_of_states_caches_no_tokens():
    of = shape(MambaConfig(hidden_size=8, num_hidden_layers=2, vocab_size=16))
    assert memory.cache_bytes(of, 3, 12, Compute()) == 0


# ---- phases


def test_a_larger_validation_takes_more_and_becomes_the_peak():
    params, of = section("sft", per_device_train_batch_size=1, per_device_eval_batch_size=500), shape()
    found = phases.of_trainer("sft", params, of, ForwardPass(1, 12, 6), Compute(), 1)
    assert [phase.name for phase in found] == ["update", "validation", "token loss"]
    assert [phase.rows for phase in found] == [1, 500, 500]
    forward = memory.forward_bytes(of, ForwardPass(500, 12, 3000), Compute())
    kept = memory.kept(of, Compute()).activations
    assert found[1].parts.activations == found[2].parts.activations == forward + kept
    # the model that was written is loaded beside the trained one
    assert found[2].parts.weights - found[1].parts.weights == 4 * of.parameters


def test_reference_holds_the_policy_and_one_answer_of_each_pair():
    (phase,) = phases.of_reference(section("reference", precompute_ref_batch_size=7), shape(), None, 12, 6, Compute())
    assert phase.parts.weights == 4 * shape().parameters
    assert phase.parts.activations == memory.forward_bytes(shape(), ForwardPass(7, 12, 42), Compute())


def test_evaluate_holds_two_policies_and_both_scorers_and_scores_two_answers_of_a_pair():
    sections = {"evaluate": section("evaluate", max_new_tokens=4, num_beams=3)}
    sections |= {name: section(name, per_device_eval_batch_size=5) for name in ("reward", "judge")}
    policy, scorer = shape(), shape(kind="reward")
    sampling, logprobs, *scoring = phases.of_evaluate(
        sections, policy, dict.fromkeys(("reward", "judge"), scorer), 8, Compute(2)
    )
    weights = 4 * (2 * policy.parameters + 2 * scorer.parameters)
    assert {phase.parts.weights for phase in (sampling, logprobs, *scoring)} == {weights}
    assert sampling.parts.cache == memory.cache_bytes(policy, 3 * 128, 12, Compute())  # of all beams, in fp32
    assert scoring[0].parts.activations == memory.forward_bytes(scorer, ForwardPass(10, 12, 0), Compute())


def test_attainable_holds_one_policy_and_samples_answers_of_the_length_of_ppo():
    sections = {"attainable": section("attainable", per_device_eval_batch_size=6), "ppo": section("ppo")}
    sections |= {name: section(name, per_device_eval_batch_size=5) for name in ("reward", "judge")}
    policy, scorer, whole = shape(), shape(kind="reward"), 8 + sections["ppo"].response_length
    found = phases.of_attainable(sections, policy, dict.fromkeys(("reward", "judge"), scorer), 8, Compute(2))
    assert [phase.name for phase in found] == ["sampling", "scoring", "scoring"]
    assert {phase.parts.weights for phase in found} == {4 * (policy.parameters + 2 * scorer.parameters)}
    assert found[0].parts.cache == memory.cache_bytes(policy, 6, whole, Compute())
    assert found[1].parts.activations == memory.forward_bytes(scorer, ForwardPass(10, whole, 0), Compute())


def test_ppo_samples_and_scores_in_pieces():
    policy, reward = shape(), shape(kind="reward")

    def found(**changes):
        params = section("ppo", response_length=4, **changes)
        return phases.of_ppo(params, Parts(), (policy, None, [reward]), 8, Compute())

    names = ["update", "sampling", "rewards", "evaluation"]
    whole, pieces = found(max_eval_prompts=10), found(generation_batch_size=6, local_rollout_forward_batch_size=2)
    assert [phase.name for phase in whole] == [phase.name for phase in pieces] == names
    assert [phase.rows for phase in whole] == [32, 64, 32, 32] and [phase.rows for phase in pieces] == [32, 6, 2, 2]
    assert pieces[1].parts.cache == memory.cache_bytes(policy, 6, 12, Compute())
    kept = memory.kept(policy, Compute()).activations
    assert pieces[2].parts.activations == memory.forward_bytes(reward, ForwardPass(2, 12, 8), Compute()) + kept


@pytest.mark.parametrize(("top_k", "top_p", "times"), [(0, 1.0, 4), (50, 0.9, 4), (0, 0.9, 8)])
def test_top_p_alone_sorts_the_vocabulary(top_k, top_p, times):
    wide = dataclasses.replace(shape(), vocab=100_000)
    params = section("candidates", per_device_eval_batch_size=6, top_k=top_k, top_p=top_p)
    found = phases.of_sampling("candidates", params, wide, 8, Compute())
    assert found.parts.activations == times * 4 * 6 * 100_000


def test_the_advice_is_about_the_phase_that_takes_most():
    sampled = {"rollout_batch_size": 8192, "num_minibatches": 4096, "per_device_train_batch_size": 2}
    told = "a ppo.generation_batch_size below ppo.rollout_batch_size"
    assert planned("ppo", ppo=sampled).advice.startswith(told)
    in_pieces = planned("ppo", ppo={**sampled, "generation_batch_size": 4096})
    assert in_pieces.advice.startswith("a smaller ppo.generation_batch_size")
    updated = {"rollout_batch_size": 64, "num_minibatches": 1, "per_device_train_batch_size": 64}
    updated |= {"generation_batch_size": 8, "max_eval_prompts": 8}
    assert planned("ppo", ppo=updated).advice.startswith("a smaller ppo.per_device_train_batch_size")
    validated = planned("sft", sft={"per_device_eval_batch_size": 900})
    assert validated.advice.startswith("a smaller sft.per_device_eval_batch_size,")
    read = planned("reference", reference={"precompute_ref_batch_size": 1})
    assert read.advice == "a smaller model"


def test_negatives_are_planned_where_a_model_is_named():
    plan = planned("negatives", negatives={"model_name_or_path": "models/sft", "per_device_eval_batch_size": 3})
    assert plan.peak.param == "negatives.per_device_eval_batch_size" and plan.parts.cache > 0
    with pytest.raises(StopIteration):
        planned("negatives")


def test_a_gpu_that_is_not_here(tmp_path):
    (tmp_path / "params.yaml").write_text(DEMO.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "rlhf_lib.plan", "--gpu-gb"]
    given = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    done = subprocess.run([*command, "0.6"], **given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "On one cuda, bf16 or fp16, 0.6 GiB free" in done.stdout
    assert "ppo does not fit" in done.stdout
    done = subprocess.run([*command, "0"], **given, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith("error: --gpu-gb must be above 0\n")
