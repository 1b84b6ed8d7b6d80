"""Chat templates that loop, take the memory, or say something else each time."""

import re
import resource
import signal

import pytest
from one_line import told
from tiny_models import TEXTS
from trl_trainers import assistant, user

from rlhf_lib.models import bounded
from rlhf_lib.models import loading as models
from rlhf_lib.models.settled import settle
from rlhf_lib.models.templates import fault, render

SOUND = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
WILD = {
    "loops": (ENDLESS, "does not end within 0.5 seconds"),
    "a power, which Jinja computes in advance": ("{{ (9 ** (9 ** 9)) % 7 }}", "does not end within 0.5 seconds"),
    "a long text": ("{{ 'a' * 10**10 }}", "takes more than 1 GiB of memory"),
    "a text that doubles": (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "takes more than 1 GiB of memory|does not end within 0.5 seconds",
    ),
    "many characters": ("{{ 'a' * 3_000_000 }}", r"makes 3,000,0\d\d characters of messages of 4"),
}


@pytest.fixture
def tokenizer(tiny):
    return models.load_tokenizer(tiny.policy)


@pytest.mark.parametrize("case", WILD)
def test_a_template_that_runs_wild_is_told_and_leaves_no_bounds(tokenizer, tiny, monkeypatch, case):
    monkeypatch.setattr(bounded, "SECONDS", 0.5)
    wild, text = WILD[case]
    tokenizer.chat_template = wild + SOUND
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    said = told(bounded.apply, tokenizer, user("Hi.") + assistant("A"), False)
    assert said.startswith(f"the chat template of {tiny.policy} ") and said.endswith("or name another model")
    assert re.search(text, said), said
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert told(settle, tokenizer).startswith("the chat template of ")


@pytest.mark.parametrize("chance", ["{{ ['a', 'b'] | random }}", "{{ lipsum() }}"])
def test_a_template_that_draws_is_told(tokenizer, chance):
    tokenizer.chat_template = chance + SOUND
    assert "writes something else each time" in told(settle, tokenizer)


@pytest.mark.parametrize(
    ("expression", "does"),
    [
        ("m.content | upper", "changes"),
        ("m.content[:1000]", "changes"),
        ("m.content | e", "changes"),
        ("m.content | tojson", "changes"),
        ("'x'", "leaves out"),
        ("m.content if m.role != 'user' else ''", "leaves out"),
    ],
)
def test_a_template_that_changes_or_loses_texts_is_told(tokenizer, expression, does):
    tokenizer.chat_template = SOUND.replace("m.content", expression)
    assert f"{does} the text of message 1 (user)" in told(render, tokenizer, user("Hi."))
    assert f"{does} the text of message" in fault(tokenizer)


def test_a_template_that_trims_is_none_of_them(tokenizer):
    tokenizer.chat_template = SOUND.replace("m.content", "m.content | trim")
    assert fault(tokenizer) is None
    assert render(tokenizer, user(f" {TEXTS[0]} ")) == f"<|user|>{TEXTS[0]}"


def test_a_template_for_some_roles_alone_is_taken(tokenizer):
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('x') }}{% endif %}" + SOUND
    assert fault(tokenizer) is None
