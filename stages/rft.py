"""Rejection-sampling fine-tuning: models/sft, on the best of its own answers to each prompt -> models/rft."""

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.rows import JsonObject, read_jsonl, write_jsonl
from rlhf_lib.common.schema import read
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.rft.params import RFTParams
from rlhf_lib.training import report_to


def fine_tune(stage: str, compute: ComputeParams, params: RFTParams, seed: int | None = None) -> None:
    """Choose candidates, with a seed at random, and fine-tune on them; write what the stage of that name writes."""
    environment.prepare()
    with environment.importing():
        from rlhf_lib.models import hardware
        from rlhf_lib.rft import selection
        from rlhf_lib.sft import fine_tune

    hardware.use(compute)
    chosen: dict[str, list[JsonObject]] = {}
    more: dict[str, float | None] = {}
    for part in ("train", "validation"):
        rows, numbers = selection.choose(read_jsonl(paths.candidates(part)), params.n, seed)
        chosen[paths.chosen(stage, part)] = rows
        more |= {f"{part}_{key}": value for key, value in numbers.items()}
    if not chosen[paths.chosen(stage, "train")]:
        raise ParamsError("params.yaml: candidates.max_new_tokens: no candidate ends within it; raise it")
    if is_main():
        learnt, without = len(chosen[paths.chosen(stage, "train")]), int(more["train_prompts_without"] or 0)
        if without > learnt:
            print(
                f"{stage}: {without:,} of {learnt + without:,} prompts have no candidate that ends, and teach nothing; "
                "raise candidates.max_new_tokens"
            )
        for file, rows in chosen.items():
            write_jsonl(file, rows)
    fine_tune.train(stage, params, paths.SFT, chosen, more)


def main() -> None:
    compute, params = read("compute", ComputeParams), read("rft", RFTParams)
    report_to.check()
    left_out.unless_wanted("rft", "rft", read("methods.rft", bool))
    left_out.unless_there("rft", paths.split("prompts_train"), paths.CANDIDATES)
    fine_tune("rft", compute, params)


if __name__ == "__main__":
    running.run(main)
