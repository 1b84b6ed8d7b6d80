"""The forms of files that docs/data.md lists, each with a file of that form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from project import ROOT
from record_files import write, write_arrow, write_parquet

from rlhf_lib.common.rows import parse_row
from rlhf_lib.common.schema import check
from rlhf_lib.common.yaml import parse_value
from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams


class Form(NamedTuple):
    """A line of the table."""

    form: str
    file: str  # its name; then, after a comma, its encoding
    content: str
    options: str  # of the source, beside reader and path
    gives: str


def listed() -> list[Form]:
    """The forms in the table of docs/data.md."""
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    section = page.partition("\n## Forms of files\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [Form(*row) for row in cells if row[0] != "form"]


def outcome(form: Form, folder: Path, said: Any) -> list[str]:
    """What loading the file gives: a text for each row, then what was printed of rejections and of unused columns; or
    the line that it ends in. `said` gives what was printed.
    """
    source = {"reader": "file", "name": "mine", **_options(form.options), "path": _written(form, folder)}
    values = {"sources": [source], "instructions": 5, "num_proc": 1, "seed": 0}
    try:
        load(folder / "raw", check(LoadParams, values, "load"))
    except SystemExit as error:
        return [str(error).replace(f"{folder}/", "")]
    rows = [parse_row(line, "row") for line in (folder / "raw/rows.jsonl").read_bytes().splitlines()]
    return [*map(_shown, rows), *re.findall(r"(?:rejected|columns not used): .*", said())]


def code(cell: str) -> list[str]:
    """The pieces of code in a cell."""
    return [two or one for two, one in re.findall(r"``(.+?)``|`([^`]+)`", cell)]


def _options(cell: str) -> dict[str, Any]:
    return {key: value for text in code(cell) for key, value in parse_value(f"{{{text}}}").items()}


def _written(form: Form, folder: Path) -> str:
    name, _, encoding = code(form.file)[0].partition(", ")
    content = "".join(code(form.content))
    if name.endswith("parquet"):
        return write_parquet(folder / name, [json.loads(content)])
    if name.endswith("arrow"):
        return write_arrow(folder / name, [json.loads(content)])
    if ".json" not in name or r"\n{" in content or r"\n[" in content:  # in JSON, \n within a text is JSON's own
        content = re.sub(r"\\n(?=[{\[]|\\n)" if ".json" in name else r"\\n", "\n", content).replace(r"\t", "\t")
    return write(folder, name, content.encode(encoding or "utf-8"))


def _shown(row: Mapping[str, Any]) -> str:
    """A row in a line: `test: [S] Hi > Hello > Q? -> A (1), B (0)`."""
    said = [f"[{m['content']}]" if m["role"] == "system" else m["content"] for m in row["prompt"]]
    prompt = " > ".join(said).replace("] > ", "] ", 1)
    answers = [r["content"] + ("" if r["score"] is None else f" ({r['score']:g})") for r in row["responses"]]
    shown = f"{'test: ' * (row['split'] == 'test')}{prompt}{' -> ' * bool(answers)}{', '.join(answers)}"
    return shown.replace("\n", r"\n")
