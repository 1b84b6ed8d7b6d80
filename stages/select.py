"""The chosen policy's headline numbers -> metrics/policy.json, which `dvc metrics diff` compares."""

import json
import sys
from pathlib import Path

from rlhf_lib.common import left_out, paths, running
from rlhf_lib.common.files import write_curve, write_json
from rlhf_lib.common.schema import policy_argument, read
from rlhf_lib.evaluation.samples import mode_name

# few: `dvc exp show` has a column for each
HEADLINE = (
    "reward",
    "win_rate",
    "judge",
    "judge_win_rate",
    "judge_win_rate_se",
    "kl",
    "length",
    "gold",
    "gold_gain",
    "gold_gain_se",
    "few_prompts",
)
FRONTIER = ("kl", "reward", "judge", "gold")


def main() -> None:
    policy = policy_argument(sys.argv)
    left_out.unless_there("select", paths.evaluation(policy))
    mode = mode_name(read("evaluate.temperatures", list[float])[0])
    measured = json.loads(Path(paths.evaluation(policy)).read_text(encoding="utf-8"))[mode]
    write_json(paths.POLICY_METRICS, {"eval": {key: measured[key] for key in HEADLINE if key in measured}})
    write_curve(paths.FRONTIER, [{key: measured[key] for key in FRONTIER if key in measured}])


if __name__ == "__main__":
    running.run(main)
