"""Stages in forks of one process that has imported all libraries: a run takes a second, and cannot harm the next.

Run as a script, this is that process: it reads requests, a line of JSON each, and answers each with a line.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from project import ROOT

LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "safetensors.torch",
    "matplotlib.pyplot",
    "py3langid.langid",
)
MEMORY = 4 << 30  # bytes of address space beside what the libraries take


@dataclass(frozen=True)
class Outcome:
    """How a command ended. code: None where it was still running at its deadline, and was killed."""

    code: int | None
    output: str
    seconds: float


class ForkedStages:
    """A context in which `run` runs commands, one at a time."""

    def __enter__(self) -> ForkedStages:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
        for name in ("DVC_ROOT", "DVC_STAGE", "WORLD_SIZE", "RANK"):
            environment.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(self, folder: Path, command: str, deadline: float = 60) -> Outcome:
        """Run `stages.sft` or `stages.evaluate ppo` in a folder, as `python -m` would."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"folder": str(folder), "command": command, "deadline": deadline}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def serve() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    from rlhf_lib.common import environment

    environment.prepare()
    with environment.importing():
        for name in (*LIBRARIES, *_modules("rlhf_lib"), *_modules("stages")):
            with suppress(ImportError):
                import_module(name)
    import torch

    torch.set_num_threads(1)  # threads do not live on in a fork
    environment.prepare = lambda offline=True: None  # type: ignore[assignment]  # of a fork: all is imported
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _modules(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as written:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(written.fileno(), 1)
            os.dup2(written.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os._exit(_run(request["folder"], request["command"].split()))
        code = _wait(child, start + request["deadline"])
        written.seek(0)
        output = written.read(1_000_000).decode("utf-8", "replace")
    return {"code": code, "output": output, "seconds": time.monotonic() - start}


def _wait(child: int, end: float) -> int | None:
    """The exit code of a child, as a shell gives it; None where it had to be killed."""
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)  # it leads a session of its own
    os.waitpid(child, 0)
    return None


def _run(folder: str, command: list[str]) -> int:
    """What the interpreter does with `python -m` of the command, without its end: its exit code."""
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
    module, arguments = import_module(command[0]), command[1:]
    sys.argv = [f"{command[0].replace('.', '/')}.py", *arguments]
    code = 0
    try:
        if command[0].startswith("stages."):
            from rlhf_lib.common import running

            running.run(module.main)
        else:
            module.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    serve()
