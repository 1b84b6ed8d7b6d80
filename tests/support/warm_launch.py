"""A launcher for `launch` in params.yaml: a stage in a fork of a process that has imported the libraries.

Importing them takes most of a small stage's time. `python tests/support/warm_launch.py -m stages.sft` reads its code
from the folder where it runs, as `python -m` does. Outside of `warm_launch` it is `python -m`.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

LAUNCH = "launch=python tests/support/warm_launch.py"  # a setting for the preset command, in a copy of the project
SOCKET = "WARM_LAUNCH"
LIBRARIES = (
    *("transformers.trainer", "transformers.generation", "transformers.models.gpt2.modeling_gpt2", "peft", "datasets"),
    *(f"trl.trainer.{kind}_trainer" for kind in ("sft", "reward", "dpo")),
)


@contextmanager
def warm_launch() -> Iterator[dict[str, str]]:
    """The variables of the environment with which the launcher forks, from one process for the whole context."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--serve", path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as server:
            assert server.stdin is not None and server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield {SOCKET: path}
            server.stdin.close()  # upon which it ends


def serve(path: str) -> list[str]:
    """Fork a child for each command that comes, one after the other, and send its exit code back. Returns in the
    children alone: the words of the command."""
    gc.disable()
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()
    gc.enable()
    import torch

    torch.set_num_threads(1)  # threads do not live on in a fork
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            client, _ = listener.accept()
            with client:
                text, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
                while not text.endswith(b"\n"):
                    text += client.recv(1 << 20)
                child = os.fork()
                if child == 0:
                    return become(json.loads(text), streams)
                for stream in streams:
                    os.close(stream)
                client.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    sys.exit()


def become(request: dict, streams: list[int]) -> list[str]:
    """Take the place of the client: its folder, environment and streams. The words of its command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    del sys.modules["huggingface_hub"]  # before a stage imports it, it sets the environment that the server has
    import numpy

    numpy.random.seed()  # as a new process would; Python's own generator does it at a fork
    return request["words"]


def forked(path: str, words: list[str]) -> int:
    """The exit code of a command that the server runs."""
    request = {"folder": os.getcwd(), "environment": dict(os.environ), "words": words}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        return int(server.recv(16) or 1)


def main() -> None:
    words = sys.argv[1:]
    if words[0] == "--serve":
        words = serve(words[1])
    elif SOCKET in os.environ:
        sys.exit(forked(os.environ[SOCKET], words) % 256)
    else:
        os.execv(sys.executable, [sys.executable, *words])
    sys.argv = words[1:]
    runpy.run_module(words[1], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
