"""The comparison of the policies -> report/. With --show it prints the table of the last run and writes nothing."""

import json
import sys
from pathlib import Path

from rlhf_lib import report
from rlhf_lib.tracking import replacing

NEXT = """
The page:        report/report.md, with curves.png and policies.png
The samples:     data/samples/{sft,ppo,dpo}.jsonl
All numbers:     dvc metrics show
A sweep, or PPO against DPO: see README.md
"""


def show() -> None:
    try:
        evaluations = report.load_evaluations()
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename}: not there yet; run dvc repro") from None
    print(report.policy_table(evaluations))
    print(NEXT)


def main() -> None:
    if sys.argv[1:] == ["--show"]:
        return show()
    evaluations = report.load_evaluations()
    reward = json.loads(Path("metrics/reward/summary.json").read_text(encoding="utf-8"))["reward"]
    out = Path("report")
    with replacing(out / "report.md") as file:
        file.write(report.page(evaluations, reward))
    report.draw_curves(out / "curves.png")
    report.draw_policies(evaluations, out / "policies.png")
    return None


if __name__ == "__main__":
    main()
