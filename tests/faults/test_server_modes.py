"""The stage that judges, against servers of a language model that misbehave: in a process of its own, within bounds."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hostile_servers import HostileServer
from judged import write_project
from project import ROOT
from server_modes import MODES, Mode
from tally import tally

KEY = "sk-hostile-9f/3+QzT7w==Lm_0xB"
MEMORY = 1 << 30  # bytes of the stage's process, of which its libraries take a fifth
DEADLINE = 60  # seconds, of which the process needs some to start
FEW = 4


def run_stage(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Two questions, one after the other, each with one more try and two seconds each."""
    write_project(
        folder,
        url,
        {"ppo": ["long answer"], "sft": ["short"]},
        concurrency=1,
        timeout=2.0,
        max_retries=1,
        api_key_env="JUDGE_KEY",
    )
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, "-m", "stages.llm_judge"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), "JUDGE_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )


def shows_key(text: str) -> bool:
    """Whether a text holds eight characters of the key, as they are or encoded."""
    pieces = [KEY[start : start + 8] for start in range(len(KEY) - 7)]
    encoded = [b64encode(f"{before}:{KEY}".encode()).decode()[12:24] for before in ("a", "ab", "abc")]
    encoded += [KEY.encode().hex(), "".join(f"\\u{ord(char):04x}" for char in KEY), quote(KEY, safe="")]
    return any(piece.lower() in f"{text} {unquote(text)}".lower() for piece in pieces + encoded)


def fault(folder: Path, mode: Mode) -> str | None:
    """What is wrong with how the stage takes a mode of a server; None where it holds."""
    folder.mkdir()
    with HostileServer(mode=mode.answer, honest=1) as server:
        try:
            ran = run_stage(folder, server.url)
        except subprocess.TimeoutExpired:
            return "it did not end"
    told = "".join(ran.stderr.splitlines(keepends=True)[-1:])
    files = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    rows = folder / "data/llm_judge.jsonl"
    right = [
        (not server.elsewhere.heard, "it went to another server"),
        (not shows_key(ran.stdout + ran.stderr + "".join(files.values())), "the key is shown"),
        ("Traceback" not in ran.stderr and len(ran.stderr.splitlines()) <= 1, "more than one line"),
        (not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ran.stdout + ran.stderr), "it steers the terminal"),
    ]
    if mode.kept is None:
        right += [
            (ran.returncode == 1, f"exit code {ran.returncode}"),
            (mode.told in told and "replies so far are kept" in told and len(told) < 900, "not what is to be told"),
            (len(list(folder.glob("checkpoints/llm_judge_cache/*.json"))) == 1, "the first reply is not kept"),
            (not rows.exists(), "rows were written"),
        ]
    else:
        replies = json.loads(files[rows])["replies"] if rows in files else None
        right.append((ran.returncode == 0 and replies == ["A", mode.kept], f"replies {replies}"))
    wrong = [what for holds, what in right if not holds]
    return f"{', '.join(wrong)}: {ran.stdout}{ran.stderr}"[-2000:] if wrong else None


def faults(folder: Path, names: list[str]) -> dict[str, str]:
    """Those of the modes that do not hold, with what was wrong."""
    found = {name: fault(folder / str(number), MODES[name]) for number, name in enumerate(names)}
    return {name: what for name, what in found.items() if what is not None}


def test_a_few_ways_to_misbehave_end_in_one_line_or_a_right_reply(tmp_path):
    assert faults(tmp_path, random.Random(0).sample(sorted(MODES), FEW)) == {}


@pytest.mark.slow
@pytest.mark.faults
def test_every_way_to_misbehave_ends_in_one_line_or_a_right_reply(tmp_path):
    assert len(MODES) >= 30
    found = faults(tmp_path, list(MODES))
    tally("LLM servers that misbehave", len(MODES), len(MODES) - len(found))
    assert found == {}
