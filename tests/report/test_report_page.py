"""The report's page as a file: what is in it, that it asks for nothing, that it is the same when made again."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from report_project import NASTY_SHOWN, make_nasty, make_project, run_report

from rlhf_lib.common.policies import TRAINERS
from rlhf_lib.common.terminal import visible
from rlhf_lib.report import drawing, figures, inputs, page, samples
from rlhf_lib.report.drawing import COLOURS, svg


class Elements(HTMLParser):
    """Every element's tag and attributes, and the text of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    handle_startendtag = handle_starttag

    def values(self, attribute):
        return [attributes[attribute] for _, attributes in self.found if attribute in attributes]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose report the stage has written."""
    root = make_nasty(make_project(tmp_path_factory.mktemp("project"), prompts=31))  # one lacks its true quality
    done = run_report(root, "--open")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "report/index.html\n")
    return root


@pytest.fixture(scope="module")
def text(project):
    return (project / "report/index.html").read_text(encoding="utf-8")


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="samples-data">(.*?)</script>', text)[1])


def test_the_stage_writes_the_page_the_pictures_and_the_comparison(project):
    pictures = ["curves.png", "frontier.png", "overoptimisation.png", "policies.png"]
    assert sorted(file.name for file in (project / "report").iterdir()) == sorted([*pictures, "index.html"])
    for picture in pictures:
        content = (project / "report" / picture).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 5000
    assert {*json.loads((project / "metrics/comparison.json").read_text())} == {"t1", "t0_7", "greedy"}


def test_the_reward_model_and_the_judge_agree_on_pairs_of_one_prompt(project, monkeypatch):
    monkeypatch.chdir(project)
    rewards = {"reward": {"a": [1, 2, 3], "b": [0, 1], "c": [0, 1]}, "judge": {"a": [1, 3, 2], "b": [1, 0]}}
    scores = {
        name: [
            {"id": prompt, "response": number, "reward": reward}
            for prompt, of_prompt in by_prompt.items()
            for number, reward in enumerate(of_prompt)
        ]
        for name, by_prompt in rewards.items()
    }
    said = page.agreement(dataclasses.replace(inputs.load(), scores=scores))  # a: 2 of 3; b: 0 of 1
    assert said == "The two order 50.0% of 4 pairs of answers alike."


def test_the_same_files_give_the_same_page_and_pictures(project, text, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    again = inputs.load()
    assert page.render(again, again.params["report"]["max_prompts"]) == text
    panels = figures.frontier(again)
    drawing.png(panels, len(panels), tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (project / "report/frontier.png").read_bytes()


def test_the_page_asks_for_nothing(text):
    elements = Elements(text)
    policy = next(a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert not elements.values("src")
    assert {link for link in elements.values("href") if not link.startswith("#")} == {"data:,"}
    assert not re.search(r"@import|url\((?!#)", text)


def test_every_id_stands_once_and_every_link_has_a_place(text):
    elements = Elements(text)
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    targets = elements.values("href") + elements.values("xlink:href")
    assert {link[1:] for link in targets if link.startswith("#")} <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


def test_the_sections_come_in_order(text):
    names = [a["id"] for tag, a in Elements(text).found if tag == "section" and "id" in a]
    assert names == [*page.SECTIONS]


def test_the_page_says_what_was_measured(project, text, monkeypatch):
    monkeypatch.chdir(project)
    measured = inputs.load().measured("ppo")
    assert f'<td>{measured["gold"]:.3f}<span class="se">± {measured["gold_se"]:.3f}</span></td>' in text
    for words in (
        "PPO did better than DPO: true quality is",
        "the policy over-optimised the reward",
        "rows were read, 4,600 kept",
        "fedcba9876543210fedcba9876543210.dir",
        "<code>5160</code>",  # a param
        'no-such-library</th><td class="text">not installed',
        "PPO against DPO",
        "600 requests, 123,456 tokens of prompts, 1,200 of verdicts, a cost of 0.0193.",
    ):
        assert words in text, words


def test_the_page_says_what_the_model_is(text):
    assert "qwen2: 24 layers (model.layers)" in text and "32,768 tokens" in text
    assert "&lt;|im_end|&gt; or &lt;|endoftext|&gt;" in text


def test_pictures_have_the_colours_of_the_page_and_words(project, monkeypatch):
    monkeypatch.chdir(project)
    (panel, *_) = figures.frontier(inputs.load())
    drawn = str(svg(panel))
    assert not re.search(r"#[0-9a-fA-F]{6}\b", drawn), "a colour that no theme changes"
    assert {"--sft", "--ppo", "--dpo", "--best_of_n"} <= set(re.findall(r"var\((--\w+)\)", drawn))
    assert drawn.startswith("<svg viewBox=") and f'aria-label="{panel.title}. ' in drawn
    assert "<metadata" not in drawn and "<style" not in drawn and "font-family" not in drawn


def test_no_two_names_share_a_colour_but_ppo_and_its_reward():
    assert len(set(COLOURS.values())) == len(COLOURS) - 1 and COLOURS["ppo"] == COLOURS["reward"]


def test_texts_are_data_and_never_page(text):
    data = data_of(text)
    card = next(card for card in data["prompts"] if card["prompt"][-1][1] == NASTY_SHOWN)
    assert visible(text) == text
    assert card["answers"]["t1"]["ppo"]["text"] == NASTY_SHOWN and card["prompt"][0] == ["system", "Be <i>brief</i>."]
    assert "<img" not in text and "\u2028" not in text


def test_the_browser_has_the_first_answers_and_the_chosen_one(project, text, monkeypatch):
    monkeypatch.chdir(project)
    data, found = data_of(text), inputs.load()
    assert [card["id"] for card in data["prompts"]] == sorted({s["id"] for s in found.drawn("sft")})
    card = data["prompts"][3]
    (sample,) = [s for s in found.drawn("dpo", "t0_7") if s["id"] == card["id"] and s["draw"] == 0]
    shown = card["answers"]["t0_7"]["dpo"]
    assert shown["text"] == sample["response"] and shown["reward"] == pytest.approx(sample["reward"], abs=1e-4)
    assert shown["kl"] == pytest.approx(sample["logprob"] - sample["ref_logprob"], abs=1e-4)
    (chosen,) = [s for s in found.chosen() if s["id"] == card["id"]]
    assert card["chosen"]["text"] == chosen["response"]


def test_the_browser_takes_no_more_prompts_than_it_may(project, monkeypatch):
    monkeypatch.chdir(project)
    data = samples.browser_data(inputs.load(), max_prompts=7)
    assert len(data["prompts"]) == 7 and data["total"] == 31


@pytest.mark.parametrize("policies", [("sft", "dpo"), ("sft",), ()])
def test_what_has_not_been_run_is_said(tmp_path, monkeypatch, policies):
    make_project(tmp_path, prompts=3, policies=policies)
    for name in ("metrics/eval/best_of_n.json", "metrics/overoptimisation.tsv", "metrics/judge/summary.json"):
        (tmp_path / name).unlink()
    for name in ("metrics/llm_judge.json", "metrics/data.json", "data/scores/judge.jsonl", "dvc.lock"):
        (tmp_path / name).unlink()
    for stage in TRAINERS:
        shutil.rmtree(tmp_path / f"metrics/{stage}", ignore_errors=True)  # none of a method that was not wanted
    monkeypatch.chdir(tmp_path)
    found = inputs.load()
    monkeypatch.setattr(page, "svg", lambda panel: "")
    text = page.render(found, 10)
    for policy in ("sft", "ppo", "dpo"):
        assert (f"dvc repro measure@{policy}</code>" in text) == (policy not in policies or not policies)
    assert "RFT" not in text  # which is not wanted
    for stage in ("measure@best_of_n", "overoptimisation", "judge", "reward", "prepare"):
        assert f"<code>dvc repro {stage}</code>" in text
    assert 'id="llm"' not in text and 'href="#llm"' not in text
    assert ('id="samples-data"' in text) == bool(policies)


def test_versions_are_of_what_the_requirements_name(tmp_path):
    (tmp_path / "requirements.txt").write_text("# a comment\njinja2==3.1.6\nruamel.yaml==0.19.1  # why\n-r other.txt\n")
    found = dict(page.versions(tmp_path / "requirements.txt"))
    assert [*found] == ["python", "jinja2", "ruamel.yaml"] and found["jinja2"][0].isdigit()
