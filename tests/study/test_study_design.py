"""study.yaml: what it may hold, and what experiments come of it."""

import shutil
import subprocess

import pytest
from dvc.utils.hydra import to_hydra_overrides
from project import DEMO, ROOT

from rlhf_lib.common.files import write_json
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.study import design
from rlhf_lib.study.__main__ import check_criterion

HEAD = "criterion: judge\nseeds: [0, 1]\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(project, text):
    (project / "study.yaml").write_text(text)
    return design.read()


def test_the_study_that_ships_is_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = design.read()
    runs = list(study.runs("test"))
    assert len(runs) == len({run.name for run in runs}) == len(study.seeds) * sum(map(len, study.settings.values()))


def test_an_experiment_sets_what_it_says(project):
    text = f"{HEAD}methods: {{dpo: [{{beta: 0.05, loss_type: [sigmoid, sft], learning_rate: 1.0e-3}}]}}"
    run = next(read(project, text).runs("validation"))
    assert run.name == "study-dpo-beta0.05-loss_type_sigmoid_sft-learning_rate0.001-seed0-validation"
    found = {override.key_or_group: override.value() for override in to_hydra_overrides(run.overrides(0.7))}
    assert found == {
        "policy": "dpo",
        "methods.dpo": True,
        "dpo.beta": 0.05,
        "dpo.loss_type": ["sigmoid", "sft"],
        "dpo.learning_rate": 1e-3,
        "dpo.seed": 0,
        "evaluate.split": "prompts_validation",
        "evaluate.temperatures": [0.7],
    }


@pytest.mark.parametrize(
    "settings",
    [
        "{reward_funcs: ['models/reward', 'rewards.examples:brevity']}, {reward_funcs: ['models/reward']}",
        "{stop_strings: ['!']}, {stop_strings: ['?']}, {stop_strings: ['...']}, {stop_strings: ['é']}",
        f"{{stop_strings: ['{'x' * 300}']}}, {{stop_strings: ['{'x' * 299}y']}}",
    ],
)
def test_names_are_names_of_git_and_of_no_two_settings_the_same(project, settings):
    study = read(project, f"{HEAD}methods: {{ppo: [{settings}]}}")
    names = {run.name for run in study.runs("validation")}
    assert len(names) == 2 * len(study.settings["ppo"])
    for name in names:
        assert len(f"{name}.log") < 256 and name.isascii()
        subprocess.run(["git", "check-ref-format", f"refs/exps/{name}"], check=True)


def test_methods_take_turns_so_that_a_part_of_a_study_compares(project):
    text = f"{HEAD}methods: {{ppo: [{{kl_coef: 0.1}}, {{kl_coef: 0.2}}], dpo: [{{beta: 0.1}}, {{beta: 0.2}}]}}"
    runs = list(read(project, text).runs("test"))
    assert [(run.setting.method, run.seed) for run in runs[:5]] == [*[("ppo", 0), ("dpo", 0)] * 2, ("ppo", 1)]


def test_a_criterion_that_the_answers_lack_is_told_before_anything_runs(project):
    study = read(project, f"{HEAD}methods: {{ppo: [{{kl_coef: 0.1}}]}}")
    write_json("metrics/eval/sft.json", {"t1": {"reward": 1.0, "gold": 0.5}})
    with pytest.raises(SystemExit, match="study.yaml: criterion: metrics/eval/sft.json has no judge; it has: gold, re"):
        check_criterion(study, "t1")
    write_json("metrics/eval/sft.json", {"t1": {"judge": 1.0}})
    check_criterion(study, "t1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("criterion: judge\nseeds: [0]\nmethods: {ppo: [{kl_coef: 0.1}]}", "study.yaml: seeds: at least two different"),
        ("criterion: judge\nseeds: [1, 1, 2]\nmethods: {ppo: [{kl_coef: 0.1}]}", "study.yaml: seeds: at least two"),
        ("criterion: length\nseeds: [0, 1]\nmethods: {ppo: [{kl_coef: 0.1}]}", "study.criterion: must be one of judge"),
        ("seeds: [0, 1]\nmethods: {ppo: [{kl_coef: 0.1}]}", "study.criterion: missing"),
        (f"{HEAD}seed: 3\nmethods: {{ppo: [{{kl_coef: 0.1}}]}}", "study.seed: unknown key; did you mean study.seeds"),
        (HEAD, "study.yaml: methods: must be a mapping of methods to lists of settings, got None"),
        (f"{HEAD}methods: [ppo]", "study.yaml: methods: must be a mapping"),
        (f"{HEAD}methods: {{sft: [{{seed: 1}}]}}", "methods.sft: no such method; there are: ppo, dpo"),
        (f"{HEAD}methods: {{ppo: {{kl_coef: 0.1}}}}", "methods.ppo: must be a list of settings"),
        (f"{HEAD}methods: {{ppo: []}}", "methods.ppo: must be a list of settings"),
        (f"{HEAD}methods: {{ppo: [0.1]}}", r"methods.ppo\[0\]: must be a mapping of params to values, got 0.1"),
        (f"{HEAD}methods: {{ppo: [{{seed: 1}}]}}", r"methods.ppo\[0\].seed: the study sets it"),
        (f"{HEAD}methods: {{ppo: [{{kl_coef: -1}}]}}", "study.yaml: ppo.kl_coef: must be at least 0, got -1"),
        (f"{HEAD}methods: {{ppo: [{{kl_coeff: 1}}]}}", "ppo.kl_coeff: unknown key; did you mean ppo.kl_coef"),
        (f"{HEAD}methods: {{ppo: [{{kl_coef: 1}}, {{kl_coef: 1.0}}]}}", r"methods.ppo\[1\]: the same setting twice"),
        (f"{HEAD}methods: {{ppo: [{{kl_coef: 1}}], dpo: [{{beta: 1}}, {{beta: 2}}]}}", "got ppo 1, dpo 2"),
    ],
)
def test_what_cannot_be_compared_is_one_line(project, text, told):
    with pytest.raises(ParamsError, match=told) as error:
        read(project, text)
    assert "\n" not in str(error.value)
