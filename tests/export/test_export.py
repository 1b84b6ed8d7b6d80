"""The folder of an export: what is in it, and that it is whole or not there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chat_standins import stand_in
from project import ROOT

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export import directory
from rlhf_lib.export.options import License
from rlhf_lib.export.write import write

EVALUATED = {"temperatures": [0.7, 0.0], "max_new_tokens": 48, "min_new_tokens": 0, "top_k": 5, "top_p": 0.9}


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """An export in bf16 of a model of no run."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "requirements.txt").touch()
        return write(str(tiny.policy), folder / "dist", "bf16", License(), None)


def test_it_loads_without_this_project_and_in_its_type(exported, tiny):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(exported, dtype="auto")
    source = AutoModelForCausalLM.from_pretrained(tiny.policy)
    assert model.dtype == torch.bfloat16 and model.config.use_cache is True
    for (name, weight), (_, own) in zip(model.named_parameters(), source.named_parameters(), strict=True):
        assert torch.equal(weight, own.to(torch.bfloat16)), name
    tokenizer = AutoTokenizer.from_pretrained(exported)
    asked = [{"role": "user", "content": "Name the cat."}]
    assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == (
        "<|user|>Name the cat.<|assistant|>"
    )


def test_every_file_may_be_read_by_all_and_none_is_a_pickle(exported):
    assert {file.stat().st_mode & 0o777 for file in exported.iterdir()} == {0o644}
    names = {file.name for file in exported.iterdir()}
    assert {"README.md", "Modelfile", "config.json", "generation_config.json", "chat_template.jinja"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_no_model_and_models_that_give_no_answers_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for path, told in (
        ("nowhere", "nowhere: no such directory"),
        ("empty", "empty: cannot be loaded as a language model: no config.json in it"),
        (str(tiny.reward), "a reward model, which gives no answers"),
    ):
        with pytest.raises(SystemExit, match=told) as error:
            write(path, Path("dist"), "bf16", License(), None)
        assert "\n" not in str(error.value) and not Path("dist").exists()


def test_each_phase_is_told_when_it_begins(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "convert_hf_to_gguf.py").write_text("raise SystemExit('no')")
    write(str(tiny.policy), tmp_path / "dist", "bf16", License(), str(tmp_path))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("export: ")]
    told = [line.removeprefix("export: ").split()[:2] for line in lines]
    gguf = f"{tiny.policy.name}-bf16.gguf"
    assert told == [
        ["loading", str(tiny.policy)],
        *(["writing", what] for what in ("weights", "Modelfile", gguf, "the")),
    ]


def test_what_is_no_export_is_not_replaced(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "dist" / tiny.policy.name
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(ParamsError, match="is no export, and would be replaced"):
        write(str(tiny.policy), tmp_path / "dist", "bf16", License(), None)
    assert (mine / "thesis.txt").read_text() == "years"


# ---- whole or not there

FILL = """
import os, signal, sys
from pathlib import Path
from rlhf_lib.export import directory

with directory.replacing(Path("dist/dpo")) as folder:
    (folder / "model.safetensors").write_text(sys.argv[1])
    (folder / directory.MANIFEST).write_text('{"model": "dpo"}')
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "fail":
        sys.exit("no")
    if sys.argv[2] == "wait":
        print("in", flush=True)
        sys.stdin.read()
"""


def fill(folder, content, how, **options):
    command = [sys.executable, "-c", FILL, content, how]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **options)


def visible(folder):
    return sorted(path.name for path in (folder / "dist").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_an_export_that_ends_in_the_middle_leaves_what_was_there(tmp_path, how):
    assert fill(tmp_path, "new", how).wait() == (-signal.SIGKILL if how == "kill" else 1)
    assert visible(tmp_path) == []
    assert fill(tmp_path, "old", "end").wait() == 0
    assert fill(tmp_path, "new", how).wait() != 0
    assert visible(tmp_path) == ["dpo"] and (tmp_path / "dist/dpo/model.safetensors").read_text() == "old"
    assert fill(tmp_path, "new", "end").wait() == 0
    assert (tmp_path / "dist/dpo/model.safetensors").read_text() == "new"
    assert os.listdir(tmp_path / "dist") == ["dpo"]  # and nothing that the kills left


def test_two_at_once_do_not_mix(tmp_path):
    first = fill(tmp_path, "first", "wait", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == "in\n"
    second = fill(tmp_path, "second", "end", stderr=subprocess.PIPE)
    assert "another export writes it at this moment" in second.communicate()[1]
    first.communicate("")
    assert first.returncode == 0 and (tmp_path / "dist/dpo/model.safetensors").read_text() == "first"


# ---- stops and sampling


def config_of(name, sampling, stop_strings=()):
    one = stand_in(name)
    return one.tokenizer, directory.generation_config(
        one.model.generation_config, one.tokenizer, sampling, list(stop_strings)
    )


@pytest.mark.parametrize("name", ["qwen", "gemma", "llama3_instruct", "phi3", "gpt2"])
def test_all_that_ends_an_answer_is_in_the_generation_config(name, tmp_path):
    from chat_standins import FAMILIES

    tokenizer, config = config_of(name, EVALUATED)
    config.save_pretrained(tmp_path)
    ids = json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]
    tokens = tokenizer.convert_ids_to_tokens([ids] if isinstance(ids, int) else ids)
    assert set(tokens) == set(FAMILIES[name].stops)


def test_sampling_is_that_of_the_first_temperature(tmp_path):
    _, config = config_of("gpt2", EVALUATED, ["\nUser:"])
    config.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "generation_config.json").read_text())
    expected = {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "max_new_tokens": 48}
    assert expected.items() <= said.items() and said["stop_strings"] == ["\nUser:"] and "min_new_tokens" not in said


def test_a_temperature_of_0_is_greedy_and_no_param_leaves_the_models_own():
    _, config = config_of("gpt2", EVALUATED | {"temperatures": [0.0], "num_beams": 4})
    assert (config.do_sample, config.num_beams, config.temperature) == (False, 4, None)
    one = stand_in("gpt2")
    one.model.generation_config.temperature, one.model.generation_config.do_sample = 0.3, True
    own = directory.generation_config(one.model.generation_config, one.tokenizer, {}, [])
    assert (own.temperature, own.do_sample) == (0.3, True)


def test_weights_that_fp16_does_not_hold_are_told(tiny, tmp_path):
    import torch
    from transformers import GenerationConfig

    from rlhf_lib.models import loading

    model, tokenizer = loading.load_policy(tiny.policy), loading.load_tokenizer(tiny.policy)
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = 1e6
    with pytest.raises(ParamsError, match=r"ln_f.bias holds numbers that fp16 does not reach; export with DTYPE=bf16"):
        directory.write_model(model, tokenizer, GenerationConfig(), "fp16", tmp_path)
