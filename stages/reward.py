"""The reward model: models/sft, or another base -> models/reward."""

from rlhf_lib.common import environment
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.reward.params import RewardParams


def main() -> None:
    compute, params = read("compute", ComputeParams), read("reward", RewardParams)
    target_range = read("prepare.target_range", list[float])
    environment.prepare(offline=params.source.kind != "hub")
    with environment.importing():
        from rlhf_lib.models import hardware
        from rlhf_lib.reward import trainer as reward

    splits = reward.Splits(
        "data/negatives/reward_train.jsonl",
        "data/splits/reward_validation.jsonl",
        "data/splits/groups_train.jsonl",
        "data/splits/groups_validation.jsonl",
    )
    hardware.use(compute)
    reward.run("reward", params, splits, target_range)


if __name__ == "__main__":
    main()
