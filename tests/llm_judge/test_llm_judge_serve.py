"""The judge against a real OpenAI-compatible server: `transformers serve`, offline, with a tiny model from a folder."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judged import metrics, write_project
from project import DEMO
from tiny_models import TEXTS

from rlhf_lib.common.rows import read_jsonl
from stages import llm_judge as stage

ADDRESS = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+) ")


def save_model_that_says_a(path: Path) -> None:
    """A random model, long enough for the questions, whose every token is A."""
    import torch

    from rlhf_lib.base import model as base
    from rlhf_lib.base.params import BaseParams
    from rlhf_lib.common.schema import read
    from rlhf_lib.models import loading as models

    params = read("base", BaseParams, DEMO)
    small = {"vocab_size": 320, "n_positions": 2048, "n_embd": 32, "n_layer": 2, "n_head": 2}
    tokenizer = base.fresh_tokenizer(TEXTS, 320)
    model = base.fresh_model(dataclasses.replace(params, **small), tokenizer)
    base.complete(model, tokenizer, seed=0)
    (a,) = tokenizer("A", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight[a]
        model.transformer.ln_f.bias.copy_(20 * embedding / embedding.square().sum())
    models.save(model, tokenizer, path)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of the model that is served, and the server's address."""
    model, log = tmp_path_factory.mktemp("judge"), tmp_path_factory.mktemp("log") / "log"
    save_model_that_says_a(model)
    command = [Path(sys.executable).with_name("transformers"), "serve", model, "--host", "127.0.0.1", "--port", "0"]
    with open(log, "w") as output:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=output, stderr=output)
    try:
        while not (match := ADDRESS.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield str(model), match[1] + "/v1"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def test_verdicts_of_one_token_are_read_and_asked_for_once(project, served, capsys):
    model, url = served
    write_project(project, url, model=model, max_tokens=1)
    stage.main()
    numbers = metrics()["ppo-sft"]
    assert (numbers["position_agreement"], numbers["a_share"], numbers["inconsistent"]) == (0, 1, 4)
    assert metrics()["requests"] == metrics()["completion_tokens"] == 8
    assert metrics()["prompt_tokens"] > 8 * 300
    first = metrics()
    stage.main()
    assert metrics() == first and "8 verdicts are known from earlier runs, 0 are asked" in capsys.readouterr().out


def test_nonsense_is_unparsed(project, served):
    model, url = served
    write_project(project, url, model=model, max_tokens=8, max_prompts=2)
    stage.main()
    assert {text for row in read_jsonl("data/llm_judge.jsonl") for text in row["replies"]} == {"A" * 8}
    numbers = metrics()["ppo-sft"]
    assert (numbers["unparsed"], numbers["win_rate"], numbers["position_agreement"]) == (4, None, None)


def test_a_model_that_is_not_served_stops_the_stage_with_what_the_server_said(project, served):
    model, url = served
    write_project(project, url, model="another", concurrency=1)
    with pytest.raises(SystemExit) as error:
        stage.main()
    assert f"answered 400: Server is pinned to '{model}'; requested 'another'." in error.value.code
