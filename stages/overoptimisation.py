"""The judge on PPO's answers along its training -> metrics/overoptimisation.tsv."""

from rlhf_lib import environment
from rlhf_lib.params.compute import ComputeParams
from rlhf_lib.params.schema import read


def main() -> None:
    compute = read("compute", ComputeParams)
    environment.prepare()
    with environment.importing():
        from rlhf_lib import hardware, processes
        from rlhf_lib.overoptimisation import COLUMNS, curve
        from rlhf_lib.rewards import RewardModel, shared
        from rlhf_lib.rows import read_jsonl
        from rlhf_lib.tracking import write_curve

    hardware.use(compute)
    rows = curve(read_jsonl("data/samples/ppo_training.jsonl"), shared(RewardModel.load("models/judge")))
    if processes.is_main():
        write_curve("metrics/overoptimisation.tsv", rows, COLUMNS)


if __name__ == "__main__":
    main()
