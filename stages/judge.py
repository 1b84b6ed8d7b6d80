"""A second reward model, of prompts that nothing else learns from, to judge by: models/sft, or another base ->
models/judge."""

from rlhf_lib.common import environment
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.reward.params import JudgeParams


def main() -> None:
    compute, params = read("compute", ComputeParams), read("judge", JudgeParams)
    environment.prepare(offline=params.source.kind != "hub")
    with environment.importing():
        from rlhf_lib.models import hardware
        from rlhf_lib.reward import trainer as reward

    hardware.use(compute)
    reward.run("judge", params, reward.Splits("data/splits/judge_train.jsonl", "data/splits/judge_validation.jsonl"))


if __name__ == "__main__":
    main()
