"""A project whose samples are to be judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from project import ROOT
from shipped_params import shipped

from rlhf_lib.common.rows import write_jsonl
from stages import llm_judge as stage

SHIPPED = shipped()
PPO = ["a long answer", "no", "abc", "the same", "long enough"]
SFT = ["short", "no way", "xyz", "the same", "brief"]


def write_project(path, url, answers_of=None, **changes):
    """params.yaml, rubric and samples; by default only ppo-sft is judged."""
    section = {"base_url": url, "model": "judge", "comparisons": ["ppo-sft"], "max_retries": 2, **changes}
    params = {name: SHIPPED[name] for name in ("policy", "evaluate")} | {"llm_judge": SHIPPED["llm_judge"] | section}
    (path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(ROOT / "rubrics", path / "rubrics", dirs_exist_ok=True)
    for policy, texts in (answers_of or {"ppo": PPO, "sft": SFT}).items():
        write_jsonl(path / f"data/samples/{policy}.jsonl", samples(texts))


def samples(texts):
    """What stage evaluate writes, as far as it matters here, with samples that are not to be judged."""
    for i, text in enumerate(texts):
        prompt = [{"role": "user", "content": f"Question {i}"}]
        row = {"id": f"{i:016x}", "source": "demo", "prompt": prompt}
        for mode, draw, response in (("t1", 0, text), ("t1", 1, "other draw"), ("greedy", 0, "other mode")):
            yield {**row, "mode": mode, "draw": draw, "response": response}


def metrics():
    return json.loads(Path("metrics/llm_judge.json").read_text())["llm_judge"]


def outputs():
    return Path("data/llm_judge.jsonl").read_text(), Path("metrics/llm_judge.json").read_text()


def fault():
    """What the stage says when it stops: one line, and exit code 1."""
    with pytest.raises(SystemExit) as error:
        stage.main()
    text = error.value.code
    assert isinstance(text, str) and len(text.splitlines()) == 1, text
    return text


def cached():
    return sorted(Path("checkpoints/llm_judge_cache").iterdir())
