"""Stages run by hand: without validation rows through the whole graph, on rows that a template refuses, diverging."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from copied_project import ENV, copy_of_project, run
from project import DEMO, ROOT

from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import write_jsonl

VALIDATIONS = ("sft", "reward", "groups", "preference", "judge", "prompts")
POLICIES = ("sft", "ppo", "dpo")
STAGES = (
    *(("base",), ("sft",), ("negatives",), ("reward",), ("judge",), ("reference",), ("dpo",), ("ppo",)),
    *(("evaluate", policy) for policy in POLICIES),
    *(("best_of_n",), ("attainable",), ("attained",)),
    *(("measure", name) for name in (*POLICIES, "best_of_n")),
    *(("overoptimisation",), ("select", "ppo"), ("report",)),
)


def stage(folder, *name, check=True):
    return run(folder, sys.executable, "-m", f"stages.{name[0]}", *name[1:], check=check)


@pytest.mark.slow
def test_the_graph_goes_on_without_validation_rows(tmp_path):
    folder = copy_of_project(tmp_path)
    for name in ("inputs", "load", "prepare"):
        stage(folder, name)
    for name in VALIDATIONS:
        write_jsonl(folder / f"data/splits/{name}_validation.jsonl", [])
    said = {name: stage(folder, *name) for name in STAGES}
    for name in ("sft", "reward", "judge", "reference", "ppo"):
        assert f"{name}: no validation: data/splits/" in said[name,]
    for name, columns in (("sft", "step\teval_loss"), ("ppo", "step\teval_reward\teval_kl")):
        assert (folder / f"metrics/{name}/eval.tsv").read_text() == f"{columns}\n"
    summary = json.loads((folder / "metrics/sft/summary.json").read_text())["sft"]
    assert summary["validation_loss"] is None and summary["loss"] > 0
    assert len((folder / "metrics/overoptimisation.tsv").read_text().splitlines()) == 1
    assert (folder / "report/index.html").stat().st_size > 10_000


def alone(folder, name, **changes):
    """What stage `name` says in a folder that holds params and data alone, and its exit code."""
    params = yaml.safe_load(DEMO.read_text())
    for section, values in changes.items():
        params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copy(ROOT / "dvc.yaml", folder)
    for code in ("stages", "rlhf_lib"):
        (folder / code).symlink_to(ROOT / code)
    command = [sys.executable, "-m", f"stages.{name}"]
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr.strip().splitlines()[-1], done.stderr


@pytest.fixture
def own(tiny, tmp_path):
    """A model whose template takes no system message, beside SFT rows of which the second has one."""
    shutil.copytree(tiny.policy, tmp_path / "own")
    template = tmp_path / "own/chat_template.jinja"
    refusal = "{{ raise_exception('System role not supported') if messages[0].role == 'system' }}"
    template.write_text(refusal + template.read_text())
    question, answer = {"role": "user", "content": "Hi?"}, [{"role": "assistant", "content": "Yes."}]
    prompts = [[question], [{"role": "system", "content": "Be brief."}, question]]
    rows = [{"id": str(i), "prompt": prompt, "completion": answer} for i, prompt in enumerate(prompts)]
    write_jsonl(tmp_path / "data/splits/sft_train.jsonl", rows)
    write_json(tmp_path / "data/inputs/sft.json", {})
    return tmp_path


def test_base_tells_the_row_that_the_models_template_refuses(own):
    code, last, everything = alone(own, "base", base={"model_name_or_path": "./own"})
    assert code == 1 and "Traceback" not in everything
    assert last.startswith("data/splits/sft_train.jsonl: row 2: messages of the roles system, user: the chat template")
    assert "own refuses them: System role not supported" in last
    assert not (own / "models/base").exists()


def test_a_stage_that_diverges_exits_with_1_and_leaves_its_curve_alone(own, tiny):
    (own / "models").mkdir()
    shutil.copytree(tiny.policy, own / "models/base")
    question, answer = [{"role": "user", "content": "Hi?"}], [{"role": "assistant", "content": "Yes."}]
    rows = [{"id": str(i), "prompt": question, "completion": answer} for i in range(8)]
    for part in ("train", "validation"):
        write_jsonl(own / f"data/splits/sft_{part}.jsonl", rows)
    changes = {"learning_rate": 1000.0, "max_length": 64, "max_steps": 4, "logging_steps": 1, "save_steps": 1}
    code, last, everything = alone(own, "sft", sft={**changes, "max_grad_norm": 0.0})
    assert code == 1 and "Traceback" not in everything
    assert "sft: " in everything and "the training diverged, and no model was written; lower sft.learning_rate" in last
    assert not (own / "models/sft").exists()
    # the curve stays, to see how it diverged
    assert [path.name for path in (own / "metrics/sft").iterdir() if path.suffix != ".tsv"] == []
    assert (own / "metrics/sft/train.tsv").read_text().split("\n")[1].startswith("1\t")
    assert [*(own / "checkpoints/sft").iterdir()] == []
