"""The SFT model's log-probs of the preference pairs -> data/reference."""

import tempfile

from rlhf_lib import environment
from rlhf_lib.params.compute import ComputeParams
from rlhf_lib.params.reference import ReferenceParams
from rlhf_lib.params.schema import read


def main() -> None:
    compute, params = read("compute", ComputeParams), read("reference", ReferenceParams)
    environment.prepare()
    from rlhf_lib import dpo, hardware, processes, training
    from rlhf_lib.rows import write_jsonl

    hardware.use(compute)
    for split, path in dpo.PAIRS.items():
        pairs = training.dataset(path, dpo.COLUMNS)
        with tempfile.TemporaryDirectory() as scratch:
            rows = dpo.reference_logprobs("models/sft", pairs, params.max_length, scratch)
        if processes.is_main():
            write_jsonl(f"data/reference/{split}.jsonl", rows)
            print(f"reference: {len(rows)} of {len(pairs)} {split} pairs")


if __name__ == "__main__":
    main()
