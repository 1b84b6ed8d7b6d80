"""What lm-evaluation-harness said, on the page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lm_eval_entries import entry
from report_project import PPO_MD5 as MD5
from report_project import make_project, run_report

from rlhf_lib.common.files import write_json
from rlhf_lib.report import capability, inputs

SFT_MD5 = "another.dir"


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path)
    monkeypatch.chdir(root)
    return root


def with_ppo(**entries):
    write_json("metrics/lm_eval.json", {"models/ppo": entries})
    return inputs.load()


def test_a_clear_fall_is_told_as_worse_and_an_interval_over_0_as_undecided(project):
    found = with_ppo(
        facts=entry(0.6, diff=-0.1, diff_se=0.03, model_md5=MD5),
        sums=entry(0.6, diff=-0.02, diff_se=0.03, model_md5=MD5),
        poems=entry(0.6, diff=0.2, diff_se=0.03, model_md5=MD5),
    )
    assert capability.sentences(found) == [
        "PPO against SFT: worse in facts acc −0.100 (−0.160 to −0.040); better in poems acc +0.200 (+0.140 to +0.260); "
        "undecided in sums acc −0.020 (−0.080 to +0.040)."
    ]


def test_more_comparisons_ask_for_more_evidence(project):
    one = entry(0.6, diff=-0.05, diff_se=0.02, model_md5=MD5)  # 2.5 standard errors: p = 0.012
    assert capability.sentences(with_ppo(facts=one))[0].startswith("PPO against SFT: worse in facts")
    others = {f"task_{i}": entry(0.6, diff=0.0, diff_se=0.02, model_md5=MD5) for i in range(4)}
    assert capability.sentences(with_ppo(facts=one, **others))[0].startswith("PPO against SFT: undecided in facts")


def against(sft, base=None):
    """What is told of a policy that is far below this SFT model."""
    known = {"facts": entry(0.1, diff=-0.3, diff_se=0.01)}
    return capability.sentence("PPO", known, {"facts": sft}, {"facts": base} if base else {})


@pytest.mark.parametrize(
    ("sft", "base", "floor"),
    [
        (entry(0.6), entry(0.1, diff=-0.5, fresh=True), None),
        (entry(0.6), entry(0.59, diff=-0.01, fresh=True), "models/base"),
        (entry(0.6), entry(0.9, diff=0.3, fresh=True), "models/base"),  # clearly other, and better
        (entry(0.6), entry(0.6, diff=0.0, diff_se=None, fresh=True), None),  # of a single document nothing is known
        (entry(0.28, se=None, chance=0.25), None, None),
        (entry(0.6), entry(0.9, diff=0.3, fresh=False), None),  # trained elsewhere: what it can do, so can SFT
        (entry(0.6, chance=0.25), None, None),
        (entry(0.28, chance=0.25), entry(0.1, diff=-0.5, fresh=True), "chance"),
        (entry(0.1, chance=0.25), None, "chance"),
    ],
)
def test_what_sft_cannot_do_is_left_out(sft, base, floor):
    told = against(sft, base)
    if floor is None:
        assert told.startswith("PPO against SFT: worse in facts acc")
    else:
        assert told == f"PPO against SFT: SFT cannot do it: left out facts acc (no better than {floor})."


def test_the_model_before_training_has_a_row_and_no_verdict():
    known = {"models/base": {"facts": entry(0.1, diff=-0.5)}, "models/sft": {"facts": entry(0.6)}}
    told = capability.text(known, ["models/base", "models/sft"])
    assert "−0.500" in told and "against SFT" not in told


def test_what_was_asked_otherwise_has_its_own_table_and_is_said_not_to_be_compared(project):
    other = entry(0.5, model_md5=MD5, n=20, documents="e")
    write_json(
        "metrics/lm_eval.json", {"models/sft": {"facts": entry(0.6, model_md5=SFT_MD5)}, "models/ppo": {"facts": other}}
    )
    found = inputs.load()
    found = replace(found, hashes=[*found.hashes, ("sft", "models/sft", SFT_MD5)])
    assert capability.sentences(found) == ["PPO, facts: not compared with SFT, for they differ in documents, n."]
    tables = [(asked, [row.name for row in made.rows]) for _, asked, made in capability.task_tables(found)]
    assert tables == [("100 documents, 0-shot", ["SFT"]), ("20 documents, 0-shot (n = 20: too few to tell)", ["PPO"])]


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"n": 1000}, "1,000 documents, 0-shot"),
        ({"n_shot": 5, "limit": 0.25}, "100 documents, 5-shot, limit 0.25"),
        (
            {"n": 1, "apply_chat_template": False},
            "1 document, 0-shot, without the chat template (n = 1: too few to tell)",
        ),
    ],
)
def test_how_a_task_was_asked(settings, asked):
    assert capability.asking(entry(0.5, **settings)) == asked


def test_differences_that_are_not_paired_are_told(project):
    told = capability.sentences(with_ppo(facts=entry(0.6, diff=-0.1, model_md5=MD5, paired=False)))
    assert told[1:] == ["PPO, facts: the errors of differences from SFT are not paired by document."]


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
    [
        (MD5, "PPO against SFT: worse in facts acc"),
        pytest.param("another.dir", "left out here: PPO", marks=pytest.mark.slow),
        (None, ""),
    ],
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
