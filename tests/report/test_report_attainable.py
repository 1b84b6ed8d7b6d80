"""What could be reached, on the page: the curve, the tables, and the sentence that says who is to blame."""

from __future__ import annotations

import pytest
from report_project import make_project, run_report

from rlhf_lib.common.files import write_curve, write_json
from rlhf_lib.report import attainable, figures, inputs

SFT = {"score": 0.0, "score_se": 0.1, "gold": 0.5, "gold_se": 0.01}
PPO = {
    **{"kl": 0.7, "kl_se": 0.1, "objective": 0.5, "objective_se": 0.1, "objective_share": 0.625, "score": 0.64},
    **{"objective_share_se": 0.05, "score_share": 0.8, "score_share_se": 0.04, "score_at_kl": 0.8, "beta_at_kl": 0.4},
    **{"score_gap": 0.16, "score_gap_se": 0.04, "gold_gap": 0.1, "gold_gap_se": 0.02},
}
FOUND = {
    **{"n": 160, "prompts": 40, "beta": 0.2, "ess": 34.6, "ess_se": 3.1, "low_ess": 0.425, "objective": 0.8},
    **{"objective_se": 0.07, "score": 1.0, "score_se": 0.07, "kl": 1.0, "kl_se": 0.1, "sft": SFT},
    "policies": {"ppo": PPO, "dpo": {"kl": 40.0, "objective": -7.5, "objective_share": -9.0}},
}
CURVE = [
    {"kl": kl, "beta": 1 / kl, "score": gain, "reward_gain": gain, "reward_gain_se": 0.02, "gold_gain": gain / 5}
    for kl, gain in ((0.1, 0.2), (1.0, 0.9), (5.0, 1.5), (90.0, 2.0), (400.0, 2.5))
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path)
    monkeypatch.chdir(root)
    write_json("metrics/attainable.json", {"attainable": FOUND})
    write_curve("metrics/attainable.tsv", CURVE, ["kl", "score"])
    return root


def with_ppo(**changes):
    write_json("metrics/attainable.json", {"attainable": {**FOUND, "policies": {"ppo": {**PPO, **changes}}}})
    return inputs.load()


def test_the_curve_starts_at_sft_and_ends_past_what_is_shown(project):
    found = inputs.load()
    sft = found.measured("sft")["reward"]
    expected = [(0.0, sft, 0.0), (0.1, sft + 0.2, 0.02), (1.0, sft + 0.9, 0.02), (5.0, sft + 1.5, 0.02)]
    assert attainable.points(found, "reward", 2.0) == [pytest.approx(point) for point in expected]
    assert attainable.points(found, "reward", 0.05)[-1][0] == 0.1
    assert attainable.points(found, "judge", 2.0) == []  # nothing is known of it


def test_the_curve_is_of_the_temperature_that_is_shown(project):
    found = inputs.load()
    found.params["ppo"]["temperature"] = 0.7
    assert attainable.points(found, "reward", 2.0) == []


def test_the_tables_say_what_each_policy_got(project):
    objective, shares = attainable.objective_table(inputs.load()), attainable.share_table(inputs.load())
    assert [row.name for row in objective.rows] == ["attainable", "SFT", "PPO", "DPO"]
    cells = {
        row.name: dict(zip([c.key for c in objective.columns], map(str, row.cells), strict=True))
        for row in objective.rows
    }
    assert cells["attainable"]["objective"] == "0.800 ± 0.070" and cells["attainable"]["ess"] == "35 ± 3"
    assert cells["SFT"]["objective"] == "0.000 ± 0.100" and cells["SFT"]["objective_share"] == "–"
    assert cells["PPO"]["objective_share"] == "0.62 ± 0.05"
    # DPO is further than the answers tell
    assert [row.name for row in shares.rows] == ["PPO"]
    assert str(shares.rows[0].cells[3]) == "0.80 ± 0.04"


@pytest.mark.parametrize(
    ("changes", "blamed", "words"),
    [
        ({}, "The optimiser is to blame", "has +0.160 ± 0.040 more, and +0.100 ± 0.020 more in true quality"),
        (
            {"gold_gap": 0.01},
            "Undecided between optimiser and reward model",
            "no clear difference in true quality (+0.010 ± 0.020): whether to optimise",
        ),
        ({"gold_gap": -0.1}, "The reward model is to blame", "but is worse in true quality (−0.100 ± 0.020)"),
        ({"score_gap": 0.05}, "No clear fault of the optimiser", "differs by +0.100 ± 0.020 in true quality"),
        ({"score_gap": -0.16}, "No clear fault of the optimiser", "0.800 ± 0.040 of the gain in reward"),
    ],
)
def test_who_is_to_blame(project, changes, blamed, words):
    told = attainable.blame(with_ppo(**changes))
    assert told.startswith(f"{blamed}: ") and words in told


def test_on_few_prompts_nobody_is_to_blame(project):
    write_json("metrics/attainable.json", {"attainable": {**FOUND, "prompts": 29}})
    assert attainable.blame(inputs.load()) == (
        "What limits PPO is not known (n = 29: too few to tell): PPO got 0.800 ± 0.040 of the gain in reward that is "
        "attainable at its KL."
    )


def test_nobody_is_to_blame_for_what_is_not_known(project):
    for missing in ("score_gap", "gold_gap"):
        of_ppo = {key: value for key, value in PPO.items() if key != missing}
        write_json("metrics/attainable.json", {"attainable": {**FOUND, "policies": {"ppo": of_ppo}}})
        assert attainable.blame(inputs.load()) == ""


@pytest.mark.parametrize(
    ("low_ess", "told"), [(0.425, "size of 35. On 42% of the prompts it is below 30."), (0.0, "size of 35.")]
)
def test_what_it_rests_on(project, low_ess, told):
    write_json("metrics/attainable.json", {"attainable": {**FOUND, "low_ess": low_ess}})
    assert attainable.doubt(inputs.load()) == (
        "Estimated from 160 answers of SFT to each of 40 test prompts, weighted by exp(reward / 0.2): "
        f"an effective sample {told}"
    )


@pytest.mark.slow
def test_the_page_shows_it_and_a_page_without_it_says_so(project):
    assert run_report(project).returncode == 0
    page = (project / "report/index.html").read_text()
    assert (
        "The optimiser is to blame: PPO got 0.800 ± 0.040" in page and "On 42% of the prompts it is below 30." in page
    )
    assert "an effective sample size of 35" in page and "╌" in page
    assert all("The broken line" in panel.description for panel in figures.frontier(inputs.load()))
    write_json(project / "metrics/attainable.json", {"left_out": "no source gives preferences"})
    assert run_report(project).returncode == 0
    page = (project / "report/index.html").read_text()
    assert "What is attainable: left out: no source gives preferences." in page
    (project / "metrics/attainable.json").unlink()
    assert run_report(project).returncode == 0
    assert (
        "What is attainable: not run yet. <code>dvc repro attained</code>"
        in (project / "report/index.html").read_text()
    )
