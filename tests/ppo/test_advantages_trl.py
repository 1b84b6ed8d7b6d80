"""Advantages without a critic, and the losses of them, beside TRL's own GRPOTrainer and RLOOTrainer.

TRL's trainers sample, score and compare as they do in training; only their log-probs are drawn, so that policy and
reference differ, and some ratios are clipped.
"""

import pytest
import torch
from numbers_by_hand import close
from ppo_trainers import ppo_params

from rlhf_lib.models.logprobs import Response
from rlhf_lib.ppo.loss import loss_terms
from rlhf_lib.ppo.model import PolicyOutput
from rlhf_lib.ppo.rollout import Rollout

pytestmark = pytest.mark.slow

COPIES, ROWS, LONGEST, KL_COEF = 4, 12, 8, 0.3
PROMPTS = ["Name the cat in one word.", "Paint the sky.", "Describe the dog."]


class Draws:
    """In place of TRL's forward passes: log-probs of its completions, drawn anew at each call and kept."""

    def __init__(self):
        self.generator, self.given = torch.Generator().manual_seed(0), []

    def __call__(self, model, ids, mask, kept, *args, **kwargs):
        self.given.append(-torch.rand(ids.size(0), kept, generator=self.generator))
        return self.given[-1], torch.zeros(ids.size(0), kept), None


def trl_trainer(kind, tiny, folder, reward, **changes):
    import trl
    from datasets import Dataset

    rows = [{"prompt": [{"role": "user", "content": text}]} for text in PROMPTS]
    size = {"per_device_train_batch_size": ROWS, "num_generations": COPIES, "max_completion_length": LONGEST}
    quiet = {"report_to": "none", "use_cpu": True, "bf16": False, "output_dir": str(folder), "save_strategy": "no"}
    config = getattr(trl, f"{kind}Config")(**size, **quiet, beta=KL_COEF, **changes)
    return getattr(trl, f"{kind}Trainer")(str(tiny.policy), reward, args=config, train_dataset=Dataset.from_list(rows))


def sampled(trainer):
    """What TRL makes of a rollout, and the log-probs of policy and reference that it was given for it."""
    trainer._get_per_token_logps_and_entropies = draws = Draws()
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in PROMPTS for _ in range(COPIES)]
    return trainer._generate_and_score_completions(rows), draws.given


def rollout_of(found, rewards, given):
    """The same responses as ours."""
    mask = found["completion_mask"].bool()
    responses = [Response(ids[kept].tolist(), True) for ids, kept in zip(found["completion_ids"], mask, strict=True)]
    rollout = Rollout.empty([[3]] * ROWS, responses, torch.tensor(rewards))
    assert rollout.mask.equal(mask) and len(set(mask.sum(1).tolist())) > 1
    for name, values in zip(("logprobs", "ref_logprobs"), given, strict=False):
        setattr(rollout, name, values * mask)
    return rollout


def ours(estimator, **changes):
    alone = {"advantage_estimator": estimator, "critic": "none", "num_generations": COPIES, "gamma": 1.0}
    whole = {"rollout_batch_size": ROWS, "num_minibatches": 1, "per_device_train_batch_size": ROWS}
    return ppo_params(**{**alone, **whole, "response_length": LONGEST, "kl_coef": KL_COEF, **changes})


@pytest.fixture
def rewards():
    """Those of a reward function that gives all responses to the second prompt the same one."""
    drawn = torch.randn(ROWS, generator=torch.Generator().manual_seed(1)).tolist()
    return [0.5 if COPIES <= row < 2 * COPIES else reward for row, reward in enumerate(drawn)]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_advantages_of_grpo(ending, tiny, tmp_path, rewards, scale):
    trainer = trl_trainer("GRPO", tiny._replace(policy=ending), tmp_path, lambda **_: rewards, scale_rewards=scale)
    found, _ = sampled(trainer)
    params, rollout = ours("grpo", scale_rewards=scale, kl_in="loss", kl_estimator="k3"), rollout_of(found, rewards, [])
    rollout.estimate_advantages(params, KL_COEF)
    close(rollout.advantages, found["advantages"][:, None] * rollout.mask, 1e-6)
    zero_std = trainer._metrics["train"]["frac_reward_zero_std"][-1]
    if scale != "batch":  # where TRL looks at the spread of all
        assert rollout.metrics(params)["frac_reward_zero_std"] == pytest.approx(zero_std) == pytest.approx(1 / 3)


@pytest.mark.parametrize("whiten", [False, True])
def test_the_advantages_of_rloo_with_the_kl_in_the_reward(ending, tiny, tmp_path, rewards, whiten):
    options = {"normalize_advantages": whiten}
    trainer = trl_trainer("RLOO", tiny._replace(policy=ending), tmp_path, lambda **_: rewards, **options)
    found, given = sampled(trainer)
    rollout = rollout_of(found, rewards, given)
    rollout.estimate_advantages(ours("rloo", whiten_advantages=whiten), KL_COEF)
    assert (rollout.logprobs - rollout.ref_logprobs).abs().max() > 0.1
    close(rollout.advantages, found["advantages"][:, None] * rollout.mask, 1e-6)


def our_loss(params, rollout, new):
    """The loss of the whole rollout as one micro-batch, with new log-probs (B, R)."""
    rows = range(ROWS)
    names = ("logprobs", "ref_logprobs", "advantages", "response_lengths")
    inputs = {name: rollout.flat(name, rows) for name in names} | {"num_tokens": int(rollout.mask.sum())}
    output = PolicyOutput(new[rollout.mask], None, torch.zeros(inputs["num_tokens"]))
    terms, weights = loss_terms(params, KL_COEF, output, inputs)
    return sum(weight * terms[name] for name, weight in weights.items())


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize(
    ("loss_type", "aggregation"),
    [("grpo", "sequence"), ("bnpo", "token"), ("dapo", "token"), ("dr_grpo", "constant")],
)
def test_the_losses_of_grpo_and_their_gradients(ending, tiny, tmp_path, rewards, loss_type, aggregation, corrected):
    options = {"loss_type": loss_type, "use_bias_correction_kl": corrected}
    trainer = trl_trainer("GRPO", tiny._replace(policy=ending), tmp_path, lambda **_: rewards, **options)
    found, _ = sampled(trainer)
    generator = torch.Generator().manual_seed(2)
    old, reference, new = (-torch.rand(found["completion_mask"].shape, generator=generator) for _ in range(3))
    theirs, mine = (new.clone().requires_grad_() for _ in range(2))
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (theirs, torch.zeros_like(new), None)
    found |= {"old_per_token_logps": old, "ref_per_token_logps": reference}
    expected = trainer._compute_loss(trainer.model, found)
    expected.backward()

    changes = {"scale_rewards": "group", "loss_aggregation": aggregation, "use_bias_correction_kl": corrected}
    params = ours("grpo", kl_in="loss", kl_estimator="k3", **changes)
    rollout = rollout_of(found, rewards, [old, reference])
    rollout.estimate_advantages(params, KL_COEF)
    loss = our_loss(params, rollout, mine)
    loss.backward()
    close(loss, expected, 1e-6)
    close(mine.grad, theirs.grad * rollout.mask, 1e-6)


def test_the_first_gradient_of_rloo_is_that_of_constant_but_for_its_scale(ending, tiny, tmp_path, rewards):
    """TRL's ratio is of a whole response, ours of each token: at ratio 1 both have the same gradient."""
    trainer = trl_trainer("RLOO", tiny._replace(policy=ending), tmp_path, lambda **_: rewards)
    found, given = sampled(trainer)
    theirs, mine = (given[0].clone().requires_grad_() for _ in range(2))
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (theirs, torch.zeros_like(theirs), None)
    trainer._compute_loss(trainer.model, found).backward()
    params, rollout = ours("rloo", loss_aggregation="constant"), rollout_of(found, rewards, given)
    rollout.estimate_advantages(params, KL_COEF)
    our_loss(params, rollout, mine).backward()
    close(mine.grad * LONGEST, theirs.grad * rollout.mask, 1e-6)
