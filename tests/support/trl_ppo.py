"""The formulae of TRL 1.12's PPO (trl/experimental/ppo), restated."""

import torch


def trl_masks(ids, pad):
    """Tokens that count for policy and critic, and each row's position of the score (727, 764-768, 778)."""
    width = ids.size(1)
    is_pad = ids == pad
    last = torch.where(is_pad.any(1), is_pad.int().argmax(1), width) - 1
    places = torch.arange(width)
    of_policy, of_critic = places <= last[:, None], places <= last[:, None] + 1
    return of_policy, of_critic, (last + 1).where(last + 1 < width, last)


def trl_mean(x, mask):  # 237
    return (x * mask).sum() / mask.sum()


def trl_whiten(x, mask, shift_mean=True):  # 245-271: the variance is over n - 1, and without shift the mean is added
    mean, n = trl_mean(x, mask), mask.sum()
    std = (trl_mean((x - mean) ** 2, mask) * n / (n - 1) + 1e-8).sqrt()
    return (x - mean) / std + (0 if shift_mean else mean)


def trl_rewards(scores, kl, kl_coef, at):  # 775-779
    rewards = -kl_coef * kl
    rewards[torch.arange(len(scores)), at] += scores
    return rewards


def trl_gae(rewards, values, gamma, lam):  # 787-796: all columns alike, padding or not
    advantages, ahead, next_value = [], torch.zeros(len(values), dtype=values.dtype), 0.0
    for reward, value in zip(reversed(rewards.unbind(1)), reversed(values.unbind(1)), strict=True):
        ahead = reward + gamma * next_value - value + gamma * lam * ahead
        advantages.insert(0, ahead)
        next_value = value
    advantages = torch.stack(advantages, 1)
    return advantages, advantages + values


def trl_losses(new, old, values, old_values, advantages, returns, masks, clips):  # 827-846
    clip, clip_value = clips
    near = values.clamp(old_values - clip_value, old_values + clip_value)
    value = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    ratio = (new - old).exp()
    policy = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    return trl_mean(policy, masks[0]), trl_mean(value, masks[1]) / 2
