"""Reward functions that raise, end the process, or set something for all of it."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from one_line import told
from ppo_runs import by_length

from rlhf_lib.ppo.rewards import RewardFunctions

PROMPTS = [[{"role": "user", "content": text}] for text in ("Name the cat.", "Paint the sky.", "Describe the dog.")]
TEXTS = ["Cat.", "a b c d", ""]


def rewards(functions, columns=None):
    """Of functions by name, on the three rows above."""
    return RewardFunctions(functions, [1.0] * len(functions))(PROMPTS, TEXTS, columns or {})


def test_what_a_function_raises_is_told_with_its_place():
    """Of a permission that it lacked, too, and of an end of the process: none is taken for the stage's own."""

    def broken(completions, **columns):
        return [1 / len(completion[0]["content"]) for completion in completions]

    def barred(**columns):
        raise PermissionError(13, "Permission denied", "/barred/key")

    where = rf"params.yaml: ppo.reward_funcs: the reward function {{}} in .*{Path(__file__).name}, line \d+; "
    assert re.match(
        where.format("broken raises ZeroDivisionError: division by zero"), told(rewards, {"broken": broken})
    )
    said = told(rewards, {"narrow": lambda prompts, completions: [0.0] * 3}, columns={"source": ["a"] * 3})
    assert "narrow raises TypeError: " in said and "unexpected keyword argument 'source'" in said
    assert "barred raises PermissionError: [Errno 13] Permission denied: '/barred/key'" in told(
        rewards, {"barred": barred}
    )
    ends = told(rewards, {"ends": lambda **columns: sys.exit(0)})
    assert re.match(where.format("ends ends the process"), ends)


@pytest.mark.parametrize(
    "line",
    [
        "torch.set_default_dtype(torch.float64)",
        "torch.set_grad_enabled(False)",
        "torch.set_num_threads(3)",
        "torch.set_default_device('meta')",
        "os.chdir('/')",
    ],
)
def test_what_a_function_sets_for_the_process_is_set_back(line):
    def process():
        return [
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.get_default_device(),
            os.getcwd(),
        ]

    def sets(completions, **columns):
        exec(line)
        return by_length(completions)

    before = process()
    assert rewards({"sets": sets}).total == [4.0, 7.0, 0.0]
    assert process() == before


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("\n1 / 0\n", "raises ZeroDivisionError: division by zero in {}/rewards_failing{}.py, line 2; mend it"),
        ("import sys\nsys.exit(0)\n", "ends the process in {}/rewards_failing{}.py, line 2; let it raise an error"),
        ("def f(:\n", "raises SyntaxError: "),
        ("\0", "raises SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_a_module_that_fails_is_told_with_its_place(module, tmp_path, text, fault):
    number = abs(hash(text))
    module(f"rewards_failing{number}", text)
    said = told(RewardFunctions.load, [f"rewards_failing{number}:f"], None, True)
    where = f"params.yaml: ppo.reward_funcs: rewards_failing{number}:f: the import of rewards_failing{number} "
    assert said.startswith(where + fault.format(tmp_path, number)), said
