"""SFT, reward model and DPO in two processes on a CPU, against one process with the same batches; and rows that are
shared out over processes, and come back in order."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import IN_FP32, TEXTS, Tiny, rows
from test_ppo_processes import launch
from test_trl_stages import CHOSEN, REJECTED, dpo_params, pair_rows, referenced, reward_trainer, sft_trainer
from test_trl_stages import dpo as dpo_module

from rlhf_lib.models import hardware, processes
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir

pytestmark = pytest.mark.slow

# Two passes over eight rows, four to a step: micro-batches of two, both in one process or one in each of two.
COMMON = {
    "max_steps": 4,
    "eval_steps": 2,
    "save_steps": 4,
    "train_sampling_strategy": "group_by_length",
    "per_device_train_batch_size": 2,
}
# TRL averages its other metrics over micro-batches, or takes the least and the greatest of those of all processes.
COMPARED = {"loss", "grad_norm", "learning_rate", "accuracy", "rewards/margins", "eval_loss", "eval_accuracy"}
LOSS, WEIGHT = 1e-5, 1e-4  # sums in another order; Adam makes more of such differences where the gradient is else 0


def dpo_trainer(tiny, checkpoints, rows, **changes):
    pairs = referenced(tiny, rows)
    return dpo_module.build(dpo_params(**changes), 64, str(tiny.policy), pairs, pairs, checkpoints)


BUILD = {
    "sft": lambda tiny, checkpoints, changes: sft_trainer(tiny, checkpoints, sft_rows()[:8], **changes),
    "reward": lambda tiny, checkpoints, changes: reward_trainer(tiny, checkpoints, pair_rows()[:8], **changes),
    "dpo": lambda tiny, checkpoints, changes: dpo_trainer(tiny, checkpoints, pair_rows()[:8], **changes),
}


def sft_rows():
    from test_trl_stages import sft_rows

    return sft_rows()


def in_this_process(what, changes, policy, reward, out):
    """What a process of a launched run does; writes what it saw to a file of its rank."""
    hardware.use(IN_FP32)
    rank = os.environ["RANK"]
    work = Path(f"of-{rank}")  # the fixtures' files are written by each process
    work.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(name, work)
    os.chdir(work)
    if what == "rows":
        saw = named_rewards(int(changes), Path(reward))
    else:
        checkpoints = CheckpointDir("ppo")
        trainer = BUILD[what](Tiny(Path(policy), Path(reward)), checkpoints, json.loads(changes))
        training.run(trainer, checkpoints)
        saw = seen(trainer)
    torch.save(saw, f"{out}/{rank}.pt")


def seen(trainer):
    state = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    return {"train": rows(trainer), "eval": rows(trainer, "eval_loss"), "weights": state}


def named_rewards(count, reward):
    """Texts that name their row, with what a reward model and a function of texts give in these processes."""
    from rlhf_lib.scoring.reward_model import RewardModel, shared

    texts = [f"row {i} {'cat ' * (i % 5)}" for i in range(count)]
    model = RewardModel.load(reward)
    prompts = [[{"role": "user", "content": TEXTS[i % len(TEXTS)]}] for i in range(count)]
    return {
        "names": processes.shared_out(texts, lambda part: [int(text.split()[1]) for text in part]),
        "rewards": shared(model)(prompts, texts),
        "alone": model(prompts, texts),
    }


@pytest.fixture
def in_two(tiny, tmp_path):
    directory = tmp_path / "two"
    directory.mkdir()
    (directory / "params.yaml").write_text("policy: ppo\n")
    (directory / "dvc.yaml").write_text("stages: {ppo: {cmd: x, deps: []}}\n")

    def in_two(what, changes):
        done = launch(directory, what, json.dumps(changes), tiny.policy, tiny.reward, directory, module=__name__)
        assert done.returncode == 0, done.stderr[-3000:]
        return [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in (0, 1)]

    return in_two


@pytest.mark.parametrize("adapters", [{}, {"lora_r": 4}], ids=["full", "lora"])
@pytest.mark.parametrize("what", BUILD)
def test_two_processes_learn_what_one_does(tiny, checkpoints, in_two, what, adapters):
    changes = {**COMMON, **adapters}
    alone = BUILD[what](tiny, checkpoints, {**changes, "gradient_accumulation_steps": 2})
    start = {name: tensor.clone() for name, tensor in alone.model.state_dict().items()}
    training.run(alone, checkpoints)
    first, second = in_two(what, changes)
    expected = seen(alone)
    for curve in ("train", "eval"):
        assert len(first[curve]) == len(expected[curve]) > 1
        for one, two in zip(expected[curve], first[curve], strict=True):
            assert one.keys() == two.keys()
            for name in one.keys() & COMPARED:
                assert two[name] == pytest.approx(one[name], abs=LOSS, rel=1e-4), (curve, name)
    for name, weight in expected["weights"].items():
        assert first["weights"][name].equal(second["weights"][name])
        torch.testing.assert_close(first["weights"][name], weight, atol=WEIGHT, rtol=0)
    assert any((start[name] - weight).abs().max() > 1e-3 for name, weight in expected["weights"].items())


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_rewards_come_back_to_the_rows_that_they_are_of(in_two, count):
    first, second = in_two("rows", count)
    assert first["names"] == second["names"] == list(range(count))
    assert first["rewards"] == second["rewards"] == pytest.approx(first["alone"], abs=1e-5)
    assert len(set(first["rewards"])) == len(first["rewards"])


def test_the_pairs_have_answers_of_different_lengths():
    assert len({len(a) + len(b) for a, b in zip(CHOSEN, REJECTED, strict=True)}) > 3
