"""What lm-evaluation-harness said, on the page."""

from __future__ import annotations

import pytest
from lm_eval_entries import entry
from report_project import PPO_MD5 as MD5
from report_project import make_project, run_report

from rlhf_lib.common.files import write_json
from rlhf_lib.report import capability, inputs


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path)
    monkeypatch.chdir(root)
    return root


def with_ppo(**entries):
    write_json("metrics/lm_eval.json", {"models/ppo": entries})
    return inputs.load()


def test_a_clear_fall_is_a_cost_and_an_interval_over_0_undecided(project):
    found = with_ppo(
        facts=entry(0.6, diff=-0.1, diff_se=0.03, model_md5=MD5),
        sums=entry(0.6, diff=-0.02, diff_se=0.03, model_md5=MD5),
        poems=entry(0.6, diff=0.2, diff_se=0.03, model_md5=MD5),
    )
    assert capability.sentences(found) == [
        "PPO: alignment cost capability. Against SFT: worse in facts acc −0.100 (−0.160 to −0.040); better in poems "
        "acc +0.200 (+0.140 to +0.260); undecided, for the interval covers 0, in sums acc −0.020 (−0.080 to +0.040)."
    ]


def test_without_a_clear_fall_there_is_no_clear_cost(project):
    (told,) = capability.sentences(with_ppo(sums=entry(0.6, diff=-0.02, diff_se=0.03, model_md5=MD5)))
    assert told.startswith("PPO: no clear cost of capability. Against SFT: undecided")


def test_less_perplexity_is_better(project):
    lower = {"higher_is_better": {"acc": False}, "model_md5": MD5}
    (told,) = capability.sentences(with_ppo(text=entry(4.0, diff=0.5, diff_se=0.1, **lower)))
    assert "worse in text acc +0.500" in told
    assert capability.task_tables(inputs.load())[0][2].columns[0].heading == "acc ↓"


def test_tasks_of_a_group_are_not_told_beside_it(project):
    one = entry(0.6, diff=-0.1, model_md5=MD5)
    (told,) = capability.sentences(with_ppo(group=one, part=entry(0.6, diff=-0.1, model_md5=MD5, part_of="group")))
    assert "group acc" in told and "part acc" not in told


def test_few_documents_are_told(project):
    (told,) = capability.sentences(with_ppo(facts=entry(0.6, diff=-0.1, model_md5=MD5, n=7)))
    assert "(n = 7: too few to tell)" in told


def test_numbers_of_a_model_that_was_trained_anew_are_left_out(project):
    found = with_ppo(facts=entry(0.6, diff=-0.1, model_md5="another.dir"))
    assert capability.sentences(found) == [] and capability.task_tables(found) == []
    assert capability.stale(found).endswith("left out here: PPO.")


@pytest.mark.parametrize(
    ("md5", "shown"),
    [(MD5, "PPO: alignment cost capability"), ("another.dir", "left out here: PPO"), (None, "")],
)
def test_the_page_has_the_section(project, md5, shown):
    (project / "metrics/lm_eval.json").unlink()
    if md5:
        with_ppo(facts=entry(0.6, diff=-0.1, diff_se=0.03, model_md5=md5))
    assert run_report(project).returncode == 0
    page = (project / "report/index.html").read_text(encoding="utf-8")
    section = page.partition('<section id="capability">')[2].partition("</section>")[0]
    assert shown in section
    assert ("0-shot" in section) is (md5 == MD5) and bool(section) is ('href="#capability"' in page) is bool(md5)
