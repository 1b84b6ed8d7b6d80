"""What a request must have, and how long an answer may be."""

import pytest
from locked_run import make_run
from served import serving

from rlhf_lib.export import requests

ASKED = [{"role": "user", "content": "Name the cat."}]


@pytest.mark.parametrize(
    ("body", "needed", "told"),
    [
        ({}, "messages", "messages: missing or empty"),
        ({"messages": []}, "messages", "messages: missing or empty"),
        ({"messages": "hi"}, "messages", "messages: must be a list of messages"),
        ({"messages": {"role": "user"}}, "messages", "messages: must be a list of messages"),
        ({"messages": ["hi"]}, "messages", "messages[0]: must be an object with role and content"),
        ({"messages": [*ASKED, {"content": "x"}]}, "messages", "messages[1]: must be an object with role and content"),
        ({"messages": [{"role": "user"}]}, "messages", "messages[0].content: must be a text"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages", None),
        ({"messages": ASKED}, "messages", None),
        ({"prompt": ["a"]}, "prompt", "prompt: must be a text"),
        ({"prompt": "a"}, "prompt", None),
        ({"input": "a"}, "input", None),
        ({"input": ASKED}, "input", None),
        ({"input": [{"type": "function_call_output"}]}, "input", None),
        ({"input": [{"content": "a"}]}, "input", "input[0]: must be an object with role and content"),
    ],
)
def test_a_body_that_cannot_be_answered_is_told(body, needed, told):
    assert requests.fault(body, needed) == told


def test_an_answer_ends_where_the_context_does():
    assert requests.new_tokens(60, 1024, 64) == 4 == requests.new_tokens(60, None, 64)
    assert requests.new_tokens(60, 3, 64) == 3 and requests.new_tokens(60, 3, None) == 3
    with pytest.raises(requests.Refused, match="the prompt has 64 tokens, and the model's context 64"):
        requests.new_tokens(64, 1, 64)
    with pytest.raises(requests.Refused, match="max_tokens: must be at least 1, got 0"):
        requests.new_tokens(1, 0, None)


@pytest.mark.slow
def test_a_server_answers_faults_in_a_line_and_goes_on(tiny, tmp_path, monkeypatch):
    import shutil

    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    make_run(project)
    shutil.rmtree("models/sft")
    shutil.copytree(tiny.policy, "models/sft")
    with serving(project, "models/sft", tmp_path) as server:
        for stream in (False, True):
            long = [{"role": "user", "content": "cat " * 100}]
            assert "messages: missing or empty" in server.refused({"messages": [], "stream": stream})
            assert "and the model's context 64: no room" in server.refused({"messages": long, "stream": stream})
            assert "'hot'" in server.refused({"messages": ASKED, "temperature": "hot", "stream": stream})
        assert "Unexpected fields" in server.refused({"messages": ASKED, "no_such_field": 1}, status=422)
        whole = server.reply(ASKED, temperature=0)  # the server asks for 1,024 tokens
        assert whole["usage"]["total_tokens"] <= 64
    assert "Traceback" not in server.said
