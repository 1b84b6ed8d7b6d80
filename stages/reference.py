"""The SFT model's log-probs of the preference pairs -> data/reference."""

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.schema import read
from rlhf_lib.dpo.params import ReferenceParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.training.params import QuantizationParams


def main() -> None:
    compute, params = read("compute", ComputeParams), read("reference", ReferenceParams)
    bits = QuantizationParams(load_in_8bit=read("dpo.load_in_8bit", bool), load_in_4bit=read("dpo.load_in_4bit", bool))
    left_out.unless_wanted("reference", "dpo", read("methods.dpo", bool))
    left_out.unless_there("reference", paths.with_negatives("preference_train"))
    environment.prepare()
    with environment.importing():
        from rlhf_lib.common.rows import read_jsonl, write_jsonl
        from rlhf_lib.dpo import reference
        from rlhf_lib.models import hardware
        from rlhf_lib.models.loading import load_policy, load_tokenizer
        from rlhf_lib.training.checkpoint import ChunkDir
        from rlhf_lib.training.quantization import quantization

    hardware.use(compute)
    # held as DPO holds the policy: what rounding changes would else count as the policy's distance. Tables stay in fp32
    # here and there: those of a policy without adapters are trained.
    policy = load_policy(paths.SFT, hardware.frozen_dtype(), tables=False, **quantization("dpo", bits))
    tokenizer = load_tokenizer(paths.SFT)
    checkpoints = ChunkDir("reference")
    limits = params.max_length, params.precompute_ref_batch_size
    for split, path in reference.PAIRS.items():
        pairs, file = read_jsonl(path), checkpoints.path / f"{split}.jsonl"
        rows = reference.reference_logprobs(policy, tokenizer, pairs, *limits, split, file)
        if is_main():
            write_jsonl(paths.reference(split), rows)
            print(f"reference: {len(rows)} of {len(pairs)} {split} pairs")
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
