"""A reward model of pairs."""

import pytest
import torch
from tiny_models import TEXTS
from trl_trainers import CHOSEN, LONG, REJECTED, batch_of, pair, pair_rows, reward_trainer, user

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.scoring.reward_model import RewardModel


def test_the_reward_loss_is_that_of_the_scores_by_which_ppo_learns(tiny, checkpoints):
    trainer = reward_trainer(tiny, checkpoints)
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, range(9)))
    scorer = RewardModel(trainer.model, trainer.processing_class)
    prompts = [user(text) for text in TEXTS]
    margins = torch.tensor(scorer.scores(prompts, CHOSEN)) - torch.tensor(scorer.scores(prompts, REJECTED))
    assert loss.item() == pytest.approx(-torch.nn.functional.logsigmoid(margins).mean().item(), abs=1e-5)


@pytest.mark.parametrize("size", [1, 8, 9])
def test_what_is_validated_is_of_pairs_and_not_of_batches(tiny, checkpoints, size):
    """Nine pairs: of batches of 8 and 1 the lone one counts once."""
    trainer = reward_trainer(tiny, checkpoints, per_device_eval_batch_size=size)
    got = trainer.evaluate()
    scorer = RewardModel(trainer.model, trainer.processing_class)
    prompts = [user(text) for text in TEXTS]
    chosen, rejected = (torch.tensor(scorer.scores(prompts, answers)) for answers in (CHOSEN, REJECTED))
    assert got["eval_margin"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-5)
    assert got["eval_accuracy"] == pytest.approx((chosen > rejected).float().mean().item())
    assert got["eval_mean_reward"] == pytest.approx(torch.cat([chosen, rejected]).mean().item(), abs=1e-5)


def test_reward_drops_pairs_that_are_too_long(tiny, checkpoints):
    trainer = reward_trainer(tiny, checkpoints, [*pair_rows(), pair(0, prompt=LONG)])
    assert len(trainer.train_dataset) == len(pair_rows())


def test_reward_refuses_pairs_longer_than_the_context(tiny, checkpoints):
    with pytest.raises(ParamsError, match=r"reward\.max_length: 65"):
        reward_trainer(tiny, checkpoints, max_length=65)
