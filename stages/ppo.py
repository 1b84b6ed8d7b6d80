"""Proximal policy optimisation: models/sft -> models/ppo."""

from rlhf_lib import environment
from rlhf_lib.params.ppo import PPOParams
from rlhf_lib.params.schema import read


def main() -> None:
    params = read("ppo", PPOParams)
    environment.prepare()
    from rlhf_lib import models, training
    from rlhf_lib.checkpoint import CheckpointDir
    from rlhf_lib.ppo import run
    from rlhf_lib.rows import read_jsonl
    from rlhf_lib.tracking import write_json

    checkpoints = CheckpointDir("ppo")
    train, validation = (
        [row["prompt"] for row in read_jsonl(f"data/splits/prompts_{split}.jsonl")] for split in ("train", "validation")
    )
    trainer = run.build(params, "models/sft", "models/reward", train, validation, checkpoints)
    log = training.run(trainer, checkpoints)
    models.save(trainer.model.policy, trainer.processing_class, "models/ppo")
    training.write_curves("ppo", log)
    keys = ("reward", "kl", "entropy", "explained_variance", "clip_fraction", "approx_kl")
    summary = {key: training.last(log, key) for key in keys}
    summary |= {
        f"validation_{key}": training.last(log, f"eval_{key}") for key in ("reward", "kl", "length", "eos_rate")
    }
    summary["final_kl_coef"] = trainer.kl_coef
    write_json("metrics/ppo/summary.json", {"ppo": summary})
    checkpoints.remove()


if __name__ == "__main__":
    main()
