"""The chosen policy's headline numbers -> metrics/policy.json, which `dvc metrics diff` compares."""

import json
import sys
from pathlib import Path

from rlhf_lib.comparison import mode_name
from rlhf_lib.params.evaluate import EvaluateParams
from rlhf_lib.params.schema import policy_argument, read
from rlhf_lib.tracking import write_curve, write_json

HEADLINE = (
    "reward",
    "reward_se",
    "win_rate",
    "win_rate_se",
    "kl",
    "length",
    "eos_rate",
    "gold",
    "gold_gain",
    "gold_gain_se",
)


def main() -> None:
    policy = policy_argument(sys.argv)
    mode = mode_name(read("evaluate", EvaluateParams).temperatures[0])
    measured = json.loads(Path(f"metrics/eval/{policy}.json").read_text(encoding="utf-8"))
    headline = {key: measured[mode][key] for key in HEADLINE if key in measured[mode]}
    write_json("metrics/policy.json", {"eval": {**headline, "preference_accuracy": measured["preference_accuracy"]}})
    write_curve("metrics/frontier.tsv", [{"kl": headline["kl"], "reward": headline["reward"]}])


if __name__ == "__main__":
    main()
