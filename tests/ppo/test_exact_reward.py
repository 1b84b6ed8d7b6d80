"""The reward of answers that can be verified."""

import pytest

from rewards.exact import exact, final


def reward(text, solution):
    (given,) = exact([[{"role": "assistant", "content": text}]], solution=[solution], id=["x"], source=["s"])
    return given


@pytest.mark.parametrize(
    ("text", "solution"),
    [
        ("7", 7),
        ("7", "7"),
        ("7.", 7.0),
        ("It is 7.", "7"),
        ("3 + 4 = 7", " 7\n"),
        ("1,000", "1000"),
        ("1000.0", "1,000"),
        ("12,345,678.50", 12345678.5),
        ("about 0.5", ".5"),
        ("1e3", 1000),
        ("It falls to -3", -3),
        ("+3", 3),
        ("$5", 5),
        ("50%", "50"),
        ("1, 2", 2),  # two numbers
        ("So \\boxed{12}, and not 5.", "12"),
        ("\\boxed{1} then \\boxed{2}", 2),
        ("So \\boxed{\\frac{1}{2}}, not \\frac{1}{3}.", "\\frac{1}{2}"),
        ("\\boxed{3} of them, that is \\boxed {\\text{three}}", "Thus \\boxed{\\text{three}}."),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{x^{2}} or } so \\boxed{y}", "y"),
        ("It is \\boxed{2}, or \\boxed{3", 2),
        ("6 * 12 = 72\n#### 72", "Natalia sold 48/2 = 24 clips.\n#### 72"),
        ("#### 1,200", "#### 1200"),
        ("Paris.", "paris"),
        ("  New   York", "new york"),
        ("true", True),
        ("1/2", "1/2"),
    ],
)
def test_a_right_answer_gets_1(text, solution):
    assert reward(text, solution) == 1.0


@pytest.mark.parametrize(
    ("text", "solution"),
    [
        ("", "7"),
        ("seven", 7),
        ("17", 7),
        ("7.5", 7),
        ("x7", 7),
        ("-7", 7),
        ("7 and 8", 7),
        ("\\boxed{5} 12", 12),
        ("1000", "1,0000"),
        ("1e999999", 7),
        ("Paris, France", "Paris"),
        ("0.5", "1/2"),
    ],
)
def test_a_wrong_answer_gets_0(text, solution):
    assert reward(text, solution) == 0.0


@pytest.mark.parametrize("solution", [None, "", "  "])
def test_a_row_without_a_solution_gets_none(solution):
    assert reward("7", solution) is None


def test_rows_keep_their_order():
    completions = [[{"role": "assistant", "content": text}] for text in ("1", "2", "3")]
    assert exact(completions, [1, None, 4]) == [1.0, None, 0.0]


def test_what_counts_of_a_text():
    assert final(" a ") == "a" and final("a #### b \n") == "b" and final("#### b \\boxed{ c }") == "c"
