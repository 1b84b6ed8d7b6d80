"""A second reward model, of prompts that nothing else learns from, to judge by: models/sft, or another base ->
models/judge."""

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.reward.params import JudgeParams
from rlhf_lib.training import report_to
from stages import reward


def main() -> None:
    compute, params = read("compute", ComputeParams), read("judge", JudgeParams)
    report_to.check()
    left_out.unless_there("judge", paths.split("judge_train"))
    environment.prepare(offline=params.source.kind != "hub")
    files = [paths.split("judge_train"), paths.split("judge_validation")]
    reward.train("judge", compute, params, files, target_range=(0.0, 1.0))


if __name__ == "__main__":
    running.run(main)
