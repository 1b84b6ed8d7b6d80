"""Direct preference optimisation: models/sft -> models/dpo."""

from functools import partial

from rlhf_lib import environment
from rlhf_lib.params.compute import ComputeParams
from rlhf_lib.params.dpo import DPOParams
from rlhf_lib.params.reference import ReferenceParams
from rlhf_lib.params.schema import read


def main() -> None:
    compute, params = read("compute", ComputeParams), read("dpo", DPOParams)
    reference = read("reference", ReferenceParams)
    environment.prepare()
    with environment.importing():
        from rlhf_lib import dpo, hardware, models, training, weights
        from rlhf_lib.checkpoint import CheckpointDir
        from rlhf_lib.reference import COLUMNS, PAIRS
        from rlhf_lib.tracking import write_json

    hardware.use(compute)
    checkpoints = CheckpointDir("dpo")
    train, validation = (
        dpo.with_reference(training.dataset(path, COLUMNS), f"data/reference/{split}.jsonl")
        for split, path in PAIRS.items()
    )
    trainer = dpo.build(params, reference.max_length, "models/sft", train, validation, checkpoints)
    log = training.run(trainer, checkpoints)
    load = partial(models.load_policy, "models/sft")
    if weights.export(trainer, "dpo", params, "CAUSAL_LM", "models/dpo", load) is None:
        return
    training.write_curves("dpo", log)
    summary = {key: training.last(log, f"eval_{key}") for key in ("loss", "rewards/accuracies", "rewards/margins")}
    summary = {f"validation_{key.replace('/', '_')}": value for key, value in summary.items()}
    write_json(
        "metrics/dpo/summary.json", {"dpo": {**summary, "loss": training.last(log, "loss"), "pairs": len(train)}}
    )
    checkpoints.remove()


if __name__ == "__main__":
    main()
