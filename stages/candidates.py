"""Answers of the SFT model to PPO's prompts, with their rewards, to choose from -> data/candidates."""

from rlhf_lib.candidates.params import CandidatesParams
from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.schema import BatchSize, read
from rlhf_lib.models.params import ComputeParams


def main() -> None:
    compute, params = read("compute", ComputeParams), read("candidates", CandidatesParams)
    pairs = read("reward.per_device_eval_batch_size", BatchSize)
    left_out.unless_wanted("candidates", "rft", read("methods.rft", bool))
    left_out.unless_there("candidates", paths.split("prompts_train"), paths.REWARD)
    environment.prepare()
    with environment.importing():
        from rlhf_lib.candidates.sampling import PROMPTS, Candidates
        from rlhf_lib.common.rows import read_jsonl, some, write_jsonl
        from rlhf_lib.models import hardware
        from rlhf_lib.models.loading import load_policy, load_tokenizer
        from rlhf_lib.models.templates import check_file
        from rlhf_lib.scoring.reward_model import RewardModel
        from rlhf_lib.training.checkpoint import ChunkDir

    hardware.use(compute)
    dtype = hardware.frozen_dtype()
    policy, tokenizer = load_policy(paths.SFT, dtype), load_tokenizer(paths.SFT)
    scorer = RewardModel.load(paths.REWARD, batch_size=RewardModel.ANSWERS * pairs, dtype=dtype)
    for file in PROMPTS.values():
        check_file(file, tokenizer, scorer.tokenizer)
    checkpoints = ChunkDir("candidates")
    candidates = Candidates(params, policy, tokenizer, scorer)
    for part, file in PROMPTS.items():
        rows = some(read_jsonl(file), params.max_prompts)
        drawn = candidates.draw(rows, checkpoints.path / f"{part}.jsonl")
        if is_main():
            write_jsonl(paths.candidates(part), drawn)
            print(f"candidates: {params.n} answers to each of {len(rows):,} {part} prompts")
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
