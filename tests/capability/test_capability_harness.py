"""The library itself, on a tiny model, where it is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from rlhf_lib.capability.harness import Options, asked
from rlhf_lib.common.files import write_json
from rlhf_lib.demo.grammar import find_task

EXAMPLES = ROOT / "examples/lm_eval"
IS_THERE = not subprocess.run([sys.executable, "-c", "import lm_eval"], capture_output=True).returncode
needs_library = pytest.mark.skipif(not IS_THERE, reason="lm-evaluation-harness is not installed")


def lines(name):
    return [json.loads(line) for line in (EXAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["demo_facts", "demo_content"])
def test_the_examples_ask_in_words_that_training_never_has_and_know_the_answer(name):
    from rlhf_lib.demo.vocabulary import FACTS

    rows = lines(name)
    assert len(rows) == 120 and len({row["question"] for row in rows}) == 120
    answers = {answer.casefold() for table in FACTS.values() for answer in table.values()}
    for row in rows:
        assert find_task(row["question"]) is None and len(set(row["choices"])) == len(row["choices"])
        said = [choice.rstrip(".").split()[-1].casefold() for choice in row["choices"]]
        assert set(said) <= answers and len(set(said)) == len(said)
        known = [(x, a) for table in FACTS.values() for x, a in table.items() if a.casefold() == said[row["answer"]]]
        assert any(f" {x.casefold()}" in f" {row['question'].casefold()}" for x, _ in known), row


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlhf_lib.capability", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def project(tmp_path, tiny):
    """A folder with two models, which are one, and a task."""
    for name in ("sft", "ppo"):
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / name).symlink_to(tiny.policy)
    (tmp_path / "tasks").mkdir()
    task = (EXAMPLES / "demo_facts.yaml").read_text().replace("examples/lm_eval/demo_facts.jsonl", "tasks/few.jsonl")
    (tmp_path / "tasks/few.yaml").write_text(task.replace("task: demo_facts", "task: few"))
    (tmp_path / "tasks/few.jsonl").write_text("\n".join(map(json.dumps, lines("demo_facts")[:5])))
    return tmp_path


def by_hand(tiny, row):
    """The choice of the highest log-likelihood behind the templated question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny.policy), AutoTokenizer.from_pretrained(tiny.policy)
    asked = [{"role": "user", "content": row["question"]}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    found = []
    for choice in row["choices"]:
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        found.append(sum(logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids)))
    return found


@needs_library
def test_it_says_what_the_model_says(project, tiny):
    done = run(project, "--tasks", "few", "--include_path", "tasks", "--batch_size", "3")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| few " in done.stdout and "PPO against SFT: " in done.stdout
    found = json.loads((project / "metrics/lm_eval.json").read_text())
    rows = [json.loads(line) for line in (project / "data/lm_eval/models_sft/few.jsonl").read_text().splitlines()]
    expected = [by_hand(tiny, row) for row in lines("demo_facts")[:5]]
    for row, logprobs in zip(rows, expected, strict=True):
        assert [said for said, _ in row["resps"]] == pytest.approx(logprobs, abs=1e-3)
    right = [
        max(range(10), key=e.__getitem__) == r["answer"] for e, r in zip(expected, lines("demo_facts"), strict=False)
    ]
    assert found["models/sft"]["few"]["acc"] == pytest.approx(sum(right) / 5)
    assert found["models/ppo"]["few"]["acc_diff"] == 0 and found["models/ppo"]["few"]["about"][0]["paired"]

    before = (project / "metrics/lm_eval.json").read_bytes()
    assert run(project, "models/ppo,models/sft", "--tasks", "few", "--include_path", "tasks").returncode == 0
    assert json.loads(before) == json.loads((project / "metrics/lm_eval.json").read_text())
    write_json(project / "copy.json", json.loads(before))
    assert (project / "copy.json").read_bytes() == before  # sorted, six digits


@needs_library
def test_what_is_asked_otherwise_replaces_nothing(project):
    few = ["--tasks", "few", "--include_path", "tasks"]
    (project / "models/base").symlink_to((project / "models/sft").resolve())
    (project / "params.yaml").write_text("base: {model_name_or_path: null}\n")
    done = run(project, *few)
    assert "SFT cannot do it: left out few acc (no better than models/base)" in done.stdout, done.stderr[-2000:]
    assert "before training against SFT" not in done.stdout
    before = (project / "metrics/lm_eval.json").read_bytes()
    found = json.loads(before)
    assert found["models/base"]["few"]["about"][0]["fresh"] and found["models/sft"]["few"]["about"][0]["chance"] == 0.1

    trial = run(project, "models/ppo", "--limit", "2", *few)
    assert (project / "metrics/lm_eval.json").read_bytes() == before
    assert "PPO, few, limit 2: not compared with SFT, which was not asked this." in trial.stdout
    assert "2 documents" in trial.stdout and "5 documents" not in trial.stdout
    assert "data/lm_eval/trials.json" in trial.stdout and (project / "data/lm_eval/trials.json").is_file()

    assert run(project, "models/sft", "--num_fewshot", "1", *few).returncode == 0
    after = json.loads((project / "metrics/lm_eval.json").read_text())
    assert after["models/sft"].keys() == {"few", "few, 1-shot"} and after["models/ppo"] == found["models/ppo"]


def test_an_entry_is_named_by_what_was_asked():
    found = {"n-shot": {"task": 0, "other": 5}}
    assert asked(found, "task", Options()) == "task" and asked(found, "other", Options()) == "other, 5-shot"
    assert asked(found, "group", Options(num_fewshot=2, limit=0.5)) == "group, 2-shot, limit 0.5"
    assert asked(found, "task", Options(apply_chat_template=False)) == "task, no chat template"


@needs_library
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tasks", "fewer", "--include_path", "tasks"], "no task fewer: did you mean few"),
        (["--tasks", "hub", "--include_path", "tasks"], "--online (make lm-eval ONLINE=1) lets it download"),
        (["--tasks", "broken", "--include_path", "tasks"], "task broken cannot be loaded"),
        (["models/none"], "models/none: no such directory"),
        (["models/sft,models/kto", "--tasks", "few", "--include_path", "tasks"], "models/kto: no model in it: is off"),
        (["models/reward", "--tasks", "no_such_task"], "models/reward: a reward model, which gives no answers"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(project, tiny, arguments, told):
    (project / "tasks/hub.yaml").write_text("task: hub\ndataset_path: owner/name\ntest_split: test\ndoc_to_text: a\n")
    (project / "tasks/broken.yaml").write_text("task: broken\ndataset_path: json\ndataset_kwargs: {data_files: no}\n")
    (project / "models/reward").symlink_to(tiny.reward)
    (project / "models/kto").mkdir()
    (project / "models/kto/left_out.txt").write_text("is off\n")
    done = run(project, *arguments)
    said = done.stderr.strip().splitlines()
    assert done.returncode == 1 and told in said[-1] and "Traceback" not in done.stderr, done.stderr
    assert not (project / "metrics").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--limit", "0"], ["--limit", "-1"], ["--num_fewshot", "-1"], ["--batch_size", "none"], ["--tasks", ","]],
)
def test_options_are_checked_before_anything_loads(tmp_path, arguments):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.skipif(IS_THERE, reason="the library is installed")
def test_without_the_library_one_line_says_how_to_get_it(tmp_path):
    done = run(tmp_path, "models/sft")
    assert done.returncode == 1 and "pip install -r requirements-lm-eval.txt" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
