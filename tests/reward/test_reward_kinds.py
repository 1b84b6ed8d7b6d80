"""Stages reward and judge: the kinds of reward model, on decoders and encoders."""

import math

import pytest
import torch
from encoders import PROMPTS, save_encoder
from reward_trainers import SCORES, TARGETS, build, group, pair, response
from torch import tensor
from trl_trainers import CHOSEN, REJECTED

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.reward import losses as reward_losses
from rlhf_lib.scoring.reward_model import RewardModel, raw_scores
from rlhf_lib.training import trainer as training

LONG = "sky " * 100


def batch_of(trainer, indices=range(9)):
    return trainer.data_collator([trainer.train_dataset[i] for i in indices])


def loss_of(trainer, indices=range(9)):
    return trainer.compute_loss(trainer.model.eval(), batch_of(trainer, indices)).item()


def scorer_of(trainer, bounds=None):
    return RewardModel(trainer.model, trainer.processing_class, bounds=bounds)


@pytest.fixture(scope="module", params=["bert", "distilbert", "roberta"])
def encoder(request, tmp_path_factory):
    """An encoder's directory; of the three, only BERT embeds segments."""
    return save_encoder(tmp_path_factory.mktemp(request.param), request.param)


# ---- losses


@pytest.mark.parametrize("centring", [None, 0.1])
def test_ranking_two_answers_is_trls_bradley_terry(tiny, checkpoints, splits, centring):
    two = [[response(CHOSEN[i], 1.0, 1.0), response(REJECTED[i], 0.0, 0.0)] for i in range(9)]
    write_jsonl("groups.jsonl", [{**group(i), "responses": responses} for i, responses in enumerate(two)])
    changes = {"center_rewards_coefficient": centring}
    trl, ours = (build(tiny.policy, checkpoints, loss_type=kind, **changes) for kind in ("bradley_terry", "ranking"))
    assert type(trl).__name__ == "UnpaddedRewardTrainer" and type(ours).__name__ == "GroupsTrainer"
    assert loss_of(ours) == pytest.approx(loss_of(trl), abs=1e-6)


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_a_pair_must_differ_by_as_much_as_its_scores(tiny, tmp_path, checkpoints, splits, base):
    pairs = [pair(0, score_chosen=8.0), pair(1, score_rejected=None), pair(2, score_chosen=0.1)]
    write_jsonl("pairs.jsonl", pairs)
    path = tiny.policy if base == "decoder" else save_encoder(tmp_path / "bert", "bert")
    trainer = build(path, checkpoints, loss_type="margin", max_length=24)
    scores = scorer_of(trainer).scores
    chosen, rejected = (tensor(scores(PROMPTS[:3], answers[:3])) for answers in (CHOSEN, REJECTED))
    # nothing is known of by how much the second one is better
    margins = tensor([1.5, 0.0, 0.1 - 5.5])
    expected = -torch.nn.functional.logsigmoid(chosen - rejected - margins).mean()
    assert loss_of(trainer, range(3)) == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "bounds"), [("ranking", None), ("mse", None), ("mae", (1.0, 10.0)), ("mse", (-1.0, 1.0))]
)
def test_the_loss_is_that_of_the_scores_by_which_ppo_learns(tiny, checkpoints, splits, kind, bounds):
    trainer = build(tiny.policy, checkpoints, bounds, loss_type=kind)
    contents = [r["content"] for i in range(9) for r in group(i)["responses"]]
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    rewards = tensor(scorer_of(trainer, bounds).scores(prompts, contents))
    batch = batch_of(trainer)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    assert raw_scores(trainer.model, inputs, bounds).tolist() == pytest.approx(rewards.tolist(), abs=1e-5)
    groups = torch.arange(9).repeat_interleave(4)
    if kind == "ranking":
        expected = reward_losses.ranking_loss(rewards, tensor(SCORES * 9), groups)
    else:
        expected = reward_losses.regression_loss(rewards, tensor(TARGETS * 9), groups, kind)
        assert bounds is None or (rewards.min() > bounds[0] and rewards.max() < bounds[1])
    assert loss_of(trainer) == pytest.approx(expected.item(), abs=1e-5)


def test_a_bounded_reward_is_a_sigmoid_of_the_output(tiny):
    plain = RewardModel.load(tiny.reward)
    bounded = RewardModel(plain.model, plain.tokenizer, bounds=(1.0, 10.0))
    expected = [1 + 9 / (1 + math.exp(-x)) for x in plain.scores(PROMPTS, CHOSEN)]
    assert bounded.scores(PROMPTS, CHOSEN) == pytest.approx(expected, abs=1e-4)


def test_validation_is_over_all_rows(tiny, checkpoints, splits):
    trainer = build(tiny.policy, checkpoints, loss_type="ranking", per_device_train_batch_size=4)
    whole = trainer.evaluate()
    right, pairs = 0.0, 0
    for i in range(9):
        scores = scorer_of(trainer).scores([PROMPTS[i]] * 4, [r["content"] for r in group(i)["responses"]])
        counted = reward_losses.count_right(tensor(scores), tensor(SCORES), torch.zeros(4))
        right, pairs = right + counted[0], pairs + counted[1]
    assert pairs == 45 and whole["eval_accuracy"] == pytest.approx(right / pairs)
    assert whole["eval_loss"] == pytest.approx(loss_of(trainer), abs=1e-5)


@pytest.mark.parametrize("kind", ["ranking", "mse"])
def test_the_step_does_not_depend_on_the_micro_batch(tiny, checkpoints, splits, kind):
    three = [{**group(i), "responses": group(i)["responses"][1:]} for i in range(2)]
    write_jsonl("groups.jsonl", [*three, group(2), group(3)])
    steps = []
    for size, accumulation in ((4, 1), (1, 4)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        trainer = build(tiny.policy, checkpoints, loss_type=kind, max_steps=1, eval_steps=9, save_steps=9, **sizes)
        log = training.run(trainer, checkpoints)
        steps.append([training.last(log, key) for key in ("loss", "grad_norm", "accuracy")])
    assert steps[0] == pytest.approx(steps[1], rel=1e-4)


# ---- rows


def test_answers_that_are_too_long_are_dropped_and_prompts_without_a_pair(tiny, checkpoints, splits):
    kept, left = group(0, ["cat", "dog", LONG, "sky"]), group(1, ["cat", LONG, LONG, LONG])
    even = {**group(2), "responses": [response("cat", 5.0, 0.5), response("dog", 5.0, 0.5)]}
    write_jsonl("groups.jsonl", [kept, left, even])
    ranking, mse = (build(tiny.policy, checkpoints, loss_type=kind).train_dataset for kind in ("ranking", "mse"))
    assert ranking["values"] == [[9.0, 6.0, 2.0]]
    assert mse["values"] == [[0.9, 0.6, 0.2], [0.9], [0.5, 0.5]]


@pytest.mark.parametrize("kind", ["bradley_terry", "mse"])
def test_an_encoder_learns_from_texts_as_it_scores_them(encoder, checkpoints, splits, kind):
    trainer = build(encoder, checkpoints, loss_type=kind, max_length=24)
    scorer, batch = scorer_of(trainer), batch_of(trainer)
    segments = "token_type_ids" in batch
    assert segments == (trainer.model.config.model_type == "bert")
    assert not segments or batch["token_type_ids"].any(dim=1).all()
    of_pairs = [(CHOSEN[i], REJECTED[i]) for i in range(9)]
    of_groups = [[r["content"] for r in group(i)["responses"]] for i in range(9)]
    answers = [answer for of_prompt in (of_groups if kind == "mse" else of_pairs) for answer in of_prompt]
    inputs = {key: value for key, value in batch.items() if key not in ("values", "groups", "margins")}
    got = raw_scores(trainer.model.eval(), inputs, None).tolist()
    prompts = [p for p in PROMPTS for _ in range(len(answers) // 9)]
    assert got == pytest.approx(scorer.scores(prompts, answers), abs=1e-5)
    if kind != "mse":
        margins = tensor(got[::2]) - tensor(got[1::2])
        assert loss_of(trainer) == pytest.approx(-torch.nn.functional.logsigmoid(margins).mean().item(), abs=1e-5)


def test_nothing_to_learn_from_is_told(tiny, checkpoints, splits):
    write_jsonl("groups.jsonl", [group(0, [LONG] * 4)])
    with pytest.raises(ParamsError, match=r"reward\.max_length: none of the 1 row of groups.jsonl is short"):
        build(tiny.policy, checkpoints, loss_type="mse")
    for kind in ("mse", "margin"):
        for file in ("groups.jsonl", "pairs.jsonl"):
            write_jsonl(file, [])
        with pytest.raises(ParamsError, match=r"\.jsonl: no rows to learn from; "):
            build(tiny.policy, checkpoints, loss_type=kind)
