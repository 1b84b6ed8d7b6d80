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


def test_reward_drops_pairs_that_are_too_long(tiny, checkpoints):
    trainer = reward_trainer(tiny, checkpoints, [*pair_rows(), pair(0, prompt=LONG)])
    assert len(trainer.train_dataset) == len(pair_rows())


def test_reward_refuses_pairs_longer_than_the_context(tiny, checkpoints):
    with pytest.raises(ParamsError, match=r"reward\.max_length: 65"):
        reward_trainer(tiny, checkpoints, max_length=65)
