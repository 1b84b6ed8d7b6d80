"""Rewards and params of whole PPO runs."""

from ppo_trainers import EVAL_ROWS

from rlhf_lib.generation.sampling import response_text


def contains_e(completions, **columns):
    return [float("e" in completion[0]["content"]) for completion in completions]


CONSTANT = {"lr_scheduler_type": "constant"}


def texts(trainer, rollout):
    return [response_text(trainer.processing_class, response) for response in rollout.responses]


def by_length(completions, **columns):
    return [float(len(completion[0]["content"])) for completion in completions]


def bad_after(calls):
    """A reward that rises with the evaluations up to their number `calls`, and falls from there."""
    count = [0]

    def reward(prompts, **columns):
        if len(prompts) == len(EVAL_ROWS):
            count[0] += 1
        number = (count[0] + 1) // 2  # each evaluation samples twice
        return [float(-abs(number - calls))] * len(prompts)

    return reward


BEST = {"eval_rollouts": 1, "load_best_model_at_end": True, "learning_rate": 1e-2, **CONSTANT}

CUT = {"max_approx_kl": 1e-3, "learning_rate": 5e-3, "num_ppo_epochs": 4, "total_rollouts": 4, **CONSTANT}
