"""Trainers of reward models on pairs and groups of answers."""

import pytest
from encoders import PROMPTS
from trl_trainers import CHOSEN, REJECTED, TRAINER, assistant

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.reward import base as reward_base
from rlhf_lib.reward import trainer as reward
from rlhf_lib.reward.params import RewardParams

ANSWERS = ["cat", "the dog", "sky sky", "one word"]
# of each prompt four answers, best first, two of them equal
SCORES, TARGETS = [9.0, 6.0, 6.0, 2.0], [0.9, 0.6, 0.6, 0.2]
SPLITS = reward.Splits("pairs.jsonl", "pairs.jsonl", "groups.jsonl", "groups.jsonl")


def response(content, score, target):
    return {"content": content, "score": score, "target": target}


def group(i, answers=None):
    answers = answers or (ANSWERS[::-1] if i == 8 else ANSWERS)
    responses = [response(*given) for given in zip(answers, SCORES, TARGETS, strict=True)]
    return {"id": str(i), "source": "demo/facts", "prompt": PROMPTS[i], "responses": responses}


def pair(i, **scores):
    answers = {"chosen": assistant(CHOSEN[i]), "rejected": assistant(REJECTED[i])}
    given = {"score_chosen": 7.0, "score_rejected": 7.0 - (i % 3 + 1) / 2, **scores}
    return {"id": f"{i}-0", "source": "demo/facts", "prompt": PROMPTS[i], **answers, **given}


@pytest.fixture
def splits(checkpoints):
    """The files of SPLITS, in the folder where the test runs."""
    write_jsonl("pairs.jsonl", [pair(i) for i in range(9)])
    write_jsonl("groups.jsonl", [group(i) for i in range(9)])


def params(base, **changes):
    own = {"max_length": 64, "center_rewards_coefficient": None, "loss_type": "bradley_terry", "bounded": False}
    return RewardParams(**{**TRAINER, **own, "model_name_or_path": str(base), **changes})


def build(base, checkpoints, bounds=None, **changes):
    return reward.build("reward", params(base, **changes), SPLITS, bounds, checkpoints)


def load(base, **changes):
    return reward_base.load("reward", params(base, **changes), {})
