"""Direct preference optimisation: models/sft -> models/dpo."""

from functools import partial

from rlhf_lib.common import environment, few, left_out, paths, running
from rlhf_lib.common.schema import read
from rlhf_lib.dpo.params import DPOParams, ReferenceParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.training import report_to


def main() -> None:
    compute, params = read("compute", ComputeParams), read("dpo", DPOParams)
    reference = read("reference", ReferenceParams)
    report_to.check()
    left_out.unless_wanted("dpo", "dpo", read("methods.dpo", bool))
    left_out.unless_there("dpo", paths.with_negatives("preference_train"))
    environment.prepare()
    with environment.importing():
        from rlhf_lib.common.files import write_json
        from rlhf_lib.dpo import displacement
        from rlhf_lib.dpo import trainer as dpo
        from rlhf_lib.dpo.reference import COLUMNS, PAIRS
        from rlhf_lib.models import hardware
        from rlhf_lib.models import loading as models
        from rlhf_lib.training import best, weights
        from rlhf_lib.training import trainer as training
        from rlhf_lib.training.checkpoint import CheckpointDir

    hardware.use(compute)
    checkpoints = CheckpointDir("dpo")
    train, validation = (
        dpo.with_reference(training.dataset(path, COLUMNS), paths.reference(split), params.ld_alpha)
        for split, path in PAIRS.items()
    )
    trainer = dpo.build(params, reference.max_length, paths.SFT, train, validation, checkpoints)
    log = training.run(trainer, checkpoints, "dpo")
    load = partial(models.load_policy, paths.SFT)
    if weights.export(trainer, "dpo", params, "CAUSAL_LM", paths.DPO, load) is None:
        return
    summary = training.validation(trainer, log, "loss", "rewards/accuracies", "rewards/margins")
    more = {"loss": training.last(log, "loss"), "pairs": len(train), **training.summary(trainer, log)}
    write_json(paths.summary("dpo"), {"dpo": summary | more})
    accuracy = summary["validation_rewards_accuracies"]
    told = "no validation" if accuracy is None else f"validation accuracy {accuracy:.3f}"
    print(f"dpo: {len(train):,} pairs; {told}")
    if accuracy is not None and accuracy < 0.5:
        print("dpo: on most validation pairs the chosen answer did not gain on the rejected one (docs/dpo.md)")
    if displaced := displacement.told(best.until(trainer, log), params):
        print(displaced)
    few.tell("dpo", validation=validation)
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
