"""One policy on the test prompts -> data/samples/<policy>.jsonl and metrics/eval/<policy>.json."""

import sys

from rlhf_lib import environment
from rlhf_lib.comparison import mode_name, summary
from rlhf_lib.params.evaluate import EvaluateParams
from rlhf_lib.params.schema import policy_argument, read


def main() -> None:
    policy = policy_argument(sys.argv)
    params = read("evaluate", EvaluateParams)
    environment.prepare()
    from rlhf_lib import models
    from rlhf_lib.evaluation import Evaluator
    from rlhf_lib.rewards import RewardModel
    from rlhf_lib.rows import read_jsonl, write_jsonl
    from rlhf_lib.tracking import write_json

    # by id, which is a hash: the first of them are a fair draw from every source
    rows = sorted(read_jsonl("data/splits/test.jsonl"), key=lambda row: row["id"])[: params.max_prompts]
    sft = models.load_policy("models/sft")
    reward = RewardModel.load("models/reward")
    evaluator = Evaluator(
        params, models.load_policy(f"models/{policy}"), sft, reward, models.load_tokenizer("models/sft")
    )
    samples = []
    for temperature in params.temperatures:
        samples += evaluator.samples(rows, temperature)
    write_jsonl(f"data/samples/{policy}.jsonl", samples)

    baseline = samples if policy == "sft" else list(read_jsonl("data/samples/sft.jsonl"))
    modes = map(mode_name, params.temperatures)
    metrics = {
        mode: summary([s for s in samples if s["mode"] == mode], [s for s in baseline if s["mode"] == mode])
        for mode in modes
    }
    write_json(f"metrics/eval/{policy}.json", {**metrics, "preference_accuracy": evaluator.preference_accuracy(rows)})


if __name__ == "__main__":
    main()
