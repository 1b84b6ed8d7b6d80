"""What the options of `make prune` take, and what is said of the rest."""

import subprocess

import pytest
from project import ROOT

from rlhf_lib.prune import __main__ as command


def parsed(*arguments):
    return command._parser().parse_args(arguments)


@pytest.mark.parametrize("word", ["1", "yes", "true", "TRUE", "Yes"])
def test_apply_takes_what_people_write(word):
    assert parsed(f"--apply={word}").apply is True


def test_without_it_or_with_a_no_it_is_a_dry_run():
    assert parsed("--apply").apply is True and parsed("--apply", "--keep", "a").apply is True
    assert [parsed(*given).apply for given in ([], ["--apply="], ["--apply=0"], ["--apply=no"])] == [False] * 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--apply=ja"], "ja: APPLY takes 1, yes or true"),
        (["--older-than", "-3"], "-3: give a number of days, 0 or more"),
        (["--older-than", "week"], "week: give a number of days, 0 or more"),
        (["--older-than", "nan"], "nan: give a number of days, 0 or more"),
    ],
)
def test_what_they_do_not_take_is_told(arguments, told, capsys):
    with pytest.raises(SystemExit) as error:
        parsed(*arguments)
    said = capsys.readouterr().err
    assert error.value.code == 2 and told in said and "_days" not in said and "_yes" not in said


@pytest.mark.parametrize("word", ["1", "yes", "true", "ja", ""])
def test_make_hands_the_word_on(word):
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/run.stamp", "prune", f"APPLY={word}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'--apply="{word}"' in done.stdout
