"""What a run samples beside training, and how often it validates, from params and the rows that are there."""

import pytest

from rlhf_lib.check.sections import valid_sections
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.plan import data

ROW = {
    "prompt": [{"role": "user", "content": "aaaa"}],
    "completion": [{"role": "assistant", "content": "bbbb"}],
}


def test_what_is_sampled_beside_training(project):
    params = load_yaml(project / "params.yaml")
    params["evaluate"] |= {"max_new_tokens": 10, "samples_per_prompt": 2, "temperatures": [1.0, 0.5, 0.0]}
    params["best_of_n"]["n"], params["attainable"]["n"] = [2, 4], 0
    write_jsonl("data/splits/test.jsonl", [ROW] * 7)
    # three policies, 2 + 2 + 1 answers to each of 7 prompts; 4 more of the SFT model
    assert data.evaluation_tokens(valid_sections(params)) == 7 * 10 * (3 * 5 + 4)
    params["attainable"] |= {"n": 20, "max_prompts": 3}
    params["ppo"]["response_length"] = 5
    assert data.evaluation_tokens(valid_sections(params)) == 7 * 10 * (3 * 5 + 4) + 3 * 20 * 5
    params["ppo"] |= {"response_length": 5, "total_rollouts": 45, "eval_rollouts": 10, "max_eval_prompts": 3}
    assert data.validation_tokens(valid_sections(params)["ppo"]) == 0
    write_jsonl("data/splits/prompts_validation.jsonl", [ROW] * 7)
    # before the first rollout, after 10, 20, 30 and 40, and after the last
    assert data.validation_tokens(valid_sections(params)["ppo"]) == 6 * 2 * 3 * 5
    params["ppo"] |= {"total_rollouts": 40}
    assert data.validation_tokens(valid_sections(params)["ppo"]) == 5 * 2 * 3 * 5


def test_prompts_without_a_limit_are_all_counted(project):
    params = load_yaml(project / "params.yaml")
    params["evaluate"] |= {"max_new_tokens": 10, "samples_per_prompt": 2, "temperatures": [1.0], "max_prompts": None}
    params["ppo"] |= {"response_length": 5, "total_rollouts": 1, "eval_rollouts": 10, "max_eval_prompts": None}
    params["best_of_n"]["n"], params["attainable"]["n"] = [], 0
    for split in ("test", "prompts_validation"):
        write_jsonl(f"data/splits/{split}.jsonl", [ROW] * 2500)
    assert data.evaluation_tokens(valid_sections(params)) == 2500 * 10 * 3 * 2
    assert data.validation_tokens(valid_sections(params)["ppo"]) == 2500 * 2 * 2 * 5


@pytest.mark.parametrize(
    ("changes", "steps", "times"),
    [
        ({"eval_strategy": "steps", "eval_steps": 20}, 50, 2),
        ({"eval_strategy": "steps", "eval_steps": 80}, 50, 1),  # at the end, where none was due before
        ({"eval_strategy": "epoch", "eval_steps": 20}, 50, 4),  # of 50 steps of 8 rows, 120 rows have three and a third
        ({"eval_strategy": "epoch", "eval_steps": 20}, 45, 3),
    ],
)
def test_how_often_a_training_validates(project, changes, steps, times):
    params = load_yaml(project / "params.yaml")
    params["sft"] |= {**changes, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert data.validations(valid_sections(params)["sft"], steps, 120) == times
