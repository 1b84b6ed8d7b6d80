"""The answers of the SFT model from which the best of n are chosen -> data/samples/best_of_n.jsonl."""

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.schema import PARAMS_FILE, BatchSize, read
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.evaluation.params import BestOfNParams, EvaluateParams
from rlhf_lib.models.params import ComputeParams


def main() -> None:
    sizes, params = read("best_of_n", BestOfNParams).n, read("evaluate", EvaluateParams)
    if not sizes:
        write_jsonl(paths.samples("best_of_n"), [])
        return
    temperature = params.temperatures[0]
    if temperature == 0:
        raise ParamsError(
            f"{PARAMS_FILE}: best_of_n.n: the answers are drawn at the first of evaluate.temperatures, which is 0, so "
            "that all of a prompt's are the same; put a temperature above 0 first, or set best_of_n.n to []"
        )
    left_out.unless_there("best_of_n", paths.split(params.split), paths.REWARD)
    compute = read("compute", ComputeParams)
    pairs = read("reward.per_device_eval_batch_size", BatchSize), read("judge.per_device_eval_batch_size", BatchSize)
    environment.prepare()
    with environment.importing():
        from rlhf_lib.evaluation import sampling as evaluation
        from rlhf_lib.evaluation.draws import Draws
        from rlhf_lib.evaluation.samples import CANDIDATE
        from rlhf_lib.models import hardware
        from rlhf_lib.models import loading as models
        from rlhf_lib.models.templates import check_file
        from rlhf_lib.scoring.reward_model import load_scorers
        from rlhf_lib.training.checkpoint import ChunkDir

    hardware.use(compute)
    rows = evaluation.held_out_rows(paths.split(params.split), params)
    dtype = hardware.eval_dtype(params.bf16_full_eval)
    sft, tokenizer = models.load_policy(paths.SFT, dtype), models.load_tokenizer(paths.SFT)
    scorers = load_scorers(*pairs, dtype)
    check_file(paths.split(params.split), tokenizer, *(scorer.tokenizer for scorer in scorers.values()))
    # random numbers of their own: SFT's samples, which the candidates are compared with, are not among them
    draws = Draws(sft, tokenizer, rows, params, temperature, max(sizes), CANDIDATE, 1)
    checkpoints = ChunkDir("best_of_n")
    candidates = draws.samples(checkpoints.path / "samples.jsonl")
    evaluation.score(candidates, scorers)
    if is_main():
        write_jsonl(paths.samples("best_of_n"), candidates)
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
