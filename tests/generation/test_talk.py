"""A chat with a model, and two models' answers side by side."""

import io
import json
import shutil
import subprocess
import sys

import pytest
from project import DEMO, ROOT

from rlhf_lib import talk
from rlhf_lib.common import environment
from rlhf_lib.common.terminal import visible
from rlhf_lib.talk import Answer


@pytest.fixture
def run(project, monkeypatch, capsys):
    """A function that runs the command in the project and gives what it printed."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(environment, "prepare", lambda: None)  # the libraries are imported here

    def run(*arguments, typed=b"", columns=100):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["talk", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))
        talk.main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def project(tiny, ending, tmp_path_factory):
    """A folder as the pipeline leaves it, less the judge; the context of its models is 64 tokens."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(DEMO, folder / "params.yaml")
    for name, model in {"sft": tiny.policy, "ppo": ending, "reward": tiny.reward}.items():
        shutil.copytree(model, folder / "models" / name)
    (folder / "models/empty").mkdir()
    (folder / "models/broken").mkdir()
    (folder / "models/broken/config.json").write_text(json.dumps({"model_type": "gpt2"}))
    shutil.copytree(tiny.policy, folder / "models/plain")
    (folder / "models/plain/chat_template.jinja").unlink()
    return folder


def test_a_chat_answers_each_line_until_the_end_of_the_input(project):
    command = [sys.executable, "-m", "rlhf_lib.talk", "chat", "models/sft", "--max-new-tokens", "4"]
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}
    typed = b"Name \xff the cat.\n\nPaint the dog.\n"  # a byte that is no text, and an empty line
    done = subprocess.run(command, cwd=project, env=variables, input=typed, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    said = done.stdout.decode()
    assert said.startswith("models/sft: /reset starts a new conversation") and said.endswith("> \n")
    assert "<|user|>" not in said and "<|assistant|>" not in said


def test_exit_ends_a_chat_and_reset_begins_it_anew(run):
    options = ("--max-new-tokens", "32")
    typed = b"Name the cat.\nPaint the dog in one word.\n/reset\nName the sky.\n/exit\nName the dog.\n"
    before, after = run("chat", "models/sft", *options, typed=typed).split("(a new conversation)\n")
    assert "its oldest 1 turns were dropped" in before and "dropped" not in after
    assert after.endswith("> ")  # and not with the new line that follows the end of the input


def test_the_same_chat_with_the_same_seed_says_the_same_and_another_seed_does_not(run):
    def chat(*more):
        return run("chat", "models/sft", "--max-new-tokens", "8", "--temperature", "1", *more, typed=b"Name the cat.\n")

    assert chat() == chat() != chat("--seed", "1")


def test_after_reset_the_model_answers_as_at_first(run):
    options = ("--max-new-tokens", "8", "--temperature", "0")
    said = run("chat", "models/sft", *options, typed=b"Name the cat.\nName the cat.\n/reset\nName the cat.\n")
    first, second, _, third = said.split("> ")[1:5]
    assert first == third and "(a new conversation)\n" in said and second != ""


def test_a_command_that_there_is_not_is_told_and_no_message(run, monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(talk, "say", lambda policy, messages, *_: sent.append(messages[-1]["content"]) or "x")
    said = run(
        "chat", "models/sft", "--max-new-tokens", "4", typed=b"/help\n/quit now\n//etc is a folder.\nand/or\n/\n"
    )
    assert sent == ["/etc is a folder.", "and/or"]
    known = "no command: /reset starts a new conversation, /exit or Ctrl-D ends"
    assert f"(/help: {known}" in said and f"(/quit: {known}" in said and "is sent with two: //quit now)" in said
    assert "dialogue" not in said


def test_interrupting_ends_a_chat_without_a_traceback(run, monkeypatch):
    def interrupted(question):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert run("chat", "models/sft").endswith("\n")


def test_a_message_longer_than_the_context_is_not_sent(run):
    said = run("chat", "models/sft", "--max-new-tokens", "32", typed=b"cat " * 60 + b"\n")
    assert "(too long: message and answer have 32 + 32 tokens of room; it was not sent)" in said


def test_the_oldest_turns_go_first_and_the_newest_message_stays(policy, tokenizer):
    talker = talk.Policy("x", policy, tokenizer)
    turns = [{"role": role, "content": f"{i} cat."} for i, role in enumerate(["user", "assistant"] * 3 + ["user"])]
    length = {
        k: len(tokenizer.apply_chat_template(turns[k:], add_generation_prompt=True)["input_ids"]) for k in (0, 2, 6)
    }
    assert talk.fit(talker, turns, None) == turns and talk.fit(talker, turns, length[0]) == turns
    assert talk.fit(talker, turns, length[0] - 1) == turns[2:] == talk.fit(talker, turns, length[2])
    assert talk.fit(talker, turns, length[6]) == turns[6:] and talk.fit(talker, turns, length[6] - 1) == []


def test_streaming_says_what_the_pipelines_own_sampling_says_greedily(policy, tokenizer, capsys, monkeypatch):
    """Whatever a model of the hub has for its own sampling, such as Qwen's penalty."""
    from transformers import GenerationConfig

    from rlhf_lib.generation.decoding import generate
    from rlhf_lib.generation.sampling import Sampling, encode_prompts, random_numbers, response_text

    messages = [{"role": "user", "content": "Name the cat."}]
    own_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, repetition_penalty=3.0, do_sample=True, top_k=20)
    monkeypatch.setattr(policy, "generation_config", own_config)
    said = talk.say(talk.Policy("x", policy, tokenizer), messages, 0.0, 12)
    assert policy.generation_config is own_config
    sampling = Sampling(12, 0.0)
    ids = encode_prompts(tokenizer, [messages], 12, 64, "x")
    (own,) = generate(policy, tokenizer, ids, sampling, random_numbers(1, sampling, 0), 1)
    assert said == response_text(tokenizer, own)
    assert capsys.readouterr().out == visible(said) + "\n"


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("models/dpo", "models/dpo: no such directory; dvc repro makes"),
        ("models/empty", "models/empty: cannot be loaded as a language model: no config.json in it"),
        ("models/broken", "models/broken: cannot be loaded as a language model"),
        ("models/reward", "models/reward: a reward model, which gives no answers"),
        ("models/plain", "models/plain: its tokenizer has no chat template"),
    ],
)
def test_what_is_no_chat_model_is_told_in_one_line(project, monkeypatch, model, complaint):
    monkeypatch.chdir(project)
    with pytest.raises(SystemExit, match=complaint) as error:
        talk.load(model)
    assert "\n" not in str(error.value)


def test_the_command_ends_with_that_line(run):
    with pytest.raises(SystemExit, match="models/dpo: no such directory"):
        run("chat", "models/dpo")
    with pytest.raises(SystemExit, match="64 new tokens leave no room for a prompt"):
        run("chat", "models/sft", "--max-new-tokens", "64")


@pytest.mark.parametrize(
    "arguments",
    [["--n", "2"], ["--n", "0", "--temperature", "1"], ["--temperature", "-1"], ["--max-new-tokens", "0"]],
)
def test_options_that_make_no_sense_are_refused(run, arguments):
    with pytest.raises(SystemExit) as error:
        run("compare", "models/sft", "models/ppo", "x", *arguments)
    assert error.value.code == 2


def test_a_comparison_shows_both_answers_with_their_reward_and_length(run):
    options = ["--n", "2", "--temperature", "1", "--max-new-tokens", "12"]
    said = run("compare", "models/sft", "models/ppo", "Name the cat.", *options)
    head, rule = said.splitlines()[:2]
    assert [cell.strip() for cell in head.split(" | ")] == ["models/sft", "models/ppo"] and set(rule) == set("-+")
    assert said.count("(reward ") == 4 and "judge" not in said  # there is no models/judge
    assert "12 tokens, cut)" in said


def test_a_comparison_asks_for_prompts_that_are_not_given(run):
    typed = b"Name the cat.\nPaint the sky.\n"
    said = run("compare", "models/sft", "models/ppo", "--max-new-tokens", "4", typed=typed)
    assert said.count("prompt> ") == 3 and said.count("(reward ") == 4


def test_a_prompt_that_does_not_fit_is_told(run):
    with pytest.raises(SystemExit, match="models/sft: the prompt has .* tokens, and 48 fit beside the answer"):
        run("compare", "models/sft", "models/ppo", "cat " * 60, "--max-new-tokens", "16")


def test_columns_line_up_and_lines_are_wrapped_to_the_terminal():
    pair = (Answer("one two three " * 10, "9 tokens"), Answer("short\n\nlast", "3 tokens"))
    lines = talk.side_by_side(("a", "b"), [pair], 83).splitlines()
    assert max(map(len, lines)) <= 83 and {line.find("|") for line in lines if "|" in line} == {41}
    right = [line.partition("|")[2].strip() for line in lines[2:]]
    assert right[:4] == ["short", "", "last", "(3 tokens)"]
    left = " ".join(line.partition("|")[0].strip() for line in lines[2:])
    assert left.split() == ["one", "two", "three"] * 10 + ["(9", "tokens)"]


def test_a_narrow_terminal_shows_one_answer_after_the_other():
    text = talk.side_by_side(("a", "b"), [(Answer("one " * 30, "x"), Answer("", "y"))], 40)
    assert "|" not in text and max(map(len, text.splitlines())) <= 40
    assert text.startswith("a:\none one") and text.endswith("b:\n(empty)\n(y)")
