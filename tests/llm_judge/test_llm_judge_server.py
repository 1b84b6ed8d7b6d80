"""The stage that judges, against a stand-in server on loopback that counts what it is asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from judged import PPO, SFT, cached, fault, metrics, outputs, write_project
from project import ROOT
from standin_llm import answers, longer

from rlhf_lib.common.rows import read_jsonl, write_jsonl
from stages import llm_judge as stage

# ---- what is judged


def test_switched_off_it_writes_empty_outputs_and_imports_no_client(project):
    write_project(project, None, model=None)
    check = "import sys; from stages import llm_judge; llm_judge.main(); print({'openai', 'torch'} & {*sys.modules})"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
    assert outputs() == ("", '{\n  "llm_judge": {}\n}\n')


def test_a_judge_that_prefers_the_longer_answer_gives_the_win_rate_by_hand(project, server):
    write_project(project, server.url, prompt_price=2.5, completion_price=10)
    stage.main()
    rows = read_jsonl("data/llm_judge.jsonl")
    assert [row["result"] for row in rows] == ["first", "second", "tie", "tie", "first"]
    assert [row["id"] for row in rows] == [f"{i:016x}" for i in range(5)]
    numbers = metrics()["ppo-sft"]
    assert numbers["win_rate"] == 0.6
    assert numbers["win_rate_se"] == pytest.approx((0.7 / 4 / 5) ** 0.5, rel=1e-5)  # of 1, 0, 1/2, 1/2, 1
    assert (numbers["position_agreement"], numbers["a_share"], numbers["identical"]) == (1, 0.5, 1)
    totals = {key: metrics()[key] for key in ("requests", "prompt_tokens", "completion_tokens", "cost")}
    assert totals == {"requests": 8, "prompt_tokens": 800, "completion_tokens": 16, "cost": 0.00216}
    assert len(server.requests) == 8


def test_each_pair_is_asked_in_both_orders_and_the_identical_one_not_at_all(project, server):
    stage.main()
    shown = sorted(answers(body) for body in server.requests)
    pairs = [(a, b) for a, b in zip(PPO, SFT, strict=True) if a != b]
    assert shown == sorted(pairs + [(b, a) for a, b in pairs])


def test_a_judge_that_always_says_a_contradicts_itself_everywhere(project, server):
    server.judge = lambda body: "A"
    stage.main()
    numbers = metrics()["ppo-sft"]
    assert (numbers["position_agreement"], numbers["a_share"], numbers["win_rate"]) == (0, 1, 0.5)
    assert (numbers["inconsistent"], numbers["ties"], numbers["win_rate_se"]) == (4, 5, 0)


def test_nonsense_and_refusals_are_counted(project, server):
    def judge(body):
        a, b = answers(body)
        if "abc" in (a, b):
            return {"message": {"content": None, "refusal": "I must not say."}, "finish_reason": "stop"}
        return "Bananas." if "no" in (a, b) else longer(body)

    server.judge = judge
    stage.main()
    rows = read_jsonl("data/llm_judge.jsonl")
    assert [row["result"] for row in rows] == ["first", None, None, "tie", "first"]
    assert (rows[1]["replies"], rows[2]["replies"]) == (["Bananas."] * 2, ["I must not say."] * 2)
    numbers = metrics()["ppo-sft"]
    assert (numbers["unparsed"], numbers["refused"], numbers["prompts"]) == (2, 2, 5)
    assert numbers["win_rate"] == pytest.approx(2.5 / 3, rel=1e-5)


def test_a_prompt_that_the_server_declines_is_a_refusal(project, server):
    server.fail(1, status=400, body='{"error": {"message": "filtered", "code": "content_filter"}}')
    stage.main()
    assert metrics()["ppo-sft"]["refused"] == 1


def test_three_comparisons_share_the_samples_and_the_headline_mode(project, server):
    texts = {"ppo": PPO, "sft": SFT, "dpo": SFT}
    write_project(project, server.url, texts, comparisons=["ppo-sft", "dpo-sft", "ppo-dpo"], max_prompts=2)
    stage.main()
    assert {name: metrics()[name]["win_rate"] for name in ("ppo-sft", "dpo-sft", "ppo-dpo")} == {
        "ppo-sft": 0.5,
        "dpo-sft": 0.5,
        "ppo-dpo": 0.5,
    }
    assert metrics()["dpo-sft"]["identical"] == 2
    assert len(server.requests) == metrics()["requests"] == 4  # ppo-dpo asks what ppo-sft asked
    assert "other draw" not in str(server.requests) and "other mode" not in str(server.requests)


def test_a_policy_without_samples_is_told_in_one_line(project):
    os.remove("data/samples/ppo.jsonl")
    assert "data/samples/ppo.jsonl" in fault()
    write_jsonl("data/samples/ppo.jsonl", [])
    assert "data/samples/ppo.jsonl" in fault()


# ---- the cache


def test_a_second_run_asks_nothing_and_writes_the_same(project, server, capsys):
    stage.main()
    first = outputs()
    assert "0 verdicts are known from earlier runs, 8 are asked of judge" in capsys.readouterr().out
    stage.main()
    assert outputs() == first and len(server.requests) == 8
    assert "8 verdicts are known from earlier runs, 0 are asked of judge" in capsys.readouterr().out


def test_only_what_is_new_is_asked(project, server):
    write_project(project, server.url, max_prompts=2)
    stage.main()
    assert len(server.requests) == 4
    write_project(project, server.url, max_prompts=5, timeout=9.0)
    stage.main()
    assert len(server.requests) == 8
    write_project(project, server.url, {"ppo": ["a new answer", *PPO[1:]], "sft": SFT})
    stage.main()
    assert len(server.requests) == 10
    Path("rubrics/helpfulness.md").write_text("Be strict.\n")
    stage.main()
    assert len(server.requests) == 18


def test_a_broken_file_in_the_cache_is_asked_again(project, server):
    stage.main()
    expected = outputs()
    first, second = cached()[:2]
    first.write_text('{"text": "A", "ref')
    second.write_text("[]")
    stage.main()
    assert len(server.requests) == 10 and outputs() == expected


def start_stage(project):
    """The stage in a process of its own, which an interrupt reaches even where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.llm_judge"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_is_gone_on_with_by_what_is_missing_alone(project, server, end):
    go_on, seen = threading.Event(), threading.Semaphore(5)

    def judge(body):
        if not seen.acquire(blocking=False):
            go_on.wait(60)
        return longer(body)

    server.judge = judge
    write_project(project, server.url, concurrency=2)
    process = start_stage(project)
    folder = project / "checkpoints/llm_judge_cache"
    while process.poll() is None and not (len(list(folder.glob("*.json"))) == 5 and server.in_flight == 2):
        time.sleep(0.01)
    process.send_signal(end)
    told = process.communicate()[1]
    if end == signal.SIGINT:
        assert process.returncode == 1
        assert "llm_judge: interrupted; what was judged so far is kept" in told and "Traceback" not in told
    assert len(server.requests) == 7 and len(cached()) == 5
    assert not os.path.exists("metrics/llm_judge.json")
    go_on.set()

    before = [json.dumps(body) for body in server.requests]
    stage.main()
    again = [json.dumps(body) for body in server.requests[7:]]
    assert len(again) == 3 and len({*before, *again}) == 8
    assert set(again) & set(before) <= set(before[-2:])  # those that were on their way
    assert metrics()["ppo-sft"]["win_rate"] == 0.6


# ---- requests at once


def test_as_many_requests_at_once_as_the_params_say_and_no_more(project, server):
    together = threading.Barrier(4, timeout=30)

    def judge(body):
        together.wait()
        return longer(body)

    server.judge = judge
    write_project(project, server.url, concurrency=4)
    stage.main()
    assert server.most_in_flight == 4 and len(server.requests) == 8


def test_the_outputs_do_not_depend_on_which_reply_comes_first(project, server):
    write_project(project, server.url, concurrency=1)
    stage.main()
    expected = outputs()
    shutil.rmtree("checkpoints")
    server.judge = lambda body: time.sleep(len(answers(body)[0]) / 200) or longer(body)
    write_project(project, server.url, concurrency=8)
    stage.main()
    assert outputs() == expected and len(server.requests) == 16


# ---- a server in trouble


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
    assert told in text and text.endswith("kept: dvc repro llm_judge goes on from there") and len(text) < 600
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


# ---- the key


def test_the_key_comes_from_the_named_variable_and_goes_nowhere_else(project, server, monkeypatch, capfd):
    server.key = "sk-secret"
    write_project(project, server.url, api_key_env="JUDGE_KEY", concurrency=1)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-other")
    text = fault()
    assert "answered 401: " in text and "variable JUDGE_KEY" in text
    monkeypatch.setenv("JUDGE_KEY", "sk-wrong")
    assert "Incorrect API key provided: Bearer ***; put a valid key" in fault()
    monkeypatch.setenv("JUDGE_KEY", " sk-secret\n")
    stage.main()
    assert [headers.get("authorization") for headers in server.headers[:3]] == [
        None,
        "Bearer sk-wrong",
        "Bearer sk-secret",
    ]
    assert "other" not in str(server.headers)
    written = "".join(path.read_text() for path in project.rglob("*") if path.is_file())
    assert "sk-" not in written + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("key", "told"), [(None, "api.openai.com wants a key"), ("clé", "holds no key"), ("a b", "holds no key")]
)
def test_a_key_that_can_be_none_is_told_before_anything_is_asked(project, monkeypatch, key, told):
    write_project(project, "https://api.openai.com/v1", api_key_env="JUDGE_KEY")
    if key:
        monkeypatch.setenv("JUDGE_KEY", key)
    text = fault()
    assert told in text and "JUDGE_KEY" in text and (key is None or key not in text)
