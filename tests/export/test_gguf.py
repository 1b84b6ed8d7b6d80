"""The converter of llama.cpp: where it is looked for, what it is called with, and what is said without it."""

import json
import os
import shlex

import pytest

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export import gguf

STAND_IN = """
import argparse
from pathlib import Path

class TextModel:
    def __init__(self, folder):
        self.dir_model = folder

    def get_vocab_base_pre(self, tokenizer):
        raise NotImplementedError("BPE pre-tokenizer was not recognized")

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--outfile")
    parser.add_argument("--outtype")
    given = parser.parse_args()
    Path(given.outfile).write_text(f"{TextModel(given.model).get_vocab_base_pre(None)} {given.outtype}")
"""
AS_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


@pytest.fixture
def export(tmp_path):
    """An export whose vocabulary splits as GPT-2's, and a stand-in for the converter beside it."""
    (tmp_path / "dpo").mkdir()
    (tmp_path / "dpo/tokenizer.json").write_text(json.dumps({"pre_tokenizer": AS_GPT2}))
    (tmp_path / gguf.CONVERTER).write_text(STAND_IN)
    return tmp_path / "dpo"


def test_it_is_found_by_argument_environment_and_path(export, tmp_path, monkeypatch):
    script = (tmp_path / gguf.CONVERTER).resolve()
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "")
    assert gguf.converter(None) is None and gguf.converter(str(tmp_path)) == script
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    assert gguf.converter(None) == script
    monkeypatch.setenv("LLAMA_CPP", str(export))
    with pytest.raises(ParamsError, match=f"no {gguf.CONVERTER} in it; name a checkout of llama.cpp"):
        gguf.converter(None)
    monkeypatch.delenv("LLAMA_CPP")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gguf.converter(None) == script


@pytest.mark.parametrize("arguments", [["nowhere/convert_hf_to_gguf.py", "dist/dpo"], []])
def test_a_converter_that_is_not_there_is_told_in_a_line(monkeypatch, arguments):
    monkeypatch.setattr("sys.argv", ["gguf", *arguments])
    with pytest.raises(SystemExit, match=f"no such file; name {gguf.CONVERTER} of a checkout"):
        gguf.main()


def test_a_vocabulary_that_is_in_no_list_is_converted_where_it_splits_as_gpt2(export, tmp_path):
    script = tmp_path / gguf.CONVERTER
    assert gguf.convert(script, export, "dpo", "fp16") is None
    assert (export / "dpo-f16.gguf").read_text() == "gpt-2 f16"


@pytest.mark.parametrize("change", [{"type": "Sequence"}, {"use_regex": False}, {"add_prefix_space": True}])
def test_any_other_is_left_to_the_converter_whose_last_word_is_told(export, tmp_path, change):
    (export / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": AS_GPT2 | change}))
    told = gguf.convert(tmp_path / gguf.CONVERTER, export, "dpo", "bf16")
    assert told.endswith("NotImplementedError: BPE pre-tokenizer was not recognized") and told.startswith("no GGUF: ")
    assert os.listdir(export) == ["tokenizer.json"]


def test_without_it_the_command_is_told_that_makes_the_file_which_the_modelfile_names(export):
    words = shlex.split(gguf.told(export, "dpo", "fp32").splitlines()[-1])
    assert words[:4] == ["python", "-m", "rlhf_lib.export.gguf", f"LLAMA_CPP/{gguf.CONVERTER}"]
    assert words[4:] == [str(export), "--outfile", str(export / gguf.file_name("dpo", "fp32")), "--outtype", "f32"]
