"""Supervised fine-tuning: models/base -> models/sft."""

import math
from functools import partial

from rlhf_lib.common import environment, few, left_out, paths, running
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.sft.params import SFTParams


def main() -> None:
    compute, params = read("compute", ComputeParams), read("sft", SFTParams)
    left_out.unless_there("sft", paths.split("sft_train"), copies={paths.SFT: paths.BASE})
    environment.prepare()
    with environment.importing():
        from rlhf_lib.common.files import write_json
        from rlhf_lib.common.rows import read_jsonl
        from rlhf_lib.models import hardware
        from rlhf_lib.models import loading as models
        from rlhf_lib.sft import trainer as sft
        from rlhf_lib.training import trainer as training
        from rlhf_lib.training import weights
        from rlhf_lib.training.checkpoint import CheckpointDir

    hardware.use(compute)
    checkpoints = CheckpointDir("sft")
    held_out = list(read_jsonl(paths.split("sft_validation")))
    train, validation = (training.dataset(paths.split(f"sft_{part}"), sft.COLUMNS) for part in ("train", "validation"))
    trainer = sft.build(params, paths.BASE, train, validation, checkpoints)
    log = training.run(trainer, checkpoints, "sft")
    load = partial(models.load_policy, paths.BASE)
    policy = weights.export(trainer, "sft", params, "CAUSAL_LM", paths.SFT, load)
    if policy is None:
        return
    limits = params.max_length, params.per_device_eval_batch_size
    before, after = (
        sft.token_loss(loaded(), trainer.processing_class, held_out, *limits)  # one after the other: both take memory
        for loaded in (load, partial(models.load_policy, paths.SFT))
    )
    training.write_curves("sft", log)
    summary = {"validation_loss_before": before, "validation_loss": after, "validation_perplexity": perplexity(after)}
    write_json(paths.summary("sft"), {"sft": {**summary, "loss": training.last(log, "loss"), "rows": len(train)}})
    print(f"sft: {len(train):,} rows; {told(before, after)}")
    few.tell("sft", validation=held_out)
    checkpoints.remove()


def perplexity(loss: float | None) -> float | None:
    return None if loss is None else math.exp(loss)


def told(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "no validation"
    return f"validation loss {before:.3f} before and {after:.3f} after (nats per token)"


if __name__ == "__main__":
    running.run(main)
