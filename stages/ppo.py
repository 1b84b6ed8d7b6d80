"""Proximal policy optimisation: models/sft -> models/ppo."""

from functools import partial

from rlhf_lib.common import environment, few, left_out, paths, running
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.scoring.source import directories, needs_hub
from rlhf_lib.training import report_to


def main() -> None:
    compute, params = read("compute", ComputeParams), read("ppo", PPOParams)
    report_to.check()
    left_out.unless_wanted("ppo", "ppo", read("methods.ppo", bool))
    critic = [paths.REWARD] if params.has_own_critic else []
    left_out.unless_there("ppo", paths.split("prompts_train"), *directories(params.reward_funcs), *critic)
    environment.prepare(offline=not needs_hub(params.reward_funcs))
    with environment.importing():
        from rlhf_lib.common.files import write_json
        from rlhf_lib.common.rows import read_jsonl, write_jsonl
        from rlhf_lib.models import hardware
        from rlhf_lib.models import loading as models
        from rlhf_lib.ppo import build as ppo
        from rlhf_lib.training import trainer as training
        from rlhf_lib.training import weights
        from rlhf_lib.training.checkpoint import CheckpointDir

    hardware.use(compute)
    checkpoints = CheckpointDir("ppo", any_processes=True)
    train, validation, ptx = (
        list(read_jsonl(paths.split(name))) for name in ("prompts_train", "prompts_validation", "sft_train")
    )
    trainer = ppo.build(params, paths.SFT, paths.REWARD, train, validation, ptx, checkpoints)
    log = training.run(trainer, checkpoints, "ppo")
    load = partial(models.load_policy, paths.SFT)
    if weights.export(trainer, "ppo", params, "CAUSAL_LM", paths.PPO, load, part="policy") is None:
        return
    write_jsonl(paths.samples("ppo_training"), trainer.ppo_state.completions)
    of_critic = ["explained_variance"] if params.has_critic else []
    keys = ("loss", "reward", "kl", "entropy", *of_critic, "clip_fraction", "approx_kl")
    summary = {key: training.last_or_none(log, key) for key in keys}
    summary |= training.validation(trainer, log, "reward", "kl", "length", "eos_rate")
    summary |= {"final_kl_coef": trainer.ppo_state.kl_coef, **training.summary(trainer, log, "rollout")}
    write_json(paths.summary("ppo"), {"ppo": summary})
    for told in trainer.sampler.reward.idle():
        print(f"ppo: {told}")
    few.tell("ppo", validation=validation)
    checkpoints.remove()


if __name__ == "__main__":
    running.run(main)
