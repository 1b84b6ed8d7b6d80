"""Kahneman-Tversky optimisation on good and bad answers: models/sft -> models/kto."""

from functools import partial

from rlhf_lib.common import environment, few, left_out, paths, running
from rlhf_lib.common.schema import read
from rlhf_lib.kto.params import KTOParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.training import report_to


def main() -> None:
    compute, params = read("compute", ComputeParams), read("kto", KTOParams)
    report_to.check()
    left_out.unless_wanted("kto", "kto", read("methods.kto", bool))
    left_out.unless_there("kto", paths.split("thumbs_train"))
    environment.prepare()
    with environment.importing():
        from rlhf_lib.common.files import write_json
        from rlhf_lib.kto import balance
        from rlhf_lib.kto import trainer as kto
        from rlhf_lib.kto.data import COLUMNS, FILES
        from rlhf_lib.models import hardware
        from rlhf_lib.models import loading as models
        from rlhf_lib.models.lengths import say
        from rlhf_lib.training import trainer as training
        from rlhf_lib.training import weights
        from rlhf_lib.training.checkpoint import CheckpointDir

    hardware.use(compute)
    checkpoints = CheckpointDir("kto")
    train, validation = (training.dataset(path, COLUMNS) for path in FILES.values())
    trainer = kto.build(params, paths.SFT, train, validation, checkpoints)
    good = sum(trainer.train_dataset["label"])
    bad = len(trainer.train_dataset) - good
    if unbalanced := balance.told(good, bad, params):
        say(unbalanced)
    log = training.run(trainer, checkpoints, "kto")
    load = partial(models.load_policy, paths.SFT)
    if weights.export(trainer, "kto", params, "CAUSAL_LM", paths.KTO, load) is None:
        return
    summary = training.validation(trainer, log, "loss", "rewards/margins", "kl")
    more = {"loss": training.last(log, "loss"), "good": good, "bad": bad, **training.summary(trainer, log)}
    write_json(paths.summary("kto"), {"kto": summary | more})
    margin = summary["validation_rewards_margins"]
    told = "no validation" if margin is None else f"validation margin {margin:.3f} (beta times nats)"
    print(f"kto: {good:,} good and {bad:,} bad answers; {told}")
    if margin is not None and margin < 0:
        print("kto: on the validation, bad answers gained on good ones (docs/kto.md)")
    few.tell("kto", validation=validation)
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
