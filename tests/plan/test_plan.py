"""What a run will need, from params alone."""

import dataclasses
import json
import subprocess
import sys

import pytest
from architectures import config
from project import DEMO, ROOT
from transformers import GPT2Config

from rlhf_lib.check.sections import SECTIONS, valid_sections
from rlhf_lib.common.policies import TRAINERS
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.schema import check
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.data.lengths import Lengths
from rlhf_lib.plan import __main__ as plan
from rlhf_lib.plan import data, estimate, memory, shapes, speed
from rlhf_lib.training.memory import Compute, ForwardPass, activation_bytes, logits_bytes, wants_checkpointing

SIZES = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 12}
BATCH = ForwardPass(rows=3, width=10, labelled=6)


def plans(params):
    sections = valid_sections(params)
    return estimate.plans(sections, Lengths(sections["base"], sections["prepare"]))


def shape(kind="policy", **settings):
    params = check(SECTIONS["sft"], {**load_yaml(DEMO)["sft"], **settings}, "sft")
    return shapes.shape("sft", GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0), kind, params)


def test_the_shape_of_a_small_gpt2():
    # a layer: c_attn 8x24 + 24, c_proj 8x8 + 8, MLP 8x32 + 32 and 32x8 + 8, two norms of 16; then ln_f, wte, wpe
    layer = 192 + 24 + 64 + 8 + 256 + 32 + 256 + 8 + 32
    of = shape()
    assert of.parameters == of.trained == 2 * layer + 16 + 16 * 8 + 12 * 8
    assert of.trunk_matrices == 2 * (192 + 64 + 256 + 256) and of.matrices == of.trunk_matrices + 128
    assert of.saved_inputs == 8 + 8 + 8 + 32  # of c_attn, c_proj, c_fc and the MLP's c_proj


def test_bytes_by_part_of_a_small_gpt2():
    of = shape()
    # a token and layer: 2 D, 56 inputs, q, k and v, 2 heads x 10 scores, F; of 30 tokens, and a layer for gradients
    assert activation_bytes(of, BATCH, Compute()) == 30 * 3 * 4 * (16 + 56 + 24 + 20 + 32)
    assert activation_bytes(of, BATCH, Compute(2)) == 30 * 3 * (4 * 16 + 2 * (56 + 24 + 20 + 32))
    assert logits_bytes(of, BATCH, Compute()) == 6 * 16 * 8
    # of two layers, and of one that is copied while rows leave
    assert memory.cache_bytes(of, 5, 12, Compute()) == 2 * 4 * 3 * 8 * 5 * 12
    held = memory.held(of)
    assert (held.weights, held.optimizer) == (4 * of.parameters, 8 * of.parameters)


def test_several_micro_batches_hold_gradients_and_activations_together():
    of = shape()
    parts = memory.training_peak(of, BATCH, Compute(), micro_batches=2)
    assert parts.gradients == 4 * of.trained
    # 768 of the logits, and as many bytes as the embedding has that no later tensor fits into
    assert parts.activations == activation_bytes(of, BATCH, Compute()) + 768 + 4 * 16 * 8
    assert parts.total >= memory.training_peak(of, BATCH, Compute()).total


def test_a_training_on_a_cpu_keeps_a_block_like_the_embedding_but_with_checkpointing():
    of = shape()
    assert memory.kept(of, Compute()).total == 4 * 16 * 8
    assert memory.kept(of, Compute(checkpointing=True)).total == 0
    assert memory.kept(of, Compute(few_calls=True)).total == 0  # a GPU


def test_adapters_and_frozen_parts_take_less():
    full, lora, frozen = shape(), shape(lora_r=2, lora_target_modules=["c_attn"]), shape(freeze=["0-1"])
    assert lora.trained == 2 * (8 * 2 + 2 * 24)
    assert lora.saved_inputs == 8 + 2
    assert frozen.saved_inputs == 0
    peaks = [memory.training_peak(of, BATCH, Compute()).total for of in (full, lora, frozen)]
    assert peaks[0] > max(peaks[1:])


def test_what_is_held_in_bf16_takes_two_bytes_and_no_copy(compute):
    in_fp32 = shape(lora_r=2, lora_target_modules=["c_attn"])
    compute(precision="bf16", frozen_dtype="bf16")
    of = shape(lora_r=2, lora_target_modules=["c_attn"])
    tables, biases, norms = 16 * 8 + 12 * 8, 2 * (24 + 8 + 32 + 8), 2 * 32 + 16
    frozen = 2 * (192 + 64 + 256 + 256) + tables + biases
    assert memory.weight_bytes(of) == 2 * frozen + 4 * (norms + of.trained)
    assert memory.weight_bytes(in_fp32) == 4 * (frozen + norms + of.trained)
    # the output layer is the table; only adapters are copied, and none is a layer of the model
    assert memory.copies_bytes(of, Compute(2)) == memory.copies_bytes(in_fp32, Compute(2)) - 2 * (1536 + 128)
    assert shape().held == 0


def test_checkpointing_takes_less_and_bytes_grow_linearly_with_rows():
    of = dataclasses.replace(shape(), layers=12)
    assert activation_bytes(of, BATCH, Compute(4, True)) < activation_bytes(of, BATCH, Compute())
    twice = dataclasses.replace(BATCH, rows=6, labelled=12)
    for size in (activation_bytes, logits_bytes):
        assert size(of, twice, Compute()) == 2 * size(of, BATCH, Compute())
    assert memory.cache_bytes(of, 6, 9, Compute()) == 2 * memory.cache_bytes(of, 3, 9, Compute())


def test_checkpointing_is_wanted_where_activations_fill_more_than_half_of_the_device():
    of = shape()
    kept = activation_bytes(of, BATCH, Compute()) + logits_bytes(of, BATCH, Compute())
    assert not wants_checkpointing(of, BATCH, Compute(4, True), 2 * kept)
    assert wants_checkpointing(of, BATCH, Compute(4, True), 2 * kept - 1)


def test_a_critic_of_its_own_and_a_reference_add_their_weights():
    policy, critic, frozen = shape(), shape("trunk"), shape("reward")
    alone, both = memory.ppo_holds(policy, None, []), memory.ppo_holds(policy, critic, [frozen])
    assert both.weights - alone.weights == 4 * (critic.parameters + frozen.parameters)
    assert both.optimizer - alone.optimizer == 8 * critic.parameters


def test_flops_of_training_are_three_times_those_forwards():
    of = shape()
    forward = speed.forward_flops(of, 30, 6, 10)
    assert forward == 2 * of.trunk_matrices * 30 + 2 * 128 * 6 + 4 * 10 * 8 * 2 * 30
    assert speed.training_flops(of, 30, 6, 10, Compute()) == 3 * forward


def test_a_stage_takes_its_start_its_flops_its_samples_and_its_steps(monkeypatch):
    monkeypatch.setattr(speed, "STARTUP", 4.0)
    monkeypatch.setattr(speed, "TRAINER", 0.5)
    rates = speed.Rates({"sft": 100.0}, sampled=10.0)
    assert rates.seconds("sft", 300.0, 20.0, 6) == 4 + 3 + 2 + 3
    assert rates.seconds("dpo", 300.0, 20.0, 6) is None and speed.NO_RATES.seconds("sft", 1.0, 0.0, 1) is None


def test_rates_are_measured_of_what_fits(project, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.1)
    params = load_yaml(project / "params.yaml")
    batches = {"sft": ForwardPass(2, 16, 16), "dpo": ForwardPass(10**9, 16, 10**9), "ppo": ForwardPass(2, 64, 64)}
    rates = speed.measure(params, 8e9, batches)
    assert rates.flops.keys() == {"sft", "ppo"} and min(rates.flops.values()) > 0 and rates.sampled > 0
    assert speed.measure(params, 0.0, batches) == speed.NO_RATES
    beyond_the_context = {"ppo": ForwardPass(2, 1000, 1000)}
    assert speed.measure(params, 8e9, beyond_the_context).flops.keys() == {"ppo"}


@pytest.mark.parametrize("kind", ["mistral", "lfm2", "mamba", "openai-gpt"])
def test_rates_are_measured_with_every_kind_of_cache(project, monkeypatch, kind):
    """Windows that are full, states of convolutions and recurrences, and none."""
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    config(kind).save_pretrained(project / "base")
    params = load_yaml(project / "params.yaml")
    params["base"]["model_name_or_path"] = "base"
    rates = speed.measure(params, 8e9, {"ppo": ForwardPass(2, 64, 64)})
    assert rates.flops["ppo"] > 0 and rates.sampled > 0


def plan_of_the_project():
    command = [sys.executable, "-m", "rlhf_lib.plan", "--no-measure"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plan_of_the_demo(project):
    said = plan_of_the_project()
    lines = said.splitlines()
    assert all(len(line) <= 120 for line in lines)
    wanted = load_yaml(project / "params.yaml")["methods"]
    trained = [name for name in TRAINERS if wanted.get(name, True)]
    assert [line.split()[0] for line in lines[4:12]] == [*trained, "reference", "evaluate", "attainable"]
    assert "No data yet" in said and "does not fit" not in said


def test_a_critic_of_its_own_adds_its_own_flops_and_takes_none_away(project):
    params = load_yaml(project / "params.yaml")
    planned = []
    for critic in ("shared", "separate"):
        params["ppo"] |= {"critic": critic}
        planned += [plan for plan in plans(params) if plan.stage == "ppo"]
    section = check(SECTIONS["ppo"], params["ppo"], "ppo")
    base = shapes.base_config(check(SECTIONS["base"], params["base"], "base"))
    critic = shapes.shape("ppo", base, "trunk", section)
    tokens, epochs = planned[0].tokens / section.num_ppo_epochs, section.num_ppo_epochs
    width = tokens / (section.total_rollouts * section.rollout_batch_size)
    learns = speed.training_flops(critic, tokens, 0, width, Compute())
    scores = speed.forward_flops(critic, tokens, 0, width)
    assert planned[1].flops - planned[0].flops == pytest.approx(epochs * learns + scores)


def test_each_stage_that_does_not_fit_is_one_line_that_says_what_to_change(project):
    planned = plans(load_yaml(project / "params.yaml"))[:3]  # reward and judge take the same
    found = plan.warnings(planned, max(p.parts.total for p in planned) - 1)
    assert len(found) == 2 and "does not fit" in found[0] and "per_device_train_batch_size" in found[0]
    assert plan.warnings(planned, 1e15) == []


def test_rows_are_counted_where_there_are_data(project):
    write_jsonl("data/splits/sft_train.jsonl", [answered(40, n) for n in (8, 40)])
    length = lengths_of(project)  # 4 bytes a token
    assert data.data_of("sft", 128, length) == data.Data(2, 16.0, 20, False)
    assert data.data_of("sft", 16, length).longest == 16


def test_rows_of_other_params_do_not_count(project):
    """After the demo's run, a preset's plan is not that of the demo's rows."""
    alone = plan_of_the_project()
    write_jsonl("data/splits/sft_train.jsonl", [answered(40, 8)] * 7)
    write_jsonl("data/splits/prompts_validation.jsonl", [answered(40, 8)] * 7)
    outs = [{"path": f"data/splits/{name}.jsonl"} for name in ("sft_train", "prompts_validation")]
    lock = {"stages": {"prepare": {"params": {"params.yaml": {"prepare": {"seed": 1}}}, "outs": outs}}}
    (project / "dvc.lock").write_text(json.dumps(lock))
    found = plan_of_the_project()
    assert max(map(len, found.splitlines())) <= 120
    # free memory and time are as they happen to be
    assert found.splitlines()[3:] == alone.replace("No data yet", "No data yet but of other params").splitlines()[3:]


def test_rows_that_are_not_there_are_as_long_as_prepare_lets_them_be(project):
    length = lengths_of(project)
    assert data.data_of("sft", 128, length) == data.Data(1000, 128, 128, True)
    assert data.data_of("sft", 128, length, assumed=100).longest == 100
    assert data.data_of("sft", 128, length, assumed=200).longest == 128


def test_a_sample_of_many_rows_is_counted(project, monkeypatch):
    monkeypatch.setattr(data, "SAMPLE", 2)
    write_jsonl("data/splits/sft_train.jsonl", [answered(4, 4 * n) for n in (1, 90, 2, 90)])
    assert data.data_of("sft", 128, lengths_of(project)) == data.Data(4, 2.5, 8, False)
    assert data.measured(lengths_of(project)) == {"sft_train": {"answers": [1, 2], "rows": [2, 3]}}


def test_the_plan_says_which_share_of_the_answers_and_rows_the_params_hold(project):
    write_jsonl("data/splits/sft_train.jsonl", [answered(40, n) for n in [40] * 7 + [4 * 60] * 3])
    said = plan_of_the_project()
    assert "  ppo.response_length             48     30 %         64   10 answers of sft_train: would be " in said
    assert "  ppo.response_length: 30 % of the answers that SFT teaches are longer" in said
    assert "  sft.max_length                 128      0 %         80   10 rows of sft_train\n" in said


def test_numbers_have_three_digits_at_most():
    assert [plan.number(n) for n in (7, 999, 999.6, 12_345, 1.41e18)] == ["7", "999", "1k", "12.3k", "1.41E"]


def answered(prompt, answer):
    """A row whose prompt and answer have so many bytes."""
    said = [{"role": "user", "content": "a" * prompt}]
    return {"prompt": said, "completion": [{"role": "assistant", "content": "b" * answer}]}


def lengths_of(project):
    sections = valid_sections(load_yaml(project / "params.yaml"))
    return Lengths(sections["base"], sections["prepare"])


def test_a_config_that_is_not_at_hand_is_one_line(project):
    params = load_yaml(project / "params.yaml")
    params["base"]["model_name_or_path"] = "nobody/nothing"
    with pytest.raises(
        ParamsError, match="base.model_name_or_path: the config of nobody/nothing is not at hand"
    ) as told:
        plans(params)
    assert "\n" not in str(told.value)


def test_a_directory_without_a_config_is_not_looked_for_on_the_hub(project):
    (project / "mine").mkdir()
    params = load_yaml(project / "params.yaml")
    params["base"]["model_name_or_path"] = "./mine"
    with pytest.raises(
        ParamsError, match="name_or_path: ./mine has no config.json that transformers knows; copy"
    ) as told:
        plans(params)
    assert "hf download" not in str(told.value)


def test_a_config_in_the_home_directory_is_read(project, monkeypatch):
    GPT2Config(n_embd=8, n_head=2).save_pretrained(project / "mine")
    monkeypatch.setenv("HOME", str(project))
    assert shapes.read_config("~/mine", None, "base.model_name_or_path").n_embd == 8


def test_the_benchmark_predicts_every_case_without_a_measurement():
    from benchmarks.plan.__main__ import CASES, compared, table

    cases = {name: compared(case, 1000.0) for name, case in CASES.items()}
    assert all(case["ratio"] > 0 for case in cases.values())
    assert len(table(cases).splitlines()) == len(CASES) + 2
