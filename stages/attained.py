"""What no policy can better, and how much of it each reached -> metrics/attainable.json and metrics/attainable.tsv."""

from rlhf_lib.attainable.params import AttainableParams
from rlhf_lib.common import environment, few, left_out, paths, running
from rlhf_lib.common.files import write_curve, write_json
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.schema import BatchSize, read
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.scoring.source import needs_hub

AXES = ("kl", "score")


def main() -> None:
    params, ppo = read("attainable", AttainableParams), read("ppo", PPOParams)
    compute, evaluate = read("compute", ComputeParams), read("evaluate", EvaluateParams)
    batch_size = read("reward.per_device_eval_batch_size", BatchSize)
    if not params.n:
        write_json(paths.ATTAINABLE, {"attainable": {}})
        write_curve(paths.ATTAINABLE_CURVE, [], AXES)
        return
    left_out.unless_there("attained", paths.samples("attainable"))
    environment.prepare(offline=not needs_hub(ppo.reward_funcs))
    with environment.importing():
        from rlhf_lib.attainable import numbers, objective, rewards
        from rlhf_lib.models import hardware
        from rlhf_lib.models.loading import load_tokenizer
        from rlhf_lib.scoring.reward_model import RewardModel

    hardware.use(compute)
    of_sft = read_jsonl(paths.samples("attainable"))
    compared = objective.compared(evaluate, ppo, {sample["id"] for sample in of_sft})
    prompts, tokenizer = read_jsonl(paths.split(evaluate.split)), load_tokenizer(paths.SFT)
    of_rewards = ppo.reward_funcs, ppo.reward_weights, ppo.normalize_rewards, RewardModel.ANSWERS * batch_size
    for samples in compared.values():
        rewards.put(samples, prompts, tokenizer, *of_rewards)
    if not is_main():
        return
    for samples in (of_sft, *compared.values()):
        objective.put_scores(samples, ppo, objective.spread(of_sft))
    answers = numbers.Answers.of(of_sft)
    found = numbers.summary(answers, compared, ppo.kl_coef)
    write_json(paths.ATTAINABLE, {"attainable": found})
    write_curve(paths.ATTAINABLE_CURVE, numbers.curve(answers, [*params.betas, ppo.kl_coef]), AXES)
    for line in (*objective.departures(ppo), *numbers.doubts(found)):
        print(f"attained: {line}")
    few.tell("attained", **{evaluate.split: of_sft})


if __name__ == "__main__":
    running.run(main)
