"""Experiments of a study, several at a time: those that the commit has already are not run again.

Each is a `dvc exp run` in the clone of a worker. Whatever ends the study, what has finished stays, and a stage that was
training goes on from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhf_lib.common.terminal import listed
from rlhf_lib.experiments.sweep import finished
from rlhf_lib.plan.__main__ import duration
from rlhf_lib.study.design import Run
from rlhf_lib.study.workspaces import Workspace

LOGS = Path(".dvc/tmp/study")  # DVC's folder, which git does not see
LOCK = LOGS / "lock"
ENDS = (signal.SIGTERM, signal.SIGHUP)  # the latter of a terminal that is closed; nohup has it ignored


def devices() -> list[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them; none where there are none."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
        return [str(i) for i, _ in enumerate(filter(str.strip, listed.splitlines()))]
    return []


class Runner:
    """Runs experiments, `jobs` at a time, each on a GPU of its own where there are several."""

    def __init__(self, jobs: int, temperature: float) -> None:
        self.temperature = temperature
        gpus = devices()
        self.environments = [
            {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if len(gpus) > 1 else {} for i in range(jobs)
        ]
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.starting = threading.Lock()  # so that none starts unseen while the others are ended
        self.stopped = threading.Event()

    def run(self, runs: Sequence[Run]) -> None:
        """Run those that are not there yet; a `SystemExit` with the failed ones after all others have ended."""
        there = finished()
        todo: queue.SimpleQueue[Run] = queue.SimpleQueue()
        missing = [run for run in runs if run.name not in there]
        for run in missing:
            todo.put(run)
        if kept := len(runs) - len(missing):
            print(f"{kept} of {len(runs)} experiments are there already", flush=True)
        if not missing:
            return
        shared = _Shared(todo, _Progress(len(missing)))
        LOGS.mkdir(parents=True, exist_ok=True)
        with held(LOCK) as lock:
            spaces = [Workspace(LOGS / f"worker-{i}") for i in range(min(len(self.environments), len(missing)))]
            pairs = zip(spaces, self.environments, strict=False)
            workers = [threading.Thread(target=self._work, args=(space, env, lock, shared)) for space, env in pairs]
            with self._stopping():
                for worker in workers:
                    worker.start()
                for worker in workers:
                    while worker.is_alive():
                        worker.join(0.2)  # so that signals are heard
            for space in spaces:
                space.remove()
        if shared.errors:
            raise shared.errors[0]
        failed = shared.failed
        if failed:
            names = listed([run.told for run in failed])
            raise SystemExit(
                f"{len(failed)} of {len(missing)} experiments failed ({names}); {LOGS} has what they printed; the same "
                "command goes on with them"
            )

    def _work(self, space: Workspace, environment: dict[str, str], lock: int, shared: _Shared) -> None:
        try:
            self._take(space, environment, lock, shared)
        except (Exception, SystemExit) as error:  # a thread ends without a word
            shared.errors.append(error)

    def _take(self, space: Workspace, environment: dict[str, str], lock: int, shared: _Shared) -> None:
        space.make()
        while not self.stopped.is_set():
            try:
                run = shared.todo.get_nowait()
            except queue.Empty:
                return
            log = LOGS / f"{run.name}.log"
            started = time.monotonic()
            space.clean()
            code = self._one(run, space, environment, lock, log)
            if self.stopped.is_set():
                return
            if code:
                shared.failed.append(run)
                space.make()  # whatever the failure has left
            else:
                space.hand_over(run.name)
            told = f"failed: {_last_line(log)}" if code else ""
            shared.progress.tell(run, told, time.monotonic() - started)

    def _one(self, run: Run, space: Workspace, environment: dict[str, str], lock: int, log: Path) -> int:
        flags = [word for override in run.overrides(self.temperature) for word in ("-S", override)]
        command = ["dvc", "exp", "run", "--name", run.name, *flags, "select"]
        with log.open("wb") as file:
            with self.starting:
                if self.stopped.is_set():
                    return 1
                # the lock is inherited: it is held until the last of them has ended, even where this process is killed
                process = subprocess.Popen(
                    command,
                    cwd=space.folder,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    pass_fds=[lock],
                    start_new_session=True,
                )
                self.processes.add(process)
            code = process.wait()
            self.processes.discard(process)
        return code

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """End what runs when this process is asked to end."""
        heard = [number for number in ENDS if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, lambda number, frame: sys.exit(128 + number)) for number in heard}
        try:
            yield
        except BaseException:
            self.stopped.set()
            with self.starting:
                for process in [*self.processes]:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGTERM)
            with suppress(OSError):  # of a terminal that was closed
                print("stopped; the same command goes on", file=sys.stderr, flush=True)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Shared:
    """What the workers share."""

    def __init__(self, todo: queue.SimpleQueue[Run], progress: _Progress) -> None:
        self.todo, self.progress = todo, progress
        self.failed, self.errors = list[Run](), list[BaseException]()


class _Progress:
    """A line for each experiment that ends, with the time that the others will take."""

    def __init__(self, count: int) -> None:
        self.count, self.done, self.started = count, 0, time.monotonic()
        self.lock = threading.Lock()

    def tell(self, run: Run, told: str, seconds: float) -> None:
        with self.lock:
            self.done += 1
            left = (time.monotonic() - self.started) / self.done * (self.count - self.done)
            rest = f"; about {duration(left)} left" if self.done < self.count else ""
            print(f"[{self.done}/{self.count}] {run.told}: {told or duration(seconds)}{rest}", flush=True)


@contextmanager
def held(path: Path) -> Iterator[int]:
    """The file, locked; a `SystemExit` where another study holds it, or what one has started."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                f"{path}: another study runs here, or what one that was killed had started; wait for it to end, or end "
                "its dvc exp run"
            ) from None
        yield file.fileno()


def _last_line(log: Path) -> str:
    """The last line of a log but for that in which DVC says which stage failed, for what the stage said itself."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith("ERROR: failed to reproduce")]
    return (own or lines or ["it printed nothing"])[-1][:300]
