"""The judge on PPO's answers along its training -> metrics/overoptimisation.tsv."""

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.schema import BatchSize, read
from rlhf_lib.models.params import ComputeParams


def main() -> None:
    compute, in_bf16 = read("compute", ComputeParams), read("evaluate.bf16_full_eval", bool)
    pairs = read("judge.per_device_eval_batch_size", BatchSize)
    left_out.unless_there("overoptimisation", paths.samples("ppo_training"), paths.JUDGE)
    environment.prepare()
    with environment.importing():
        from rlhf_lib.common.files import write_curve
        from rlhf_lib.common.rows import read_jsonl
        from rlhf_lib.measure.overoptimisation import COLUMNS, curve
        from rlhf_lib.models import hardware
        from rlhf_lib.scoring.reward_model import RewardModel, shared

    hardware.use(compute)
    dtype, size = hardware.eval_dtype(in_bf16), RewardModel.ANSWERS * pairs
    judge = RewardModel.load(paths.JUDGE, batch_size=size, dtype=dtype)
    rows = curve(read_jsonl(paths.samples("ppo_training")), shared(judge, "Scoring by judge"))
    if is_main():
        write_curve(paths.OVEROPTIMISATION, rows, COLUMNS)


if __name__ == "__main__":
    running.run(main)
