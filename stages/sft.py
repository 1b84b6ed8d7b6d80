"""Supervised fine-tuning: models/base -> models/sft."""

import math

from rlhf_lib import environment
from rlhf_lib.params.schema import read
from rlhf_lib.params.sft import SFTParams


def main() -> None:
    params = read("sft", SFTParams)
    environment.prepare()
    from rlhf_lib import models, sft, training
    from rlhf_lib.checkpoint import CheckpointDir
    from rlhf_lib.rows import read_jsonl
    from rlhf_lib.tracking import write_json

    checkpoints = CheckpointDir("sft")
    held_out = list(read_jsonl("data/splits/sft_validation.jsonl"))
    train, validation = (
        training.dataset(f"data/splits/sft_{split}.jsonl", sft.COLUMNS) for split in ("train", "validation")
    )
    trainer = sft.build(params, "models/base", train, validation, checkpoints)
    before = sft.token_loss(models.load_policy("models/base"), trainer.processing_class, held_out, params.max_length)
    log = training.run(trainer, checkpoints)
    models.save(trainer.model, trainer.processing_class, "models/sft")
    after = sft.token_loss(models.load_policy("models/sft"), trainer.processing_class, held_out, params.max_length)
    training.write_curves("sft", log)
    summary = {"validation_loss_before": before, "validation_loss": after, "validation_perplexity": math.exp(after)}
    write_json("metrics/sft/summary.json", {"sft": {**summary, "loss": training.last(log, "loss"), "rows": len(train)}})
    checkpoints.remove()


if __name__ == "__main__":
    main()
