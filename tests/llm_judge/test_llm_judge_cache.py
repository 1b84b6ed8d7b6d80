"""The stage that judges: what is kept of a run, and how much it asks at once."""

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
from judged import PPO, SFT, cached, metrics, outputs, write_project
from project import ROOT
from standin_llm import answers, longer

from stages import llm_judge as stage

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
        assert "llm_judge: interrupted; replies so far are kept" in told and "Traceback" not in told
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
