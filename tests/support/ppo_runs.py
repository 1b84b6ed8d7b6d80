"""Rewards and params of whole PPO runs."""


def contains_e(completions, **columns):
    return [float("e" in completion[0]["content"]) for completion in completions]
