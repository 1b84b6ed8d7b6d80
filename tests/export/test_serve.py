"""What is said before a server starts, and what it is given."""

import json
import shlex
import socket

import pytest

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export import serve


def test_a_port_that_is_taken_is_told_before_anything_loads():
    with socket.socket() as other:
        other.bind((serve.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ParamsError, match=f"serve: port {port}: Address already in use; give another"):
            serve.check(port)
    serve.check(port)


def test_a_port_that_is_none_and_a_library_that_is_missing_are_told(monkeypatch):
    with pytest.raises(ParamsError, match="serve: port 70000: "):
        serve.check(70000)
    monkeypatch.setattr(serve, "NEEDED", ("no_such_library",))
    with pytest.raises(ParamsError, match="no_such_library is not installed; make serve installs it"):
        serve.check(8000)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/dpo", "models/dpo"),
        ("./models/dpo/", "models/dpo"),
        ("/srv/models/dpo", "dpo"),
        ("../models/dpo", "dpo"),
    ],
)
def test_a_model_is_served_by_the_name_that_was_given(path, name):
    assert serve.served_name(path) == name


def test_the_view_has_the_files_of_the_model_and_another_generation_config(tmp_path):
    model = tmp_path / "models/dpo"
    model.mkdir(parents=True)
    for name in ("model.safetensors", "tokenizer.json", "generation_config.json"):
        (model / name).write_text("{}")
    (model / "config.json").write_text('{"use_cache": false, "n": 1}')
    serve.view(str(model), tmp_path / "view/models/dpo", {"do_sample": True})
    seen = {file.name: json.loads(file.read_text()) for file in (tmp_path / "view/models/dpo").iterdir()}
    assert seen["generation_config.json"] == {"do_sample": True} and seen["config.json"] == {"use_cache": True, "n": 1}
    assert set(seen) == {file.name for file in model.iterdir()}
    assert (model / "config.json").read_text() == '{"use_cache": false, "n": 1}'


def test_the_command_that_is_shown_is_one_that_a_shell_reads():
    words = shlex.split(serve.curl("models/dpo", 8001, 48))
    body = json.loads(words[-1])
    assert words[:2] == ["curl", "http://127.0.0.1:8001/v1/chat/completions"]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("models/dpo", 48, 0)
