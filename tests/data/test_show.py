"""`python -m rlhf_lib.data.show` on what the demo's data stages wrote."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from project import DEMO, ROOT

from rlhf_lib.check.sections import valid_sections
from rlhf_lib.common import schema
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data import lengths, show
from rlhf_lib.data.load.params import LoadParams
from rlhf_lib.data.prepare.params import PrepareParams


def shown(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["show", *arguments])
    show.main()
    return capsys.readouterr().out


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder in which the data stages have run on a small demo."""
    from dataclasses import replace

    from rlhf_lib.common.files import write_json
    from rlhf_lib.data.load.load import load
    from rlhf_lib.data.prepare.prepare import prepare

    monkeypatch.chdir(tmp_path)
    raw, splits = tmp_path / "data/raw", tmp_path / "data/splits"
    params = DEMO
    load(raw, replace(schema.read("load", LoadParams, params), instructions=150, num_proc=1))
    prepared = replace(schema.read("prepare", PrepareParams, params), validation_share=0.2, num_proc=1)
    write_json("metrics/data.json", prepare(raw, splits, tmp_path / "data/rejected.jsonl", prepared))
    shutil.copy(params, tmp_path / "params.yaml")
    return tmp_path


def test_rows_are_those_of_the_files(made, capsys, monkeypatch):
    out = shown(capsys, monkeypatch)
    for name in show.FILES:
        rows = len((made / f"data/splits/{name}.jsonl").read_text().splitlines())
        lines = out.partition(f"\n{name} ")[2].splitlines()
        end = next(i for i, line in enumerate(lines) if i and not line.startswith(" "))
        # the last line of a split is that of all its sources, or of its only one
        assert lines[end - 1].split()[1] == f"{rows:,}", name
    assert out.startswith("Lengths are estimated, at 4 bytes a token (a word of English is about 1.5), ")
    assert "  sft.max_length                 128      0 %" in out


def test_lengths_medians_and_scores_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no tokenizer: 4 bytes are a token
    records = [
        {"source": "s/a", "prompt": said("1234 678"), "chosen": said("x"), "rejected": said("123456789")}
        | {"score_chosen": 8.0, "score_rejected": 3.0},
        {"source": "s/a", "prompt": said("1234567 9 bcdef"), "completion": said("x yyy")},
        {"source": "s/b", "prompt": said("Zoë"), "responses": [{"content": "", "score": 1.0}]},
    ]
    sections = valid_sections(load_yaml(DEMO))
    columns = show.describe(iter(records), lengths.Lengths(sections["base"], sections["prepare"]))
    assert {source: column.rows for source, column in columns.items()} == {"s/a": 2, "s/b": 1}
    a = columns["s/a"]
    assert (list(a.prompts), list(a.responses), list(a.scores)) == ([2, 4], [1, 3, 2], [8.0, 3.0])
    assert list(a.dialogues) == [2 + 3, 4 + 2]
    first, _, total = show.table("test", columns)
    assert first.split() == ["test", "s/a", "2", "3", "2", "2", "2", "5.5", "3..8"]
    assert total.split() == ["all", "3", "2", "2", "2", "2", "3", "1..8"]


def test_what_was_dropped_and_examples(made, capsys, monkeypatch):
    out = shown(capsys, monkeypatch, "--split", "test", "--examples")
    assert "rows dropped            foreign_prompt" in out
    assert "--- test, demo/facts\nuser: " in out and "\nanswer (" in out
    assert "sft_train" not in out


def test_merged_rows_alone_are_not_lost():
    none = {key: {} for key in ("rejected_by_load", "dropped_responses", "truncated", "prompts_without_pair")}
    told = show.dropped({**none, "dropped_rows": {"merged": {"a": 3}, "no_response": {"a": 2, "b": 1}}})
    assert [line.split("  ")[1] for line in told] == ["not lost", "rows dropped"]


def test_how_many_prompts_it_takes(made, capsys, monkeypatch):
    out = shown(capsys, monkeypatch)
    assert "\nFewer than 30 prompts in sft_validation " in out
    told, *lines = out.partition("Until each held-out split has about 30 prompts, ")[2].splitlines()
    assert told == "these shares need 3,900 prompts in all:"  # judge: 30 / (.13 * .06)
    assert [line.split()[0] for line in lines] == [
        *(f"{part}_validation" for part in ("judge", "preference", "prompts", "reward", "sft")),
        "test",
    ]
    now = len((made / "data/splits/test.jsonl").read_text().splitlines())
    assert lines[-1].split() == ["test", str(now), "now;", "430", "needed"]  # 30 / .07


def test_what_the_pairs_teach(made, capsys, monkeypatch):
    """The demo's better answers are often the shorter ones; the order of its answers says nothing."""
    out = shown(capsys, monkeypatch).partition("What the pairs teach beside quality; ")[2].partition("\n\n")[0]
    rows = [json.loads(line) for line in (made / "data/splits/preference_train.jsonl").read_text().splitlines()]
    longer = [len(row["chosen"][-1]["content"]) - len(row["rejected"][-1]["content"]) for row in rows]
    right = sum(1 if more > 0 else 0.5 if more == 0 else 0 for more in longer) / len(rows)
    assert f"  {len(rows)} pairs of preference_train, reward_train; by length alone, {100 * right:.1f} ± " in out
    assert "\n  demo: an answer that stands before another in the file won " in out and "position: " not in out
    assert "What the pairs teach" not in shown(capsys, monkeypatch, "--split", "test")


def test_files_without_rows_are_not_in_the_table(made, capsys, monkeypatch):
    write_jsonl("data/splits/judge_train.jsonl", [])
    assert "\njudge_train" not in shown(capsys, monkeypatch) and "\n\n\n" not in shown(capsys, monkeypatch)


def test_without_data_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["show"])
    with pytest.raises(SystemExit, match=r"^metrics/data.json: cannot be read .*; run dvc repro prepare first$"):
        show.main()


def said(text):
    return [{"role": "user", "content": text}]


def test_a_reader_that_leaves_early_ends_it_quietly(made):
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "rlhf_lib.data.show"],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    os.close(write)
    assert ended.returncode == -signal.SIGPIPE and b"Error" not in ended.stderr


def test_what_would_steer_a_terminal_is_replaced(made, capsys, monkeypatch):
    """Rows come from anywhere, and may hold any byte."""
    file = made / "data/splits/test.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    row["prompt"][0]["content"] = "a\x1b[2Jb\x07"
    write_jsonl(file, [row])
    out = shown(capsys, monkeypatch)
    assert "user: a�[2Jb�" in out and "\x1b" not in out and "\x07" not in out
