"""The comparison -> report/ and metrics/comparison.json, from what has been run.

--open also opens the page; --show prints the table and the verdict, and writes nothing.
"""

import os
import sys
import textwrap
import webbrowser
from pathlib import Path

from rlhf_lib.common import paths, running
from rlhf_lib.common.files import write_json
from rlhf_lib.common.schema import read
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.report import inputs, page, recorded, tables
from rlhf_lib.report.params import ReportParams
from rlhf_lib.report.verdict import comparison_metrics, verdict

NEXT = """
The page:        report/index.html (make report writes it again and opens it)
The samples:     data/samples/{{{}}}.jsonl
All numbers:     dvc metrics show
Which method is better, and how sure that is: make study (docs/study.md)
"""


def show() -> None:
    found = inputs.load()
    if not found.policies:
        raise SystemExit(f"{paths.evaluation('sft')}: not there yet; run dvc repro")
    told = verdict(found)
    print(tables.text_table(found), "", sep="\n")
    for sentence in (told.headline, *told.details):
        print(textwrap.fill(sentence, 120))
    print(NEXT.format(",".join(found.policies)))


def open_page(path: Path) -> None:
    print(path)
    # without a screen, Python would start a browser in the terminal
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(path.resolve().as_uri())


def main() -> None:
    arguments = sys.argv[1:]
    if arguments not in ([], ["--show"], ["--open"]):
        raise ParamsError(f"usage: python -m stages.report [--show | --open]; got {' '.join(arguments)}")
    if arguments:
        recorded.check()
    if arguments == ["--show"]:
        return show()
    params = read("report", ReportParams)
    found = inputs.load()
    path = page.write(found, Path(paths.REPORT), params.max_prompts)
    write_json(paths.COMPARISON, comparison_metrics(found))
    return open_page(path) if arguments else None


if __name__ == "__main__":
    running.run(main)
