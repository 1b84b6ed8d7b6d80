"""The stage that judges, against a server that means harm or is badly broken."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hostile_servers import HostileServer, completion, endless, head, http, slowly
from judged import cached, fault, metrics, write_project

from rlhf_lib.common.rows import read_jsonl
from stages import llm_judge as stage

KEY = "sk-aB3/d+F6=h_J9"


@pytest.fixture
def hostile(project, monkeypatch):
    """Its `mode` is set by the test; the stage asks one question after the other and tries none again."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with HostileServer() as server:
        options = {"concurrency": 1, "timeout": 2.0, "max_retries": 0, "api_key_env": "JUDGE_KEY"}
        write_project(project, server.url, {"ppo": ["long answer"], "sft": ["short"]}, **options)
        yield server


def written():
    return "".join(path.read_text() for path in Path().rglob("*") if path.is_file())


def test_a_key_that_a_reply_repeats_is_in_no_file(hostile):
    hostile.mode = lambda asked: [http(completion(f"A. I was asked with Bearer {asked.key}"))]
    stage.main()
    assert read_jsonl("data/llm_judge.jsonl")[0]["replies"] == ["A. I was asked with Bearer ***"] * 2
    assert len(cached()) == 2 and "sk-aB3" not in written()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (quote(KEY, safe=""), "no such key: ***; put a valid key"),
        (json.dumps({"got": KEY}).replace("/", "\\/"), 'no such key: {"got": "***"}; put'),
        ("x" * 280 + KEY, "x***; put"),  # cut by the excerpt, after it is masked
    ],
)
def test_a_key_that_an_error_repeats_in_other_letters_is_masked(hostile, said, told):
    hostile.mode = lambda asked: [http(f"no such key: {said}", status="401 Unauthorized")]
    text = fault()
    assert told in text and "aB3" not in text


def test_an_answer_that_drips_does_not_outlive_the_time_limit(hostile):
    hostile.mode = lambda asked: slowly(head() + b" " * 1000, 0.05)  # a minute in all
    start = time.monotonic()
    assert "did not answer within 2 seconds; raise llm_judge.timeout" in fault()
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "307 Moved\r\nLocation: /"])
def test_a_body_without_end_ends_in_one_line(hostile, status):
    hostile.mode = lambda asked: endless(head(status=status), b" " * 65536)
    assert "answers with more than 4 MiB; check llm_judge.base_url" in fault()


def test_a_body_that_unpacks_without_end_is_not_unpacked(hostile):
    bomb = gzip.compress(b" " * (64 << 20))
    hostile.mode = lambda asked: [http(bomb, "Content-Encoding: gzip")]
    assert "compresses its answers, although asked not to; switch that off there: gzip" in fault()
    assert b"\r\nAccept-Encoding: identity\r\n" in hostile.heard[0]


def test_a_reply_longer_than_asked_for_is_not_kept(hostile):
    hostile.mode = lambda asked: [http(completion("A" * 8001))]
    assert "replied with 8001 characters, more than 8 tokens can be" in fault() and cached() == []
    hostile.mode = lambda asked: [http(completion("A" * 8000))]
    stage.main()
    assert len(cached()) == 2


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
def test_json_that_is_nested_too_deeply_is_told(hostile, status):
    hostile.mode = lambda asked: [http("[" * 100_000, status=status)]
    assert ": [[[[[" in fault()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Moved", "308 Moved"])
def test_nothing_goes_to_another_server_by_a_redirect(hostile, status):
    hostile.mode = lambda asked: [http("", f"Location: {asked.elsewhere}/v1?{KEY}", status=status)]
    text = fault()
    assert f"{hostile.url} redirects to another server" in text and f": {hostile.elsewhere.address};" in text
    assert hostile.elsewhere.heard == [] and len(hostile.heard) == 1


def test_a_redirect_within_the_server_is_followed(hostile):
    moved = [http("", "Location: /v2", status="308 Moved")]
    hostile.mode = lambda asked: [http(completion())] if asked.path == "/v2" else moved
    stage.main()
    assert metrics()["requests"] == 2 and len(hostile.heard) == 4
    assert b"long answer" in hostile.heard[1] and f"Bearer {KEY}".encode() in hostile.heard[1]


def test_redirects_in_a_circle_are_told(hostile):
    hostile.mode = lambda asked: [http("", "Location: /v1", status="307 Moved")]
    assert "redirects more than 5 times; check llm_judge.base_url" in fault() and len(hostile.heard) == 6


def test_a_server_that_asks_to_wait_for_a_day_is_not_waited_for(hostile):
    hostile.mode = lambda asked: [http("busy", "Retry-After: 100000", status="429 Busy")]
    assert "answered 429: busy; wait" in fault() and len(hostile.heard) == 1


def test_control_characters_do_not_reach_the_terminal(hostile):
    hostile.mode = lambda asked: [http("\x1b[2Jgone\x9b\x07", status="400 No")]
    assert "answered 400: �[2Jgone��; check" in fault()


# ---- the environment


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        (
            "ALL_PROXY",
            "socks5://127.0.0.1:1",
            "ALL_PROXY in the environment can't be used; change or unset it: Using SOCKS",
        ),
        (
            "HTTP_PROXY",
            "gopher://me:pa55word@x",
            "HTTP_PROXY in the environment can't be used; change or unset it: Unknown",
        ),
        ("HTTPS_PROXY", "http://me:pa55/word@x:1", "HTTPS_PROXY in the environment is no address of a proxy; mend or"),
        ("SSL_CERT_FILE", "/nowhere", "SSL_CERT_FILE or SSL_CERT_DIR in the environment holds no certificates; mend"),
        ("HTTP_PROXY", "http://127.0.0.1:1", "is the proxy in HTTP_PROXY right, or should NO_PROXY name this host?"),
    ],
)
def test_an_environment_without_a_way_to_the_server_is_told(hostile, monkeypatch, variable, value, told):
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    text = fault()
    assert told in text and "pa55" not in text
    assert hostile.heard == []


def test_a_proxy_for_other_servers_is_not_blamed(hostile, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # NO_PROXY names the server's
    hostile.__exit__()
    assert "is the server running there?" in fault()
    hostile.__enter__()
