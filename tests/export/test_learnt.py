"""How much of which file the weights of a model learnt from."""

import json
from pathlib import Path

import pytest
from locked_run import stage, write_lock

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.export import learnt
from rlhf_lib.export.provenance import Run


@pytest.fixture
def told(run):
    """What is said of a policy with these params, 3 rows of 2 prompts in each file, and other things in the lock."""

    root = run()

    def told(policy, params, cmd="python -m stages.dpo", more=None):
        known = load_yaml(root / "params.yaml")
        for name, values in params.items():
            known[name] |= values
        for split in ("sft_train", "prompts_train", "preference_train"):
            rows = [{"prompt": [{"role": "user", "content": str(n % 2)}]} for n in range(3)]
            write_jsonl(root / f"data/splits/{split}.jsonl", rows)
        write_lock(known)
        stages = load_yaml(root / "dvc.lock")["stages"]
        stages["dpo"]["cmd"] = cmd
        if more:
            for file, text in more.items():
                Path(file).write_text(text)
            stages["more"] = stage({}, [], [], list(more))
        found = Run(stages)
        return list(learnt.sentences(found, learnt.from_rows(found, policy)))

    return told


DPO = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 1}
FILE = "rows in data/splits/preference_train.jsonl (2 prompts (n = 2: too few to tell))"


def test_rows_are_those_that_were_seen_and_not_those_of_the_file(told):
    dpo, sft = told("dpo", {"dpo": DPO, "sft": {"num_train_epochs": 4, "max_steps": -1}})
    assert dpo == f"DPO learnt from 2 of the 3 {FILE}: 1 steps of 2 rows"
    assert sft.startswith("Before that, SFT learnt from the 3 rows in data/splits/sft_train.jsonl")
    assert sft.endswith(", 4 times")


@pytest.mark.parametrize(
    ("params", "end"),
    [
        ({"max_steps": 6}, f"the 3 {FILE}, 4 times: 6 steps of 2 rows"),
        ({"max_steps": -1, "num_train_epochs": 1}, f"the 3 {FILE}, once"),
        ({"max_steps": -1, "num_train_epochs": 0.5}, f"2 of the 3 {FILE}"),
    ],
)
def test_steps_come_before_epochs(told, params, end):
    assert told("dpo", {"dpo": DPO | params})[0] == f"DPO learnt from {end}"


def test_training_that_ended_early_has_seen_less(told):
    summary = {"dpo": {"best_step": 1, "stopped_early": True}}
    said = told("dpo", {"dpo": DPO | {"max_steps": 6}}, more={"metrics/dpo/summary.json": json.dumps(summary)})
    assert said[0].endswith("1 steps of 2 rows")
    summary["dpo"]["best_step"] = None
    more = {"metrics/dpo/summary.json": json.dumps(summary), "metrics/dpo/eval.tsv": "step\tloss\n1\t0.5\n2\t0.6\n"}
    assert told("dpo", {"dpo": DPO | {"max_steps": 6}}, more=more)[0].endswith("2 steps of 2 rows")


def test_of_several_processes_no_number_is_made_up(told):
    (said, _) = told("dpo", {"dpo": DPO}, cmd="accelerate launch -m stages.dpo")
    assert said.endswith("1 steps of 2 rows in each process of `accelerate launch -m stages.dpo`")


def test_ppo_learns_from_answers_of_its_own(told):
    ppo = {"total_rollouts": 2, "rollout_batch_size": 4, "num_generations": 2, "num_ppo_epochs": 3, "ptx_coef": 0.0}
    said, sft = told("ppo", {"ppo": ppo})
    assert said == (
        "PPO learnt from 8 answers of its own to the 3 prompts in data/splits/prompts_train.jsonl (n = 2: too few to "
        "tell), 1.33 times: 2 rollouts of 4 answers, each learnt 3 times"
    )
    assert sft.startswith("Before that, SFT")
    assert "beside answers of data/splits/sft_train.jsonl" in told("ppo", {"ppo": ppo | {"ptx_coef": 1.0}})[0]


def test_a_file_of_another_run_is_not_counted(run):
    root = run()
    (root / "data/splits/preference_train.jsonl").write_text("{}\n")
    assert [each.stage for each in learnt.from_rows(Run.read(), "dpo")] == ["sft"]
