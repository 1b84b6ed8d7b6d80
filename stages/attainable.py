"""Answers of the SFT model, to estimate from what any policy could reach -> data/samples/attainable.jsonl."""

from dataclasses import replace

from rlhf_lib.attainable.params import AttainableParams, RewardWeights
from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.schema import BatchSize, NewTokens, Positive, read
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.scoring.source import directories, needs_hub


def main() -> None:
    params, evaluate = read("attainable", AttainableParams), read("evaluate", EvaluateParams)
    if not params.n:
        write_jsonl(paths.samples("attainable"), [])
        return
    compute, reward_funcs = read("compute", ComputeParams), read("ppo.reward_funcs", list[str])
    # how PPO samples and rewards; its other params, such as kl_coef, may change without another draw
    temperature = read("ppo.temperature", Positive)
    sampling = replace(
        evaluate,
        seed=params.seed,
        max_new_tokens=read("ppo.response_length", NewTokens),
        min_new_tokens=read("ppo.min_new_tokens", int),
        no_repeat_ngram_size=0,
        stop_strings=read("ppo.stop_strings", list[str]),
        top_k=read("ppo.top_k", int),
        top_p=read("ppo.top_p", float),
        per_device_eval_batch_size=params.per_device_eval_batch_size,
    )
    of_rewards = read("ppo.reward_weights", RewardWeights), read("ppo.normalize_rewards", bool)
    pairs = read("reward.per_device_eval_batch_size", BatchSize), read("judge.per_device_eval_batch_size", BatchSize)
    left_out.unless_there("attainable", paths.split(evaluate.split), *directories(reward_funcs))
    environment.prepare(offline=not needs_hub(reward_funcs))
    with environment.importing():
        from rlhf_lib.attainable import rewards
        from rlhf_lib.evaluation import sampling as evaluation
        from rlhf_lib.evaluation.draws import Draws
        from rlhf_lib.models import hardware, loading
        from rlhf_lib.models.templates import check_file
        from rlhf_lib.scoring.reward_model import RewardModel, load_scorers
        from rlhf_lib.training.checkpoint import ChunkDir

    hardware.use(compute)
    rows = evaluation.held_out_rows(paths.split(evaluate.split), evaluate)[: params.max_prompts]
    dtype = hardware.eval_dtype(evaluate.bf16_full_eval)
    sft, tokenizer = loading.load_policy(paths.SFT, dtype), loading.load_tokenizer(paths.SFT)
    scorers = load_scorers(*pairs, dtype)
    check_file(paths.split(evaluate.split), tokenizer, *(scorer.tokenizer for scorer in scorers.values()))
    # random numbers of their own, as best_of_n has with 1
    drawn = (sft, tokenizer, rows, sampling, temperature, params.n, "attainable", 2)
    checkpoints = ChunkDir("attainable")
    samples = Draws(*drawn, length_param="ppo.response_length").samples(checkpoints.path / "samples.jsonl")
    evaluation.score(samples, scorers)
    rewards.put(samples, rows, tokenizer, reward_funcs, *of_rewards, RewardModel.ANSWERS * pairs[0])
    if is_main():
        write_jsonl(paths.samples("attainable"), samples)
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
