"""The reward model: models/sft, or another base -> models/reward."""

from rlhf_lib import environment
from rlhf_lib.params.compute import ComputeParams
from rlhf_lib.params.reward import RewardParams
from rlhf_lib.params.schema import read


def main() -> None:
    compute, params = read("compute", ComputeParams), read("reward", RewardParams)
    target_range = read("prepare.target_range", list[float])
    environment.prepare(offline=params.source.kind != "hub")
    with environment.importing():
        from rlhf_lib import hardware, reward

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
