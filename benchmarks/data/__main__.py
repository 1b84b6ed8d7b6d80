"""The data stages at UltraFeedback's size, beside langdetect: `python -m benchmarks.data`. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any

import yaml

from benchmarks import results
from benchmarks.data import ultrafeedback
from benchmarks.data.ultrafeedback import ENGLISH
from rlhf_lib.common.chunks import chunks
from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import read_values
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data.prepare import language

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench"
PEER_VERSION = "1.0.9"
PEER = CACHE / f"langdetect-{PEER_VERSION}"
PRESET = ROOT / "presets" / "gpt2.yaml"
OUTPUT = ROOT / "benchmarks" / "results" / "data.json"
STAGES = ("load", "prepare")
TURN = 25  # records of one filter's turn, so that what disturbs the machine disturbs both
SAMPLING = 0.2  # seconds from one look at the memory to the next


class PeakMemory(Thread):
    """Watches how much memory a process and its descendants hold together. Linux only."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_kb, self.ended = pid, 0, Event()

    def run(self) -> None:
        while not self.ended.is_set():
            self.peak_kb = max(self.peak_kb, sum(map(_pss_kb, _tree(self.pid))))
            self.ended.wait(SAMPLING)


def _tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:  # grows on the way
        with suppress(OSError):  # it ended meanwhile
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def _pss_kb(pid: int) -> int:
    """A process's memory in KiB, with its share of the pages that it has in common with others; 0 if it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return 0


def run_stage(stage: str, project: Path) -> dict[str, float]:
    """Run a stage in the folder `project`; seconds, and the peak memory in MiB. `SystemExit` where it fails."""
    command = [sys.executable, "-m", f"stages.{stage}"]
    start = time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=project, env=env, stdout=sys.stderr)
    memory = PeakMemory(process.pid)
    memory.start()
    # The usage is that of the process and of all it waited for, which its workers are.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    memory.ended.set()
    memory.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"stage {stage} ended with code {process.returncode}; see above")
    return {
        "wall_seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": memory.peak_kb / 1024,
        "largest_process_mb": usage.ru_maxrss / 1024,
    }


def params(raw: Path, workers: int | None, count_tokens: bool) -> dict[str, Any]:
    """params.yaml, with the records of `raw` as its source and prepared as the preset gpt2 says."""
    everything = load_yaml(ROOT / PARAMS_FILE)
    everything["load"] |= {"sources": [{"reader": "ultrafeedback", "path": str(raw)}], "num_proc": workers}
    everything["prepare"] |= {**load_yaml(PRESET)["prepare"], "num_proc": workers, "tokenizer_revision": None}
    if count_tokens:
        everything["prepare"] |= {"tokenizer_name_or_path": str(tokenizer_folder())}
    else:
        everything["prepare"] |= dict.fromkeys(("tokenizer_name_or_path", "max_prompt_tokens", "max_response_tokens"))
    return everything


def tokenizer_folder() -> Path:
    """A tokenizer of GPT-2's kind and size, made where it is not there yet: GPT-2's own would need the network."""
    folder = CACHE / "tokenizer-50257"
    if not folder.exists():
        from benchmarks.ppo import workload

        workload.fresh_tokenizer(50257, CACHE)
    return folder


def run(rows: int, workers: int | None, count_tokens: bool) -> dict[str, Any]:
    """The results of both stages on so many records."""
    raw = raw_file(rows)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="data-") as folder:
        (Path(folder) / PARAMS_FILE).write_text(yaml.safe_dump(params(raw, workers, count_tokens)), encoding="utf-8")
        stages = {stage: run_stage(stage, Path(folder)) for stage in STAGES}
    totals = {key: sum(stages[stage][key] for stage in STAGES) for key in ("wall_seconds", "cpu_seconds")}
    return {
        "rows": rows,
        "raw_mb": raw.stat().st_size / 2**20,
        "stages": stages,
        **totals,
        "rows_per_second": rows / totals["wall_seconds"],
        "rows_per_cpu_second": rows / totals["cpu_seconds"],
        "peak_mb": max(stages[stage]["peak_mb"] for stage in STAGES),
    }


def raw_file(rows: int) -> Path:
    """The file of so many records, made where it is not there yet."""
    path = CACHE / "data" / f"ultrafeedback-{rows}.jsonl"
    if not path.exists():
        print(f"making {path.relative_to(ROOT)}, once", file=sys.stderr)
        ultrafeedback.write(path, rows)
    return path


def compare_filters(raw: Path, sample: int) -> dict[str, dict[str, float]]:
    """langdetect's filter and ours alone on the first `sample` records, in turns and in this one process."""
    filters = {"peer": peer_filter(), "ours": our_filter}
    measured = {side: {"cpu_seconds": 0.0, "english_prompts": 0, "english_responses": 0} for side in filters}
    for is_english in filters.values():
        is_english("The first call reads the models, which is not measured.")
    for records in chunks(islice(read_values(raw), sample), TURN):
        for side, is_english in filters.items():
            start = time.process_time()
            english = [english_responses(record, is_english) for record in records]
            measured[side]["cpu_seconds"] += time.process_time() - start
            measured[side]["english_prompts"] += sum(count is not None for count in english)
            measured[side]["english_responses"] += sum(filter(None, english))
    return {side: {**of, "rows_per_cpu_second": sample / of["cpu_seconds"]} for side, of in measured.items()}


def peer_filter() -> Callable[[str], bool]:
    """Whether langdetect takes a text for English, asked as scripts do."""
    sys.path.insert(0, str(PEER))
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0

    def is_english(text: str) -> bool:
        try:
            return detect(text) == ENGLISH
        except LangDetectException:  # nothing but digits and marks
            return False

    return is_english


def our_filter(text: str) -> bool:
    """Whether stage `prepare` keeps a text whose language is to be English."""
    return not language.foreign_response(text, [ENGLISH], confidence=0.5)


def english_responses(record: Mapping[str, Any], is_english: Callable[[str], bool]) -> int | None:
    """How many responses of a record are English; they are not looked at (None) where the prompt is not."""
    if not is_english(record["instruction"]):
        return None
    return sum(is_english(completion["response"]) for completion in record["completions"])


def install_peer() -> None:
    """Install langdetect into a folder of its own, once."""
    if PEER.exists():
        return
    print(f"installing langdetect {PEER_VERSION} into {PEER.relative_to(ROOT)}, once", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="install-") as folder:
        target = Path(folder) / "langdetect"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(target), f"langdetect=={PEER_VERSION}"], check=True)
        shutil.move(target, PEER)


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    return {
        "cpu": results.cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "py3langid": version("py3langid"),
        "langdetect": PEER_VERSION,
    }


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """The runs as a Markdown table."""
    header = "| rows | raw MB | load s | prepare s | rows/s | s/1,000 rows | CPU s/1,000 rows | load MB | prepare MB |"
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    for run in runs:
        load, prepare = (run["stages"][stage] for stage in STAGES)
        lines.append(
            f"| {run['rows']} | {run['raw_mb']:.0f} | {load['wall_seconds']:.1f} | {prepare['wall_seconds']:.1f} "
            f"| {run['rows_per_second']:.0f} | {1000 / run['rows_per_second']:.2f} "
            f"| {1000 / run['rows_per_cpu_second']:.2f} | {load['peak_mb']:.0f} | {prepare['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


def summary(runs: Sequence[Mapping[str, Any]], filters: Mapping[str, Mapping[str, float]]) -> str:
    """Whether time is linear and memory flat, and the comparison."""
    first, last = runs[0], runs[-1]
    wall, cpu = (first[rate] / last[rate] for rate in ("rows_per_second", "rows_per_cpu_second"))
    peer, ours = (filters[side]["rows_per_cpu_second"] for side in ("peer", "ours"))
    return (
        f"from {first['rows']} to {last['rows']} rows: time of a row x {wall:.2f}, CPU time of a row x {cpu:.2f}, "
        f"peak memory x {last['peak_mb'] / first['peak_mb']:.2f}\n"
        f"rows per CPU second: langdetect's filter alone {peer:.0f}, ours alone {ours:.0f} ({ours / peer:.1f} times), "
        f"both stages {last['rows_per_cpu_second']:.0f} ({last['rows_per_cpu_second'] / peer:.1f} times); "
        f"per second: {last['rows_per_second']:.0f} ({last['rows_per_second'] / peer:.1f} times)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description="The stages load and prepare on synthetic UltraFeedback."
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[4000, 16_000, 64_000], help="records of each run")
    parser.add_argument("--workers", type=int, help="processes of a stage (default: one per core)")
    parser.add_argument("--tokens", action="store_true", help="with the preset's limits of length, which takes longer")
    parser.add_argument("--sample", type=int, default=500, help="records for the filters alone (default: 500)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="results file, which is written anew")
    arguments = parser.parse_args()
    if min(*arguments.rows, arguments.sample, arguments.workers or 1) < 1:
        parser.error("--rows, --sample and --workers must be at least 1")
    CACHE.mkdir(exist_ok=True)
    install_peer()
    runs = [run(rows, arguments.workers, arguments.tokens) for rows in sorted(set(arguments.rows))]
    sample = min(arguments.sample, runs[-1]["rows"])
    filters = compare_filters(raw_file(runs[-1]["rows"]), sample)
    settings = {"workers": arguments.workers, "tokens": arguments.tokens, "sample": sample}
    write_json(arguments.output, {"machine": machine(), "settings": settings, "runs": runs, "filters": filters})
    print(table(runs), summary(runs, filters), sep="\n")


if __name__ == "__main__":
    main()
