"""Where no weights would be sharded though the launcher was asked for it, the stage says so and does not train."""

import json

import pytest
from launched import launch
from project import of_one_stage
from trl_trainers import sft_trainer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training import trainer as training

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}


def test_shards_that_would_be_none_are_told(tiny, checkpoints, monkeypatch):
    trainer = sft_trainer(tiny, checkpoints)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ParamsError) as told:
        training.run(trainer, checkpoints)
    line = str(told.value)
    assert line.startswith("params.yaml: launch: FSDP shards the weights over several GPUs, and this is 1 x cpu")
    assert "launch/cpu-2.yaml" in line and "\n" not in line
    assert trainer.state.global_step == 0
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    training.run(trainer, checkpoints)
    assert trainer.state.global_step == 5


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP's first version"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP's first version"),
        ({**FSDP2, "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, "fsdp_state_dict_type: SHARDED_STATE_DICT"),
    ],
)
def test_other_ways_to_shard_are_refused(checkpoints, monkeypatch, variables, name):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ParamsError) as told:
        training.trainer_kwargs(checkpoints)
    line = str(told.value)
    assert line.startswith(f"params.yaml: launch: {name}: ") and "launch/fsdp2.yaml" in line and "\n" not in line


def test_the_second_version_of_fsdp_is_taken(checkpoints, monkeypatch):
    for variable, value in FSDP2.items():
        monkeypatch.setenv(variable, value)
    assert training.trainer_kwargs(checkpoints)["save_strategy"] == "steps"


@pytest.mark.slow
def test_a_launch_file_for_shards_is_told_on_a_cpu(tiny, tmp_path):
    arguments = ("sft", json.dumps({}), tiny.policy, tiny.reward, of_one_stage(tmp_path))
    done = launch(tmp_path, "trl_process", *arguments, config="fsdp2")
    assert done.returncode != 0
    assert "launch: FSDP shards the weights over several GPUs, and this is 2 x cpu" in done.stderr
