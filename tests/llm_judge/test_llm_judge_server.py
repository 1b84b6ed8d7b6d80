"""The stage that judges, against a stand-in server on loopback that counts what it is asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from judged import PPO, SFT, fault, metrics, outputs, write_project
from project import ROOT
from standin_llm import answers, longer

from rlhf_lib.common.rows import read_jsonl
from stages import llm_judge as stage

# ---- what is judged


def test_switched_off_it_writes_empty_outputs_and_imports_no_client(project):
    write_project(project, None, model=None)
    check = "import sys; from stages import llm_judge; llm_judge.main(); print({'openai', 'torch'} & {*sys.modules})"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
    assert outputs() == ("\n", '{\n  "llm_judge": {}\n}\n')


def test_a_judge_that_prefers_the_longer_answer_gives_the_win_rate_by_hand(project, server, capsys):
    write_project(project, server.url, prompt_price=2.5, completion_price=10)
    stage.main()
    assert "llm_judge: test (n = 5: too few to tell)\n" in capsys.readouterr().out
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
