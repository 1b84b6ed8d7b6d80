"""The judge on PPO's answers along its training -> metrics/overoptimisation.tsv."""

from rlhf_lib import environment


def main() -> None:
    environment.prepare()
    from rlhf_lib.overoptimisation import COLUMNS, curve
    from rlhf_lib.rewards import RewardModel
    from rlhf_lib.rows import read_jsonl
    from rlhf_lib.tracking import write_curve

    completions = read_jsonl("data/samples/ppo_training.jsonl")
    write_curve("metrics/overoptimisation.tsv", curve(completions, RewardModel.load("models/judge")), COLUMNS)


if __name__ == "__main__":
    main()
