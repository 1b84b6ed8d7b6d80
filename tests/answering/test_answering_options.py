"""The options of decoding: which there are, what they may be, and what is told of the others."""

import dataclasses
import json
import subprocess
import sys

import pytest
from project import ROOT

from rlhf_lib.answering import decoding
from rlhf_lib.answering.__main__ import arguments


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A function that reads a command line, in a project with a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "rlhf_lib/preset/demo.yaml").read_text())
    (tmp_path / "models/dpo").mkdir(parents=True)
    return lambda *words: arguments(["models/dpo", "prompts.txt", *words])


def options(**given):
    return decoding.read({name: str(value) for name, value in given.items()}, 48).options()


def test_answers_are_greedy_unless_an_option_is_of_sampling():
    greedy = {"max_new_tokens": 48, "do_sample": False}
    assert options() == options(do_sample="false") == options(temperature=0) == greedy
    assert options(num_beams=4, no_repeat_ngram_size=3) == {**greedy, "num_beams": 4, "no_repeat_ngram_size": 3}
    sampled = {"max_new_tokens": 48, "do_sample": True, "top_k": 0}
    assert options(do_sample="true") == sampled  # and not from the 50 likeliest, which would be transformers' choice
    assert options(temperature=0.7) == {**sampled, "temperature": 0.7}
    assert options(top_p=0.9) == {**sampled, "top_p": 0.9}
    assert options(top_k=50, num_beams=4) == {**sampled, "top_k": 50, "num_beams": 4}


def test_a_value_is_read_as_what_it_is():
    assert options(stop_strings='["\\n", END]')["stop_strings"] == ["\n", "END"]
    assert options(stop_strings="END")["stop_strings"] == ["END"]
    assert options(early_stopping="never", num_beams=2)["early_stopping"] == "never"
    assert options(early_stopping="true", num_beams=2)["early_stopping"] is True
    assert options(bad_words_ids="[[5], [7, 8]]")["bad_words_ids"] == [[5], [7, 8]]
    assert options(exponential_decay_length_penalty="[10, 1.5]")["exponential_decay_length_penalty"] == (10, 1.5)
    assert options(max_new_tokens=7)["max_new_tokens"] == 7


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--top_kk", "5"], "--top_kk: no such option; did you mean --top_k"),
        (["--num-beem=5"], "--num_beem: no such option; did you mean --num_beams"),
        (["--batchsize", "5"], "--batchsize: no such option; did you mean --batch_size"),
        (["--max_length", "9"], "--max_length: not taken: give --max_new_tokens or --min_new_tokens: it counts"),
        (["--penalty_alpha", "0.6"], "--penalty_alpha: not taken: transformers takes it from code on the hub"),
        (["--num_beams", "0"], "--num_beams: must be at least 1, got 0"),
        (["--num_beams", "two"], "--num_beams: must be a whole number, got 'two'"),
        (["--top_p", "1.5"], "--top_p: must be at most 1, got 1.5"),
        (["--temperature", "-1"], "--temperature: must be at least 0, got -1"),
        (["--temperature", "nan"], "--temperature: must be a number, got 'nan'"),
        (["--repetition_penalty", "0"], "--repetition_penalty: must be above 0, got 0"),
        (["--stop_strings", '["'], "--stop_strings: cannot be read as a number, a word or a list"),
        (["--stop_strings", '[""]'], "--stop_strings[0]: must not be an empty text"),
        (["--length_penalty", "2"], "--length_penalty: it is of beams; give --num_beams above 1"),
        (["--num_return_sequences", "2"], "--num_return_sequences: 2 answers are all the same; sample"),
        (
            ["--num_return_sequences", "4", "--num_beams", "3"],
            "--num_return_sequences: at most num_beams, which is 3, got 4",
        ),
        (["--do_sample", "false", "--top_k", "9"], "--top_k: it is of sampling, and these answers are not sampled"),
        (["--temperature", "0", "--top_p", "0.9"], "--top_p: it is of sampling, and these answers are not sampled"),
        (["--min_new_tokens", "48"], "--min_new_tokens: must be below max_new_tokens (48)"),
        (["--exponential_decay_length_penalty", "[1.5, 2]"], "--exponential_decay_length_penalty: a whole number"),
        (["--batch_size", "0"], "--batch_size: must be at least 1, got 0"),
        (["--seed", "-1"], "--seed: must be from 0 to"),
        (["--scores", "models/dpo,nothing"], "--scores: 'nothing' is no reward; name a function"),
        (["--scores", "models/dpo,./models/dpo/"], "--scores: ./models/dpo/ is there twice"),
        (["--scores", "a.b:c,a.b:c"], "--scores: a.b:c is there twice"),
        (["words"], "words: what is this?"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(command, words, line):
    with pytest.raises(SystemExit) as told:
        command(*words)
    assert str(told.value.code).startswith(line) and "\n" not in str(told.value.code)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("dpo", "dpo: no such directory; name one such as models/dpo"),
        ("owner/name", "owner/name: the revision of a hub model must be pinned to a commit"),
        ("rewards.examples:brevity", "rewards.examples:brevity: a function gives no answers"),
    ],
)
def test_what_can_be_no_model_is_told(command, model, line):
    with pytest.raises(SystemExit) as told:
        arguments([model, "prompts.txt"])
    assert str(told.value.code).startswith(line)


def test_names_may_have_hyphens_and_values_equals_signs(command):
    found = command(
        "--num-beams=2", "--stop_strings=a-b=c", "--too-long", "cut", "--scores", "rewards.examples:brevity"
    )
    assert found.decoding.num_beams == 2 and found.decoding.stop_strings == ["a-b=c"] and found.too_long == "cut"
    assert [source.attribute for source in found.sources] == ["brevity"] and found.batch_size == 128


def test_the_options_are_those_of_transformers():
    from transformers import GenerationConfig

    fields = [field.name for field in dataclasses.fields(decoding.Decoding)]
    assert fields == [*decoding.HELP] and {*fields, *decoding.Decoding.unserved} <= GenerationConfig().__dict__.keys()


def test_help_lists_the_options_and_needs_no_library():
    code = "import sys; from rlhf_lib.answering.__main__ import main\ntry: main(['--help'])\nfinally: "
    code += "print([name for name in ('torch', 'transformers') if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stderr.strip()) == []
    assert all(f"--{name}" in done.stdout for name in decoding.HELP)
