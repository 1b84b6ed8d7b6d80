"""One policy on the test prompts -> data/samples/<policy>.jsonl."""

import sys

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.schema import BatchSize, policy_argument, read
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.models.params import ComputeParams


def main() -> None:
    policy = policy_argument(sys.argv)
    compute, params = read("compute", ComputeParams), read("evaluate", EvaluateParams)
    pairs = read("reward.per_device_eval_batch_size", BatchSize), read("judge.per_device_eval_batch_size", BatchSize)
    left_out.unless_there(f"evaluate@{policy}", paths.split(params.split), paths.model(policy))
    environment.prepare()
    with environment.importing():
        from rlhf_lib.common.rows import write_jsonl
        from rlhf_lib.evaluation.sampling import Evaluator, held_out_rows
        from rlhf_lib.models import hardware
        from rlhf_lib.models import loading as models
        from rlhf_lib.models.templates import check_file
        from rlhf_lib.scoring.reward_model import load_scorers
        from rlhf_lib.training.checkpoint import ChunkDir

    hardware.use(compute)
    dtype = hardware.eval_dtype(params.bf16_full_eval)
    sft = models.load_policy(paths.SFT, dtype)
    evaluator = Evaluator(
        params,
        sft if policy == "sft" else models.load_policy(paths.model(policy), dtype),
        sft,
        load_scorers(*pairs, dtype),
        models.load_tokenizer(paths.SFT),
    )
    scorers = evaluator.scorers.values()
    check_file(paths.split(params.split), evaluator.tokenizer, *(scorer.tokenizer for scorer in scorers))
    checkpoints = ChunkDir(f"evaluate@{policy}")
    rows = held_out_rows(paths.split(params.split), params)
    samples = evaluator.samples(rows, checkpoints.path / "samples.jsonl")
    if is_main():
        write_jsonl(paths.samples(policy), samples)
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
