"""The report's page in a real browser (Chromium, headless, from disk)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from project import DEMO, ROOT
from report_project import NASTY_SHOWN, make_nasty, make_project

from rlhf_lib.report import figures, inputs, page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ARGUMENTS += ["--disable-sync", "--no-first-run"]
PROMPTS = 30

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Visit:
    """A tab with the page open, and everything that the browser complained about or asked for."""

    def __init__(self, browser, path: Path, **context) -> None:
        self.url = path.resolve().as_uri()
        self.troubles: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.tab = self.context.new_page()
        self.tab.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.tab.on("request", lambda request: self.asked(request.url))
        self.tab.goto(self.url)

    def asked(self, url: str) -> None:
        if url != self.url and not url.startswith("data:"):
            self.troubles.append(f"request: {url}")

    def ids(self) -> list[str]:
        """The prompts on the page, in order."""
        return self.tab.eval_on_selector_all("#samples-list > article", "cards => cards.map(card => card.dataset.id)")

    def choose(self, name: str, value: str) -> None:
        self.tab.select_option(f"#samples-{name}", value)

    def press(self, order: str) -> None:
        self.tab.click(f'[data-order="{order}"]')

    def status(self) -> str:
        return self.tab.inner_text("#samples-status")

    def overflow(self) -> int:
        return self.tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def colour(self, selector: str, name: str = "color") -> str:
        return self.tab.eval_on_selector(selector, f"e => getComputedStyle(e).getPropertyValue('{name}')")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a page; the first prompt's texts are nasty, and its true quality is not known."""
    root = make_nasty(make_project(tmp_path_factory.mktemp("project"), prompts=PROMPTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(figures, "curves", lambda inputs: [])  # more of the same, and slow to draw
        found = inputs.load()
        (root / "index.html").write_text(page.render(found, max_prompts=1000), encoding="utf-8")
    return root, found


@pytest.fixture
def visit(browser, project):
    """A function that opens the page; what the browser complained about fails the test."""
    visits = []

    def visit(**context) -> Visit:
        visits.append(Visit(browser, project[0] / "index.html", **context))
        return visits[-1]

    yield visit
    for made in visits:
        made.context.close()
        assert made.troubles == []


def by_margin(found, first, second, key, mode, sign):
    """The ids of all prompts by `key` of the first policy less the second's, those without it last."""
    answers = {policy: {s["id"]: s for s in found.drawn(policy, mode) if s["draw"] == 0} for policy in (first, second)}
    names = sorted(answers[first])
    gaps = {
        name: round(answers[first][name][key], 4) - round(answers[second][name][key], 4)
        for name in names
        if key in answers[first][name]
    }
    return sorted(gaps, key=lambda name: sign * gaps[name]) + [name for name in names if name not in gaps]


def test_wins_and_losses_are_in_the_order_of_the_data(visit, project):
    seen, found = visit(), project[1]
    seen.tab.click("#samples-more")
    best = by_margin(found, "ppo", "sft", "gold", "t1", -1)
    assert seen.ids() == best and seen.status() == f"{PROMPTS} of {PROMPTS} prompts"
    assert seen.tab.get_attribute('[data-order="wins"]', "aria-pressed") == "true"

    seen.press("losses")
    assert seen.ids() == by_margin(found, "ppo", "sft", "gold", "t1", 1)[:20]
    assert seen.tab.get_attribute('[data-order="wins"]', "aria-pressed") == "false"
    assert seen.ids()[0] != best[0] and best[-1] == found.drawn("sft")[0]["id"]

    seen.press("data")
    assert seen.ids() == sorted(best)[:20]


@pytest.mark.parametrize(("first", "second", "key"), [("dpo", "sft", "judge"), ("ppo", "dpo", "reward")])
def test_the_margin_is_that_of_the_policies_the_number_and_the_mode(visit, project, first, second, key):
    seen, found = visit(), project[1]
    seen.choose("margin", f"{first}-{second}")
    seen.choose("by", key)
    assert seen.ids() == by_margin(found, first, second, key, "t1", -1)[:20]
    seen.choose("mode", "greedy")
    order = by_margin(found, first, second, key, "greedy", -1)
    assert seen.ids() == order[:20]
    (answer,) = [s for s in found.drawn(first, "greedy") if s["id"] == order[0]]
    card = seen.tab.locator("#samples-list > article").first
    assert card.locator(f".answer.{first} .text").inner_text() == answer["response"]
    assert f"{first.upper()} − {second.upper()}: +" in card.locator(".margin").inner_text()


def test_search_and_source_leave_the_hits(visit, project):
    seen, samples = visit(), project[1].drawn("ppo")
    seen.tab.fill("#samples-search", "qUESTION 2")
    hits = {s["id"] for s in samples if "Question 2" in s["prompt"][-1]["content"]}
    assert set(seen.ids()) == hits and seen.status() == f"{len(hits)} of {PROMPTS} prompts"

    seen.choose("source", "other")
    hits &= {s["id"] for s in samples if s["source"] == "other"}
    assert set(seen.ids()) == hits and 0 < len(hits) < 11

    answer = next(s for s in samples if s["source"] == "other" and s["draw"] == 0)
    seen.tab.fill("#samples-search", answer["response"])
    assert seen.ids() == [answer["id"]]
    seen.tab.fill("#samples-search", "nobody said this")
    assert seen.ids() == [] and seen.status() == f"0 of {PROMPTS} prompts"
    seen.choose("source", "")
    seen.tab.fill("#samples-search", "")
    assert len(seen.ids()) == 20


def test_more_are_shown_on_demand_and_the_first_of_them_has_the_focus(visit):
    seen = visit()
    assert len(seen.ids()) == 20 and "the first 20 shown" in seen.status()
    assert seen.tab.inner_text("#samples-more") == "Show 10 more"
    seen.tab.focus("#samples-more")
    seen.tab.keyboard.press("Enter")
    assert len(seen.ids()) == PROMPTS and not seen.tab.is_visible("#samples-more")
    assert seen.tab.evaluate("document.activeElement.dataset.id") == seen.ids()[20]


def test_a_nasty_text_is_shown_and_does_nothing(visit, project):
    seen = visit()
    seen.tab.fill("#samples-search", "window.hacked")
    assert seen.ids() == [project[1].drawn("sft")[0]["id"]]
    card = seen.tab.locator("#samples-list > article")
    assert card.locator(".answer.ppo .text").text_content() == NASTY_SHOWN
    assert card.locator(".prompt .text").nth(0).text_content() == "systemBe <i>brief</i>."
    assert card.locator("img, script, i").count() == 0 and seen.tab.evaluate("window.hacked") is None


def test_a_long_name_of_a_source_leaves_a_phone_its_width(browser, tmp_path, monkeypatch):
    root = make_project(tmp_path, prompts=3)
    for path in (root / "data/samples").iterdir():
        path.write_text(re.sub(r'"source": "[^"]*"', f'"source": "{"x" * 200}"', path.read_text()))
    monkeypatch.chdir(root)
    (root / "index.html").write_text(page.render(inputs.load(), max_prompts=10), encoding="utf-8")
    seen = Visit(browser, root / "index.html", viewport={"width": 375, "height": 700})
    for selector in ("#samples-source", ".card .source"):
        assert seen.tab.locator(selector).first.evaluate("e => e.getBoundingClientRect().right") <= 375
    seen.context.close()


def test_every_control_has_a_name_and_can_be_reached(visit):
    seen = visit()
    for control in seen.tab.locator("#samples select, #samples input, button").all():
        named = "e => e.labels?.length ? e.labels[0].textContent : e.textContent"
        assert control.evaluate(named).strip()
    assert seen.tab.locator('[role="img"]:not([aria-label])').count() == 0
    reached = set()
    seen.tab.focus('[data-order="wins"]')
    for _ in range(8):
        reached.add(seen.tab.evaluate("document.activeElement.id || document.activeElement.dataset.order"))
        seen.tab.keyboard.press("Tab")
    assert reached == {
        "wins",
        "losses",
        "data",
        *(f"samples-{name}" for name in ("margin", "by", "mode", "source", "search")),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_changed(visit, scheme):
    seen = visit(color_scheme=scheme)
    places = [("body", "background-color"), ("body", "color"), ("#frontier svg text", "fill"), (".dot.dpo", "color")]
    before = [seen.colour(*place) for place in places]
    light = before[0] == "rgb(253, 253, 252)"
    assert light == (scheme == "light")
    seen.tab.click("#theme")
    after = [seen.colour(*place) for place in places]
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert seen.tab.inner_text("#theme") == ("Light theme" if light else "Dark theme")
    seen.tab.reload()
    assert [seen.colour(*place) for place in places] == after, "the choice is kept"


def test_nothing_is_wider_than_a_phone(visit):
    seen = visit(viewport={"width": 390, "height": 844})
    assert seen.overflow() <= 0
    seen.tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    seen.tab.fill("#samples-search", "window.hacked")
    assert seen.overflow() <= 0
    assert seen.tab.locator("#frontier svg").first.bounding_box()["width"] > 300


def test_print_shows_the_content_in_light_and_without_controls(visit):
    seen = visit(color_scheme="dark", viewport={"width": 1032, "height": 900})
    seen.tab.emulate_media(media="print")
    assert seen.colour("body", "background-color") == "rgb(255, 255, 255)"
    assert not seen.tab.is_visible(".bar") and not seen.tab.is_visible(".controls")
    assert seen.tab.is_visible(".headline") and seen.tab.is_visible("#frontier svg") and len(seen.ids()) == 20
    assert seen.overflow() <= 0
    wide = "tables => tables.filter(t => t.getBoundingClientRect().right > innerWidth + 1).length"
    assert seen.tab.eval_on_selector_all("table", wide) == 0
    assert len(seen.tab.pdf()) > 50_000


def test_without_policies_the_page_still_opens(browser, tmp_path, monkeypatch):
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    Path("index.html").write_text(page.render(inputs.load(), 10), encoding="utf-8")
    seen = Visit(browser, Path("index.html"))
    assert "No verdict yet" in seen.tab.inner_text(".headline") and seen.overflow() <= 0
    seen.context.close()
    assert seen.troubles == []


@pytest.mark.skipif(not (ROOT / "report/index.html").is_file(), reason="no report of a run here: dvc repro")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_of_the_last_run_opens(browser, width):
    seen = Visit(browser, ROOT / "report/index.html", viewport={"width": width, "height": 844})
    assert seen.tab.inner_text(".headline") and seen.overflow() <= 0
    assert "not run yet" not in seen.tab.inner_text("main")
    wins = seen.ids()
    assert wins
    seen.press("losses")
    assert seen.ids() != wins
    seen.tab.fill("#samples-search", "nobody said this, surely")
    assert seen.ids() == []
    seen.context.close()
    assert seen.troubles == []
