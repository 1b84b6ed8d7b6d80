"""The whole graph with real DVC in a copy of the project, on the smoke preset.

Stages that `launch` starts are forks of a process that has imported PyTorch (tests/support/warm_launch.py).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from copied_project import ENV, commit, copy_of_project, executed, run
from project import ROOT
from standin_llm import StandInLLM
from warm_launch import LAUNCH, SOCKET, warm_launch

from rlhf_lib.common.rows import normalise, read_jsonl

ALL = ["load", "prepare", "base", "sft", "negatives", "reward", "judge", "reference", "dpo", "ppo"]
ALL += ["evaluate@sft", "evaluate@ppo", "evaluate@dpo", "best_of_n", "attainable", "attained"]
ALL += ["measure@sft", "measure@ppo", "measure@dpo", "measure@best_of_n"]
# which leave themselves out
ALL += ["candidates", "rft", "rft_random", "evaluate@rft", "evaluate@rft_random", "measure@rft", "measure@rft_random"]
ALL += ["kto", "evaluate@kto", "measure@kto"]
ALL += ["overoptimisation", "llm_judge", "select", "report"]
# for tests in which the report, on which nothing hangs, may run or not: it draws for seconds
BUT_REPORT = [stage for stage in ALL if stage != "report"]


@pytest.fixture(autouse=True, scope="module")
def warm() -> Iterator[None]:
    with warm_launch() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setitem(ENV, name, value)
        yield


@pytest.fixture(scope="module")
def project(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the graph has run once and the results are committed."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"), LAUNCH)
    assert set(executed(run(folder, "dvc", "repro"))) == set(ALL)
    commit(folder)
    return folder


@pytest.fixture
def clean(project: Path) -> Path:
    """The project as committed, with its outs."""
    run(project, "git", "checkout", "-q", "--force", "--", ".")
    run(project, "dvc", "checkout", "-q", "--force")
    return project


def test_every_stage_left_its_files(project: Path) -> None:
    for model in ("base", "sft", "reward", "judge", "ppo", "dpo"):
        names = {file.name for file in (project / "models" / model).iterdir()}
        assert "model.safetensors" in names
        assert not {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))}
    assert "PPO" in (project / "report/index.html").read_text()
    assert not list((project / "checkpoints").glob("*/*")), "checkpoints are removed on success"


def test_policies_have_the_same_metric_keys(project: Path) -> None:
    def keys(value: object) -> object:
        return {key: keys(item) for key, item in value.items()} if isinstance(value, dict) else None

    shapes = [keys(json.loads((project / f"metrics/eval/{p}.json").read_text())) for p in ("sft", "ppo", "dpo")]
    assert shapes[0] == shapes[1] == shapes[2]


def test_no_prompt_is_in_two_splits(project: Path) -> None:
    splits = {
        name: {normalise(row["prompt"]) for row in read_jsonl(project / f"data/splits/{name}.jsonl")}
        for name in (
            *(f"{part}_{half}" for part in ("sft", "prompts", "judge") for half in ("train", "validation")),
            "test",
        )
    }
    seen: set[str] = set()
    for prompts in splits.values():
        assert not seen & prompts
        seen |= prompts
    pairs = read_jsonl(project / "data/splits/preference_train.jsonl")
    assert {normalise(row["prompt"]) for row in pairs} <= splits["prompts_train"]


def test_a_second_run_executes_nothing(clean: Path) -> None:
    assert executed(run(clean, "dvc", "repro")) == []
    assert run(clean, "git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_dpo_param_reruns_dpo_and_what_hangs_on_it(clean: Path) -> None:
    params = clean / "params.yaml"
    text = params.read_text()
    params.write_text(re.sub(r"(\n  beta: )[\d.]+", r"\g<1>0.3", text, count=1))  # kto has another
    assert params.read_text() != text
    ran = executed(run(clean, "dvc", "repro", *BUT_REPORT))
    assert set(ran) <= {"dpo", "evaluate@dpo", "measure@dpo", "attained", "llm_judge"}
    assert {"dpo", "evaluate@dpo", "measure@dpo"} <= set(ran)


@pytest.mark.slow
def test_a_filter_that_leaves_the_sft_rows_as_they_were_trains_no_sft(clean: Path) -> None:
    params = clean / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("  min_score_gap: 1.0\n", "  min_score_gap: 2.5\n"))
    assert params.read_text() != text
    ran = executed(run(clean, "dvc", "repro", "reward", "dpo"))
    assert set(ran) == {"prepare", "negatives", "reward", "reference", "dpo"}


MEASURES = {name for name in ALL if name.startswith("measure@")}


@pytest.mark.parametrize(
    ("file", "must_run", "may_run"),
    [
        ("data/load/files.py", {"load"}, set()),
        pytest.param("report/page.py", {"report"}, set(), marks=pytest.mark.slow),
        pytest.param("measure/text_metrics.py", MEASURES, {"attained", "report"}, marks=pytest.mark.slow),
        pytest.param("plan/estimate.py", set(), set(), marks=pytest.mark.slow),
        pytest.param("plan/speed.py", set(), set(), marks=pytest.mark.slow),
        pytest.param("llm_judge/client.py", {"llm_judge"}, set(), marks=pytest.mark.slow),
        pytest.param("ppo/algos.py", {"ppo"}, {"attained"}, marks=pytest.mark.slow),
        pytest.param("sft/trainer.py", {"sft", "rft", "rft_random"}, set(), marks=pytest.mark.slow),
        pytest.param("dpo/trainer.py", {"dpo"}, {"reference"}, marks=pytest.mark.slow),
        pytest.param("reward/losses.py", {"reward", "judge"}, set(), marks=pytest.mark.slow),
    ],
)
def test_a_comment_in_the_code_reruns_the_stages_that_use_it(
    clean: Path, file: str, must_run: set[str], may_run: set[str]
) -> None:
    """And nothing below them: what they write is the same to the bit."""
    with (clean / "rlhf_lib" / file).open("a") as code:
        code.write("# a remark\n")
    ran = executed(run(clean, "dvc", "repro", *(BUT_REPORT if "report" in may_run else [])))
    assert must_run <= set(ran) <= must_run | may_run


def test_what_an_editor_leaves_behind_and_code_of_no_stage_rerun_nothing(clean: Path) -> None:
    with (clean / "rlhf_lib/plan/memory.py").open("a") as code:
        code.write("# a remark\n")
    files = [clean / "rlhf_lib/ppo" / name for name in (".algos.py.swp", "algos.py~", ".#algos.py", ".DS_Store")]
    for file in files:
        file.write_text("x")
    try:
        assert executed(run(clean, "dvc", "repro")) == []
    finally:
        for file in files:
            file.unlink()


def test_a_deleted_model_comes_back_without_training(clean: Path) -> None:
    weights = clean / "models/sft/model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(clean / "models/sft")
    assert executed(run(clean, "dvc", "repro")) == []
    assert weights.read_bytes() == before


def test_ppo_against_dpo_is_one_metrics_diff_away(clean: Path) -> None:
    for policy in ("ppo", "dpo"):
        ran = executed(run(clean, "dvc", "exp", "run", "-n", policy, "-S", f"policy={policy}"))
        assert set(ran) <= {"select"}
    compared = json.loads(run(clean, "dvc", "metrics", "diff", "ppo", "dpo", "--json"))
    assert set(compared) == {"metrics/policy.json"}
    assert "eval.kl" in compared["metrics/policy.json"]  # the untrained policies say the same, with other probabilities


def test_a_missing_policy_is_told_before_anything_runs(clean: Path) -> None:
    params = clean / "params.yaml"
    params.write_text(params.read_text().replace("policy: ppo", "policy: pop"))
    output = run(clean, sys.executable, "-m", "rlhf_lib.check", check=False).strip()
    assert output == "params.yaml: policy: no policy 'pop'; set it to one of sft, ppo, dpo, rft, rft_random, kto"


def test_plots_show_every_curve(clean: Path) -> None:
    plots = json.loads(run(clean, "dvc", "plots", "show", "--json"))
    stages = ("sft", "reward", "judge", "dpo", "ppo")
    wanted = {f"metrics/{stage}/{curve}.tsv" for stage in stages for curve in ("train", "eval")}
    wanted |= {f"metrics/{name}.tsv" for name in ("frontier", "overoptimisation", "attainable")}
    wanted |= {"Training loss", "PPO reward and KL"}
    left_out = ("metrics/rft", "metrics/kto")
    drawn = {name: plot for name, plot in plots["data"].items() if not name.startswith(left_out)}
    assert set(drawn) == wanted
    assert all(plot[0]["content"]["data"]["values"] for plot in drawn.values())
    assert not plots.get("errors")


@pytest.mark.slow
def test_an_edited_rubric_is_asked_by(clean: Path) -> None:
    rubric = clean / "mine.md"
    rubric.write_text("Prefer the kinder answer.\n")
    with StandInLLM() as server:
        settings = [LAUNCH, f"llm_judge.base_url={server.url}", "llm_judge.model=m", "llm_judge.rubric=mine.md"]
        run(clean, sys.executable, "-m", "rlhf_lib.preset", "smoke", *settings)
        assert executed(run(clean, "dvc", "repro", "llm_judge")) == ["llm_judge"]
        rubric.write_text("Prefer the shorter answer.\n")
        assert executed(run(clean, "dvc", "repro", "llm_judge")) == ["llm_judge"]
        assert "Prefer the shorter answer." in server.requests[-1]["messages"][0]["content"]
        rubric.write_text("Prefer the kinder answer.\n")
        assert executed(run(clean, "dvc", "repro", "llm_judge")) == []
    rubric.unlink()


@pytest.mark.slow
def test_an_edited_reward_function_trains_ppo_again(clean: Path) -> None:
    """And so does an edit of a module that it imports; another file of the project does not."""
    (clean / "rewards/mine.py").write_text("from helper import LIKED\n\n\n" + REWARD)
    (clean / "helper.py").write_text("LIKED = 'a'\n")
    (clean / "other.py").write_text("")
    run(clean, sys.executable, "-m", "rlhf_lib.preset", "smoke", LAUNCH, "ppo.reward_funcs=[rewards.mine:letters]")
    assert executed(run(clean, "dvc", "repro", "ppo")) == ["ppo"]
    (clean / "other.py").write_text("LIKED = 'z'\n")
    assert executed(run(clean, "dvc", "repro", "ppo")) == []
    (clean / "helper.py").write_text("LIKED = 'e'\n")
    assert executed(run(clean, "dvc", "repro", "ppo")) == ["ppo"]
    (clean / "helper.py").write_text("LIKED = 'a'\n")
    assert executed(run(clean, "dvc", "repro", "ppo")) == []
    for name in ("rewards/mine.py", "helper.py", "other.py"):
        (clean / name).unlink()


REWARD = """
def letters(completions, **columns):
    return [float(completion[0]["content"].count(LIKED)) for completion in completions]
"""


@pytest.mark.slow
def test_a_queued_sweep_runs_only_ppo_and_below(clean: Path) -> None:
    run(clean, "dvc", "exp", "run", "--queue", "-n", "kl", "-S", "ppo.kl_coef=0.05,0.5")
    output = run(clean, "dvc", "exp", "run", "--run-all", "-j", "1")
    shown = json.loads(run(clean, "dvc", "exp", "show", "--json"))
    names = {exp["name"]: exp["revs"][0]["data"] for rev in shown for exp in rev.get("experiments") or []}
    assert {"kl-1", "kl-2"} <= set(names), output
    for name, kl_coef in (("kl-1", 0.05), ("kl-2", 0.5)):
        assert names[name]["params"]["params.yaml"]["data"]["ppo"]["kl_coef"] == kl_coef
        assert "reward" in names[name]["metrics"]["metrics/policy.json"]["data"]["eval"]
        logs = run(clean, "dvc", "queue", "logs", name, check=False)
        below = {"evaluate@ppo", "measure@ppo", "attained", "overoptimisation", "llm_judge", "select", "report"}
        assert {"ppo", "evaluate@ppo", "measure@ppo"} <= set(executed(logs)) <= {"ppo"} | below, logs


@pytest.mark.slow
def test_two_copies_give_the_same_lock(project: Path, tmp_path: Path) -> None:
    other = copy_of_project(tmp_path, LAUNCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(ENV, SOCKET)  # by processes that begin anew
        run(other, "dvc", "repro")
    run(project, "git", "checkout", "-q", "--force", "--", ".")
    assert (other / "dvc.lock").read_text() == (project / "dvc.lock").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "../shared/data").is_dir(), reason="real rows are not beside the project")
def test_real_rows_go_through_the_graph(tmp_path: Path) -> None:
    folder = copy_of_project(tmp_path)
    path = (ROOT / "../shared/data/ultrafeedback_binarized_1k.jsonl").resolve()
    binarized = f"{{reader: ultrafeedback_binarized, path: '{path}', max_records: 300}}"
    settings = [f"load.sources=[{binarized}, {{reader: hh, path: '{path.with_name('hh_harmless_300.jsonl')}'}}]"]
    settings += ["prepare.min_score_gap=0.5", "base.n_positions=512", "sft.max_length=512", "reference.max_length=512"]
    settings += ["reward.max_length=512", "judge.max_length=512"]
    run(folder, sys.executable, "-m", "rlhf_lib.preset", "smoke", *settings)
    assert set(executed(run(folder, "dvc", "repro"))) == set(ALL)
    assert "gold" not in json.loads((folder / "metrics/eval/ppo.json").read_text())["t1"]
