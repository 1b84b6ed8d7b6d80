"""The stage that judges, against a server in trouble."""

from __future__ import annotations

import pytest
from judged import cached, fault, metrics, write_project

from stages import llm_judge as stage


def test_errors_in_passing_are_tried_again_and_not_kept(project, server, waits):
    write_project(project, server.url, concurrency=1, max_retries=4)
    server.fail(1, status=429, body="{}", headers={"Retry-After": "7"})
    server.fail(1, status=500, body="oh")
    server.fail(1, status=503, body="{}")
    stage.main()
    assert waits[0] == 7  # as the server asked
    assert len(waits) == 3 and waits[1] < waits[2]  # growing
    assert len(server.requests) == 11 and metrics()["ppo-sft"]["win_rate"] == 0.6
    assert len(cached()) == 8


def test_a_time_out_is_tried_again(project, server, waits):
    write_project(project, server.url, concurrency=1, timeout=0.5, max_retries=6)
    server.fail(1, wait=1.0, status=400)
    stage.main()
    assert server.requests[0] == server.requests[1] and metrics()["ppo-sft"]["win_rate"] == 0.6


@pytest.mark.parametrize(
    ("trouble", "requests", "told"),
    [
        (
            {"status": 429, "body": '{"error": {"message": "slow\\ndown"}}'},
            3,
            "answered 429 in 3 tries: slow down; wait",
        ),
        ({"status": 500, "body": "Internal Server Error"}, 3, "answered 500 in 3 tries: Internal Server Error; see"),
        ({"status": 502, "body": "<html>" + "x" * 999}, 3, "answered 502 in 3 tries: <html>xxx"),
        (
            {"status": 401, "body": '{"error": {"message": "Incorrect API key"}}'},
            1,
            "answered 401: Incorrect API key; put",
        ),
        ({"status": 403, "body": '{"error": "no access"}'}, 1, "answered 403: no access; the key"),
        ({"status": 404, "body": '{"error": {"message": "no model judge"}}'}, 1, "answered 404: no model judge; check"),
        (
            {"status": 400, "body": '{"detail": "Server is pinned"}'},
            1,
            "answered 400: Server is pinned; check the llm_",
        ),
        ({"body": "<html>Welcome</html>", "content_type": "text/html"}, 1, "no chat completion: <html>Welcome</html>;"),
        ({"body": "Welcome"}, 1, "no chat completion: Welcome;"),
        ({"body": ""}, 1, "no chat completion: nothing;"),
        ({"body": '{"error": {"message": "upstream"}}'}, 1, 'no chat completion: {"error": {"message": "upstream"}};'),
        ({"wait": 0.8}, 3, "did not answer within 0.2 seconds in 3 tries; raise llm_judge.timeout"),
    ],
)
def test_an_error_that_stays_stops_the_stage_with_one_line(project, server, waits, trouble, requests, told):
    write_project(project, server.url, concurrency=1, timeout=0.2 if "wait" in trouble else 60.0)
    server.fail(999, **trouble)
    text = fault()
    assert told in text and text.endswith("kept; dvc repro llm_judge resumes from there") and len(text) < 600
    assert len(server.requests) == requests and cached() == []


def test_after_an_error_only_what_is_missing_is_asked(project, server):
    write_project(project, server.url, concurrency=1, max_prompts=2)
    stage.main()
    write_project(project, server.url, concurrency=1)
    server.fail(1, status=401)
    assert fault() and len(server.requests) == 5 and len(cached()) == 4
    stage.main()
    assert len(server.requests) == 9 and metrics()["ppo-sft"]["win_rate"] == 0.6


def test_a_server_that_is_not_there_is_told_in_one_line(project, server, waits):
    server.__exit__()
    assert f"{server.url} can't be reached in 3 tries: " in fault()


def test_a_wrong_address_is_told_in_one_line(project, server):
    write_project(project, server.url.removesuffix("/v1"), concurrency=1)
    assert "no such address: /chat/completions; check llm_judge.model and llm_judge.base_url" in fault()
