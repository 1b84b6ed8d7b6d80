"""Rewards by decoded text: what an entry names, the contract of the functions, weights and faults."""

import math
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from one_line import told
from ppo_runs import by_length
from trl.rewards import think_format_reward

from rlhf_lib.ppo.rewards import RewardFunctions
from rlhf_lib.scoring.reward_model import RewardModel

PROMPTS = [[{"role": "user", "content": text}] for text in ("Name the cat.", "Paint the sky.", "Describe the dog.")]
TEXTS = ["Cat.", "a b c d", ""]


def only_first(completions, **columns):
    return [10.0, *[None] * (len(completions) - 1)]


def nothing(completions, **columns):
    return [None] * len(completions)


def rewards(functions, weights=None, columns=None):
    """Of functions by name, on the three rows above."""
    return RewardFunctions(functions, weights or [1.0] * len(functions))(PROMPTS, TEXTS, columns or {})


def same(completions, **columns):
    return [0.5 for _ in completions]


def idle(functions, rows=3, times=2):
    """What is said of functions that were asked `times` times about `rows` rows."""
    asked = RewardFunctions(functions, [1.0] * len(functions))
    for _ in range(times):
        asked(PROMPTS[:rows], TEXTS[:rows], {})
    return list(asked.idle())


# ---- the contract


def test_a_function_gets_conversations_and_columns_by_keyword():
    calls = []

    def function(**arguments):
        calls.append(arguments)
        return [0.0] * 3

    columns = {"source": ["a", "b", "c"], "completion_ids": [[1], [2], []], "prompt": PROMPTS, "completion": TEXTS}
    rewards({"f": function}, columns=columns)
    assert calls == [
        {
            "prompts": PROMPTS,
            "completions": [[{"role": "assistant", "content": text}] for text in TEXTS],
            "source": ["a", "b", "c"],
            "completion_ids": [[1], [2], []],
            "trainer_state": None,
        }
    ]


def test_what_a_function_edits_no_other_sees():
    """Not even one of weight 0 changes what the others are given, or the rows of the trainer."""
    rows = {"solution": [["1"], ["2"], ["3"]]}

    def vandal(prompts, completions, solution, **columns):
        prompts[0][0]["content"] = completions[0][0]["content"] = "mine"
        solution[0].append("mine")
        solution.clear()
        return [1.0] * 3

    def seen(prompts, completions, solution, **columns):
        assert next(prompt[0]["content"] for prompt in prompts) == "Name the cat."
        assert completions[0][0]["content"] == "Cat." and solution == [["1"], ["2"], ["3"]]
        return [2.0] * 3

    assert rewards({"vandal": vandal, "seen": seen}, [0.0, 1.0], rows).total == [2.0] * 3
    assert rows == {"solution": [["1"], ["2"], ["3"]]} and PROMPTS[0][0]["content"] == "Name the cat."


def test_the_total_is_the_weighted_sum():
    got = rewards({"by_length": by_length, "first": lambda completions, **columns: [1, 2, 3]}, [0.5, -2.0])
    assert got.by_name == {"by_length": [4.0, 7.0, 0.0], "first": [1.0, 2.0, 3.0]}
    assert got.total == [4 / 2 - 2, 7 / 2 - 4, 0 - 6]


def test_none_leaves_the_row_to_the_other_functions():
    got = rewards({"by_length": by_length, "only_first": only_first}, [1.0, 0.1])
    assert got.total == [4.0 + 1.0, 7.0, 0.0]
    assert got.by_name["only_first"] == [10.0, None, None]


def test_a_row_that_no_function_scores_gets_0():
    assert rewards({"only_first": only_first, "nothing": nothing}).total == [10.0, 0.0, 0.0]


def test_a_weight_of_0_only_measures():
    got = rewards({"by_length": by_length, "only_first": only_first}, [0.0, 1.0])
    assert got.total == [10.0, 0.0, 0.0] and got.by_name["by_length"] == [4.0, 7.0, 0.0]


@pytest.mark.parametrize("given", [[1, True, 0.5], list(np.float32([1, 1, 0.5])), [np.int64(1), 1.0, Fraction(1, 2)]])
def test_numbers_of_any_real_type_are_rewards(given):
    got = rewards({"f": lambda **columns: given}).by_name["f"]
    assert got == [1.0, 1.0, 0.5] and all(type(value) is float for value in got)


def test_an_async_function_is_awaited():
    async def judge(completions, **columns):
        return by_length(completions)

    assert rewards({"judge": judge}).total == [4.0, 7.0, 0.0]


def test_no_rows_have_no_rewards():
    got = RewardFunctions({"by_length": by_length}, [1.0])([], [], {"source": []})
    assert got.total == [] and got.by_name == {"by_length": []}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (None, "gave None of type NoneType, not a list"),
        (1.0, "gave 1.0 of type float, not a list"),
        ((1.0, 2.0, 3.0), "of type tuple, not a list"),
        (torch.zeros(3), "of type Tensor, not a list"),
        (torch.zeros(3, 99), "of type Tensor, not a list"),
        ([], "gave 0 rewards for 3 rows"),
        ([1.0, 2.0], "gave 2 rewards for 3 rows"),
        ([1.0] * 4, "gave 4 rewards for 3 rows"),
        ([1.0, math.nan, 1.0], "gave nan for row 1"),
        ([1.0, 1.0, -math.inf], "gave -inf for row 2"),
        (["1.0", 1.0, 1.0], "gave '1.0' for row 0"),
        ([[1.0], [1.0], [1.0]], "gave [1.0] for row 0"),
        ([1.0, 1j, 1.0], "gave 1j for row 1"),
        ([10**400, 1.0, 1.0], "for row 0"),
        ([1.0, 10**1_000_000, 1.0], "gave a number of type int that is too long to write for row 1"),
    ],
)
def test_a_faulty_result_is_told(given, fault):
    text = told(rewards, {"fine": by_length, "faulty": lambda **columns: given}, [1.0, 0.0])
    assert text.startswith("reward function faulty: ") and fault in text


# ---- loading


def test_functions_are_loaded_by_name_with_weights_of_1(module):
    module("rewards_by_name", "def one(completions, **columns): return [1.0] * len(completions)\n")
    loaded = RewardFunctions.load(["rewards_by_name:one", "rewards.examples:brevity"], None, True)
    got = loaded(PROMPTS, ["word " * 43, "a", ""], {})
    assert got.by_name == {"one": [1.0, 1.0, 1.0], "brevity": [-3.0, 0.0, 0.0]}
    assert got.total == [-2.0, 1.0, 1.0]


def test_equal_names_are_numbered(module):
    module("rewards_equal_a", "def f(completions, **columns): return [1.0] * len(completions)\nf_2 = f\n")
    module("rewards_equal_b", "def f(completions, **columns): return [2.0] * len(completions)\n")
    entries = ["rewards_equal_a:f", "rewards_equal_b:f", "rewards_equal_a:f_2", "rewards_equal_b:f"]
    got = RewardFunctions.load(entries, [1.0, 10.0, 100.0, 1000.0], True)(PROMPTS, TEXTS, {})
    assert {name: values[0] for name, values in got.by_name.items()} == {"f": 1.0, "f_2": 2.0, "f_2_2": 1.0, "f_3": 2.0}
    assert got.total == [2121.0] * 3


def test_a_reward_model_is_one_of_the_functions(tiny, tmp_path):
    path = tmp_path / "quality"
    shutil.copytree(tiny.reward, path)
    entries = [str(path), "rewards.examples:brevity", str(path)]
    model = RewardModel.load(tiny.reward)
    texts = ["Cat.", "dog " * 43, ""]
    for normalize in (True, False):
        got = RewardFunctions.load(entries, [2.0, 0.1, 0.5], normalize)(PROMPTS, texts, {"source": ["a"] * 3})
        expected = model(PROMPTS, texts) if normalize else model.scores(PROMPTS, texts)
        assert got.by_name["quality"] == got.by_name["quality_2"] == pytest.approx(expected)
        assert got.total == pytest.approx(
            [2.5 * reward + 0.1 * words for reward, words in zip(expected, [0.0, -3.0, 0.0], strict=True)]
        )


def test_functions_of_trl_work():
    texts = ["<think>Let me see.</think>Cat.", "Cat.", "<think>Cat."]
    got = RewardFunctions.load(["trl.rewards:think_format_reward"], [3.0], True)(PROMPTS, texts, {"source": ["a"] * 3})
    assert got.by_name == {"think_format_reward": [1.0, 0.0, 0.0]} and got.total == [3.0, 0.0, 0.0]
    assert got.by_name["think_format_reward"] == think_format_reward([[{"content": text}] for text in texts])


def test_a_function_that_cannot_be_had_is_told(module):
    load = RewardFunctions.load
    module("rewards_no_import", "import no_such_package.inside\n")
    module("rewards_few", "def politeness(**columns): ...\nlimit = 3\n")
    module("rewards_empty", "")
    where = "params.yaml: ppo.reward_funcs: "
    assert told(load, ["no_such_module.x:f"], None, True).startswith(f"{where}no_such_module.x:f: no module no_such_m")
    assert "no module rewards.none;" in told(load, ["rewards.none:f"], None, True)
    text = told(load, ["rewards_no_import:f"], None, True)
    assert "it imports no_such_package, which is not installed" in text
    assert "did you mean politeness?" in told(load, ["rewards_few:politness"], None, True)
    assert "no x in the module; it has politeness" in told(load, ["rewards_few:x"], None, True)
    assert "no function at all" in told(load, ["rewards_empty:x"], None, True)
    assert "not a function but 3" in told(load, ["rewards_few:limit"], None, True)


def test_a_missing_model_is_told(tmp_path):
    assert "dvc repro reward" in told(RewardFunctions.load, [f"{tmp_path}/none"], None, True)


def test_another_number_of_weights_is_told():
    entries = ["rewards.examples:brevity", "rewards.examples:no_repetition"]
    text = told(RewardFunctions.load, entries, [1.0], True)
    assert text.startswith("params.yaml: ppo.reward_weights: 1 weights for 2 reward_funcs")


# ---- functions that tell nothing apart


def test_a_function_that_scores_nothing_or_all_alike_is_named():
    why = ": nothing can be learnt from it (params.yaml: ppo.reward_funcs)"
    assert idle({"by_length": by_length, "nothing": nothing, "same": same, "first": only_first}) == [
        f"reward function nothing gave no number to any of 6 answers{why}",
        f"reward function same gave 0.5 to all of the 6 answers that it scored{why}",
        f"reward function first gave 10 to all of the 2 answers that it scored{why}",
    ]


def test_a_function_that_was_hardly_asked_is_not():
    assert idle({"nothing": nothing, "same": same}, rows=1, times=1) == idle({"same": same}, times=0) == []
