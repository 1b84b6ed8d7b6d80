"""Exports and models of the run behind `transformers serve`, beside the project's own sampler."""

import shutil

import pytest
from locked_run import make_run, write_lock
from served import serving
from tiny_models import TEXTS

from rlhf_lib.common.yaml import load_yaml

QUESTIONS = [[{"role": "user", "content": f"{text} {number}"}] for text in TEXTS for number in range(3)][:20]
TOKENS = 24


def teach(source, folder):
    """A model that has learnt to answer each question with its words from behind; its context is 64 tokens."""
    import torch

    from rlhf_lib.models import loading
    from rlhf_lib.models.chat import dialogue_ids

    model, tokenizer = loading.load_policy(source), loading.load_tokenizer(source)
    answers = [question[0]["content"].split(" ", 1)[1][::-1] for question in QUESTIONS]
    rows = [dialogue_ids(tokenizer, q, a) for q, a in zip(QUESTIONS, answers, strict=True)]
    batch = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    loading.save(model, tokenizer, folder)


@pytest.fixture(scope="module")
def project(tiny, tmp_path_factory):
    """A run whose dpo model is a real one."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run(folder)
        shutil.rmtree(folder / "models/dpo")
        teach(tiny.policy, folder / "models/dpo")
        params = load_yaml(folder / "params.yaml")
        params["evaluate"] |= {"max_new_tokens": TOKENS}
        write_lock(params)
    return folder


def greedy(path):
    """The answers of the project's own sampler."""
    from rlhf_lib.generation.decoding import generate
    from rlhf_lib.generation.sampling import Sampling, encode_prompts, random_numbers, response_text
    from rlhf_lib.models import loading

    model, tokenizer, sampling = loading.load_policy(path), loading.load_tokenizer(path), Sampling(TOKENS, 0.0)
    ids = encode_prompts(tokenizer, QUESTIONS, TOKENS, 64, "x")
    noise = random_numbers(len(ids), sampling, 0)
    return [response_text(tokenizer, response) for response in generate(model, tokenizer, ids, sampling, noise, 8)]


@pytest.mark.slow
def test_an_export_answers_as_the_model_that_was_exported(project, tmp_path, monkeypatch):
    from rlhf_lib.export.options import License
    from rlhf_lib.export.write import write

    monkeypatch.chdir(project)
    write("models/dpo", project / "dist", "fp32", License(), None)
    with serving(project, "dist/dpo", tmp_path) as server:
        said = [server.ask(question, temperature=0, max_tokens=TOKENS) for question in QUESTIONS]
        assert server.models() == ["dist/dpo"]
    assert said == greedy("models/dpo") and len(set(said)) > 5


@pytest.mark.slow
def test_a_model_of_the_run_is_served_as_it_was_evaluated(project, tmp_path):
    with serving(project, "models/dpo", tmp_path) as server:
        assert f'"max_tokens": {TOKENS}' in server.said and f"models/dpo is served on {server.url}/v1" in server.said
        question = QUESTIONS[0]
        first = server.ask(question, temperature=0, max_tokens=TOKENS)
        assert first == server.ask(question, temperature=0, max_tokens=TOKENS)
        # without do_sample in the generation config, a temperature alone would change nothing
        drawn = {server.ask(question, temperature=1.0, seed=seed, max_tokens=TOKENS) for seed in range(8)}
        assert len(drawn) > 1
    assert server.process.returncode == 143 and not list(tmp_path.glob("rlhf-serve-*"))
    assert "Traceback" not in server.said
