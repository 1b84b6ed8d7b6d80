"""Where no weights would be sharded though the launcher was asked for it, the stage says so and does not train."""

import json

import pytest
from launched import launch
from trl_trainers import sft_trainer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training import trainer as training


@pytest.mark.parametrize(
    ("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")]
)
def test_shards_that_would_be_none_are_told(tiny, checkpoints, monkeypatch, variable, name):
    trainer = sft_trainer(tiny, checkpoints)
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ParamsError) as told:
        training.run(trainer, checkpoints)
    line = str(told.value)
    assert line.startswith(f"params.yaml: launch: {name} shards the weights over several GPUs, and this is 1 x cpu")
    assert "launch/cpu-2.yaml" in line and "\n" not in line
    assert trainer.state.global_step == 0
    monkeypatch.setenv(variable, "false")
    training.run(trainer, checkpoints)
    assert trainer.state.global_step == 5


@pytest.mark.slow
def test_a_launch_file_for_shards_is_told_on_a_cpu(tiny, tmp_path):
    (tmp_path / "params.yaml").write_text("policy: ppo\n")
    (tmp_path / "dvc.yaml").write_text("stages: {ppo: {cmd: x, deps: []}}\n")
    arguments = ("sft", json.dumps({}), tiny.policy, tiny.reward, tmp_path)
    done = launch(tmp_path, "trl_process", *arguments, config="fsdp2")
    assert done.returncode != 0
    assert "launch: FSDP shards the weights over several GPUs, and this is 2 x cpu" in done.stderr
