"""Exports and models of the run behind `transformers serve`, beside the project's own sampler."""

import pytest
from locked_run import make_run, write_lock
from served import serving
from tiny_models import TEXTS

from rlhf_lib.common.yaml import load_yaml

QUESTIONS = [[{"role": "user", "content": f"{text} {number}"}] for text in TEXTS for number in range(3)][:20]
TOKENS = 24


@pytest.fixture(scope="module")
def project(ending, tmp_path_factory):
    """A run whose dpo model is a real one: its context is 64 tokens."""
    import shutil

    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run(folder)
        shutil.rmtree(folder / "models/dpo")
        shutil.copytree(ending, folder / "models/dpo")
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
