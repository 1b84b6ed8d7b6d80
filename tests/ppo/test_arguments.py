"""What reward functions ask for, by their signature or by their source, and what PPO gives them."""

import ast
import functools
import inspect
from pathlib import Path

import pytest
from checked import with_values
from one_line import told
from ppo_trainers import EVAL_ROWS, TRAIN_ROWS
from transformers import TrainerState

from rlhf_lib.check import inputs
from rlhf_lib.check.sections import valid_sections
from rlhf_lib.ppo import arguments
from rlhf_lib.ppo.data import Prompts
from rlhf_lib.ppo.rewards import RewardFunctions

GIVEN = "prompts, completions, completion_ids, trainer_state, id, source"


def plain(prompts, completions, **columns): ...


def by_solution(completions, solution, **columns): ...


async def keyword_only(*, completions, answer, weight=1.0, **columns): ...


def with_defaults(completions, solution=None, log_extra=None, **columns): ...


def logs(completions, log_metric, **columns): ...


def closed(prompts, completions): ...


def whole(prompts, completions, completion_ids, trainer_state, id, source): ...


CASES = [
    (plain, None),
    (
        by_solution,
        f"asks for solution, but gets {GIVEN}; name the column that has it in load.sources: "
        "reward_columns: {solution: <column>}",
    ),
    (
        keyword_only,
        f"asks for answer, but gets {GIVEN}; name the column that has it in load.sources: "
        "reward_columns: {answer: <column>}",
    ),
    (with_defaults, None),
    (logs, "asks for log_metric, which only TRL's GRPOTrainer gives; give it the default None"),
    (closed, "takes no completion_ids, with which it is called; add **columns to its arguments"),
    (whole, None),
]


@pytest.mark.parametrize(("function", "expected"), CASES)
def test_what_a_function_lacks_is_told_by_signature_and_by_source(function, expected):
    (definition,) = ast.parse(inspect.getsource(function)).body
    for asked in (arguments.of_function(function), arguments.of_definition(definition)):
        assert arguments.fault(asked, arguments.HEAD) == expected
    if function in (by_solution, keyword_only):
        assert arguments.fault(asked, [*arguments.HEAD, "solution", "answer"]) is None


def test_what_cannot_be_told_is_no_fault():
    decorated = ast.parse("@wrapped\ndef score(x): ...").body[0]
    assert arguments.of_definition(decorated) is None
    assert arguments.of_function(dict) is None


def test_objects_and_partial_functions_have_arguments_too():
    class Judge:
        def __call__(self, completions, solution, **columns): ...

    assert arguments.of_function(Judge()).needed == ["completions", "solution"]
    assert arguments.of_function(functools.partial(by_solution, solution=[1])).needed == ["completions"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("raise SystemExit('run')\n\ndef score(completions, solution, **columns): ...\n")
    Path("rows.jsonl").write_text('{"prompt": "Q?", "answer": "A"}\n')
    return tmp_path


def faults(entry, **source):
    changes = {"ppo.reward_funcs": [entry]}
    if source:
        changes["load.sources"] = [{"reader": "file", "path": "rows.jsonl", **source}]
    found = inputs.faults(valid_sections(with_values(changes)))
    return [fault for fault in found if fault.startswith("ppo.reward_funcs")]


def test_the_check_tells_a_column_that_no_source_gives(folder):
    """Before anything trains, and without running the user's module."""
    assert faults("mine:score") == [
        f"ppo.reward_funcs[0]: mine:score asks for solution, but gets {GIVEN}; name the column that has it in "
        "load.sources: reward_columns: {solution: <column>}"
    ]
    assert faults("mine:score", reward_columns=["answer"]) != []
    assert faults("mine:score", reward_columns={"solution": "answer"}) == []


def test_the_check_looks_into_installed_modules(folder):
    (fault,) = faults("trl.rewards:accuracy_reward")
    assert fault.startswith(f"ppo.reward_funcs[0]: trl.rewards:accuracy_reward asks for solution, but gets {GIVEN};")
    assert faults("trl.rewards:accuracy_reward", reward_columns={"solution": "answer"}) == []
    assert faults("trl.rewards:think_format_reward") == []
    (fault,) = faults("trl.rewards:acuracy_reward")
    assert "did you mean accuracy_reward?" in fault


def test_ppo_tells_it_before_it_trains():
    rewards = RewardFunctions({"by_solution": by_solution, "plain": plain}, [1.0, 1.0])
    assert told(rewards.check, ["id", "source", "answer"]) == (
        f"params.yaml: ppo.reward_funcs: by_solution asks for solution, but gets {GIVEN}, answer; name the column that "
        "has it in load.sources: reward_columns: {solution: <column>}"
    )
    rewards.check(["id", "source", "solution"])


def test_functions_get_the_columns_token_ids_and_the_state_of_the_trainer(build):
    calls = []

    def reward(prompts, completions, **columns):
        calls.append((prompts, columns))
        return [float(len(ids)) for ids in columns["completion_ids"]]

    trainer = build(total_rollouts=2, functions={"reward": reward})
    rollout = trainer.sample(0)
    prompts, columns = calls[0]
    assert columns.keys() == {"id", "source", "answer", "completion_ids", "trainer_state"}
    answers = {row["prompt"][0]["content"]: row["answer"] for row in TRAIN_ROWS}
    assert columns["answer"] == [answers[prompt[0]["content"]] for prompt in prompts]
    assert columns["completion_ids"] == [response.ids for response in rollout.responses]
    state = columns["trainer_state"]  # a copy: a function cannot change the trainer's
    assert isinstance(state, TrainerState) and state is not trainer.state and state.global_step == 0
    trainer.train()
    trainer.evaluate()
    prompts, columns = calls[-1]
    assert columns["answer"] == [row["answer"] for row in EVAL_ROWS] and columns["trainer_state"].global_step == 8


def test_rows_of_a_mixture_have_the_same_columns():
    rows = [{"prompt": "a", "id": 1}, {"prompt": "b", "id": 2, "solution": 7}]
    prompts = Prompts(rows, [[1], [2]])
    assert prompts.columns() == {"id": [1, 2], "solution": [None, 7]}
    assert prompts.pick([0]).columns() == {"id": [1], "solution": [None]}
