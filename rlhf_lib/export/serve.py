"""`transformers serve` on loopback, with a model's own template, stops and sampling.

The server samples only where the model's generation config says so, whatever temperature a request asks for, and a
model directory of the pipeline says nothing. So it is given a view of the directory: links to its files, and a
generation config as an export has it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export import requests

HOST = "127.0.0.1"
NEEDED = ("fastapi", "uvicorn")
ANSWER_TOKENS = 256  # asked for by the example, where nothing says how long answers are


def check(port: int) -> None:
    """A `ParamsError` where a library of the server is missing, or the port is taken."""
    for name in NEEDED:
        if find_spec(name) is None:
            raise ParamsError(f"serve: {name} is not installed; make serve installs it (requirements-serve.txt)")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "no port has such a number"
            raise ParamsError(f"serve: port {port}: {why}; give another: make serve PORT=8001") from None


def served_name(path: str) -> str:
    """The name under which requests ask for the model in a directory: as it was given, where that lies in here."""
    given = Path(os.path.normpath(path))
    return given.name if given.is_absolute() or os.pardir in given.parts else str(given)


def of_directory(path: str) -> dict[str, Any]:
    """The generation config with which a model's directory is served: its own where it is an export; else, of a model
    of the run, with the sampling of its evaluation.

    A `SystemExit` of one line where there is no such model.
    """
    from transformers import GenerationConfig

    from rlhf_lib import talk
    from rlhf_lib.common.dvc_project import md5
    from rlhf_lib.export import directory
    from rlhf_lib.export.provenance import Run
    from rlhf_lib.models import loading

    talk.check(path)
    own = GenerationConfig.from_pretrained(path)
    if directory.read_manifest(Path(path)) is None:
        run = Run.read()
        if run.fault:
            print(f"note: how its evaluation drew answers is not known: {run.fault}")
        stage = run.maker(md5(path))
        tokenizer = loading.load_tokenizer(path)
        own = directory.generation_config(own, tokenizer, run.evaluated(stage), run.stop_strings(stage))
    return own.to_diff_dict()


def view(path: str, folder: Path, generation_config: Mapping[str, Any]) -> None:
    """Links in `folder` to the files of a model's directory, beside another generation config."""
    folder.mkdir(parents=True)
    for file in Path(path).resolve().iterdir():
        if file.is_file() and file.name not in ("generation_config.json", "config.json"):
            (folder / file.name).symlink_to(file)
    config = json.loads(Path(path, "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"use_cache": True}), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation_config), encoding="utf-8")


def curl(name: str, port: int, max_tokens: int) -> str:
    """A command that asks the server one question."""
    body = {"model": name, "messages": [{"role": "user", "content": "Tell me the capital of France."}]}
    text = json.dumps(body | {"max_tokens": max_tokens, "temperature": 0})
    return f"curl http://{HOST}:{port}/v1/chat/completions -H 'Content-Type: application/json' -d '{text}'"


def run(path: str, port: int) -> None:
    """Serve a model's directory until Ctrl-C or SIGTERM. `environment.prepare()` came before: the network is off."""
    from transformers.cli.serve import Serve
    from transformers.cli.serving.model_manager import ModelManager

    generation_config, name = of_directory(path), served_name(path)
    max_tokens = generation_config.get("max_new_tokens") or ANSWER_TOKENS
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="rlhf-serve-") as folder:
        view(path, Path(folder) / name, generation_config)
        os.chdir(folder)  # so that the model's path is its name
        # its own list is of the user's cache of hub models, and fails where there is none
        requests.install()
        ModelManager.get_gen_models = staticmethod(lambda cache_dir=None: [{"id": name, "object": "model"}])
        threading.Thread(target=_announce, args=(name, port, max_tokens), daemon=True).start()
        try:
            Serve(force_model=name, host=HOST, port=port)
        except KeyboardInterrupt:
            print()
        finally:
            os.chdir("/")


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _announce(name: str, port: int, max_tokens: int) -> None:
    """Say how to ask, once there is somebody to answer."""
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                break
        time.sleep(0.1)
    print(f"{name} is served on http://{HOST}:{port}/v1 (Ctrl-C ends); for example:\n\n  ", end="")
    print(curl(name, port, max_tokens), end="\n\n", flush=True)
