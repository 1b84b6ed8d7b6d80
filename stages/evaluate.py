"""One policy on the test prompts -> data/samples/<policy>.jsonl and metrics/eval/<policy>.json."""

import sys

from rlhf_lib.common import environment
from rlhf_lib.common.schema import policy_argument, read
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.models.params import ComputeParams


def main() -> None:
    policy = policy_argument(sys.argv)
    compute, params = read("compute", ComputeParams), read("evaluate", EvaluateParams)
    environment.prepare()
    with environment.importing():
        from rlhf_lib.common.files import write_json
        from rlhf_lib.common.rows import read_jsonl, write_jsonl
        from rlhf_lib.evaluation.policy_metrics import policy_metrics
        from rlhf_lib.evaluation.samples import mode_name
        from rlhf_lib.evaluation.sampling import Evaluator, held_out_rows
        from rlhf_lib.models import hardware, processes
        from rlhf_lib.models import loading as models
        from rlhf_lib.scoring.reward_model import RewardModel

    hardware.use(compute)
    sft = models.load_policy("models/sft")
    evaluator = Evaluator(
        params,
        sft if policy == "sft" else models.load_policy(f"models/{policy}"),
        sft,
        RewardModel.load("models/reward"),
        RewardModel.load("models/judge"),
        models.load_tokenizer("models/sft"),
    )
    samples = evaluator.samples(held_out_rows("data/splits/test.jsonl", params.max_prompts))
    if not processes.is_main():
        return
    write_jsonl(f"data/samples/{policy}.jsonl", samples)

    baseline = samples if policy == "sft" else read_jsonl("data/samples/sft.jsonl")
    modes = [mode_name(temperature) for temperature in params.temperatures]
    write_json(f"metrics/eval/{policy}.json", policy_metrics(samples, baseline, modes))


if __name__ == "__main__":
    main()
