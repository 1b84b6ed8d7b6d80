"""Rows that are too long, and validation sets with nothing in them, in the trainers of sft, reward, judge and dpo."""

from pathlib import Path

import pytest
from one_line import told
from reward_trainers import SPLITS, group, params
from trl_trainers import (
    LONG,
    TRAINER,
    assistant,
    dataset,
    dpo_params,
    pair,
    pair_rows,
    read_tsv,
    referenced,
    sft_rows,
    user,
)

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.dpo import reference
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.models import loading as models
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.reward import scores
from rlhf_lib.reward import trainer as reward
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import curves
from rlhf_lib.training import trainer as training

KINDS = ("bradley_terry", "margin", "ranking", "mse", "mae")


def sft_row(prompt="Name the cat.", answer="Cat."):
    return {"id": "0", "prompt": user(prompt), "completion": assistant(answer)}


def scored(i, **changes):
    return {**pair(i, **changes), "score_chosen": 7.0, "score_rejected": 6.0}


def build_sft(tiny, checkpoints, train, validation, **changes):
    rows = (dataset(part, sft.COLUMNS) for part in (train, validation))
    return sft.build(SFTParams(**{**TRAINER, "max_length": 64, **changes}), str(tiny.policy), *rows, checkpoints)


def build_reward(tiny, checkpoints, train, validation, kind="bradley_terry"):
    names = ("pairs", "groups") if kind in ("bradley_terry", "margin") else ("groups", "pairs")
    for name, rows in ((f"{names[0]}.jsonl", train), ("held_out.jsonl", validation)):
        write_jsonl(name, rows)
    write_jsonl(f"{names[1]}.jsonl", [])
    splits = reward.Splits("pairs.jsonl", "held_out.jsonl", "groups.jsonl", "held_out.jsonl")
    return reward.build("reward", params(tiny.policy, loss_type=kind), splits, None, checkpoints)


def rows_of(kind):
    """Rows of a kind, and one that is too long."""
    if kind in ("bradley_terry", "margin"):
        return [scored(i) for i in range(9)], scored(0, prompt=LONG)
    return [group(i) for i in range(9)], group(0, [LONG] * 4)


# ---- training rows


def test_sft_without_a_row_that_leaves_room_for_an_answer_is_told(tiny, checkpoints):
    rows = [sft_row(LONG)] * 3
    said = told(build_sft, tiny, checkpoints, rows, sft_rows())
    assert said.startswith("params.yaml: sft.max_length: none of the 3 rows of data/splits/sft_train.jsonl is short")
    assert "at 64 tokens; raise it: the longest has " in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_without_a_row_short_enough_is_told(tiny, checkpoints, kind):
    some, long = rows_of(kind)
    file = "pairs.jsonl" if kind in ("bradley_terry", "margin") else "groups.jsonl"
    said = told(build_reward, tiny, checkpoints, [long] * 2, some, kind)
    assert said.startswith(f"params.yaml: reward.max_length: none of the 2 rows of {file} is short enough")


def test_a_reference_without_a_pair_that_leaves_room_for_an_answer_is_told(tiny):
    policy, tokenizer = models.load_policy(tiny.policy), models.load_tokenizer(tiny.policy)
    said = told(reference.reference_logprobs, policy, tokenizer, [pair(0, prompt=LONG)] * 4, 64, 4)
    assert said.startswith(
        "params.yaml: reference.max_length: none of the 4 rows of data/negatives/preference_train.jsonl is short"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_without_rows_is_told(tiny, checkpoints, kind):
    file = "pairs.jsonl" if kind in ("bradley_terry", "margin") else "groups.jsonl"
    assert told(build_reward, tiny, checkpoints, [], [], kind).startswith(f"{file}: no rows to learn from; ")


def test_sft_and_dpo_without_rows_are_told(tiny, checkpoints):
    assert told(build_sft, tiny, checkpoints, [], []).startswith("data/splits/sft_train.jsonl: no rows to learn from")
    pairs = referenced(tiny, pair_rows())
    none = pairs.select([])
    said = told(dpo.build, dpo_params(), 64, str(tiny.policy), none, pairs, checkpoints)
    assert said.startswith("data/negatives/preference_train.jsonl: no rows to learn from")


def test_what_is_dropped_and_cut_is_counted(tiny, checkpoints, capsys):
    """Of nine rows, two are dropped and one is cut: their prompt, or their answer, is too long."""
    rows = [*sft_rows()[:6], sft_row(LONG), sft_row(LONG), sft_row(answer=LONG)]
    trainer = build_sft(tiny, checkpoints, rows, sft_rows())
    assert len(trainer.train_dataset) == 7 and max(map(len, trainer.train_dataset["input_ids"])) == 64
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sft: ")]
    assert len(said) == 1
    assert said[0].startswith(
        "sft: sft.max_length, 64 tokens, is too short for many of the 9 rows of data/splits/sft_train.jsonl: "
        "2 dropped, 1 cut; the longest has "
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_fifth_may_be_dropped_without_a_word(tiny, checkpoints, capsys, kind):
    some, long = rows_of(kind)
    build_reward(tiny, checkpoints, [*some, long, long], some, kind)
    assert "reward.max_length" not in capsys.readouterr().out
    build_reward(tiny, checkpoints, [*some, long, long, long], some, kind)
    assert "of the 12 rows" in capsys.readouterr().out


def test_equal_scores_are_not_called_too_long(capsys):
    lengths = Lengths.of("rows.jsonl", Limit("reward.max_length", 64), [(10, True), (10, False)])
    lengths.tell()
    assert "1 dropped, 0 cut; the longest has 10 tokens" in capsys.readouterr().out


# ---- validation


def curves_without_validation(trainer, checkpoints, stage):
    curves.write(stage, training.run(trainer, checkpoints, stage))
    assert len(read_tsv(f"metrics/{stage}/train.tsv")) > 0
    return Path(f"metrics/{stage}/eval.tsv").read_text()


@pytest.mark.parametrize(("held_out", "why"), [([], "no rows"), ([sft_row(LONG)], "none of its 1 row is short")])
def test_sft_goes_on_without_validation(tiny, checkpoints, capsys, held_out, why):
    trainer = build_sft(tiny, checkpoints, sft_rows(), held_out)
    assert f"sft: no validation: data/splits/sft_validation.jsonl: {why}" in capsys.readouterr().out
    assert curves_without_validation(trainer, checkpoints, "sft") == "step\teval_loss\n"
    assert sft.token_loss(models.load_policy(tiny.policy), trainer.processing_class, held_out, 64, 4) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("empty", [True, False])
def test_a_reward_model_goes_on_without_validation(tiny, checkpoints, capsys, kind, empty):
    some, long = rows_of(kind)
    trainer = build_reward(tiny, checkpoints, some, [] if empty else [long], kind)
    assert "reward: no validation: held_out.jsonl: " in capsys.readouterr().out
    assert curves_without_validation(trainer, checkpoints, "reward") == "step\teval_loss\teval_accuracy\n"
    found = reward.of_training(kind, trainer, trainer.state.log_history)
    assert found["validation_accuracy"] is None and found["loss"] > 0


def test_dpo_goes_on_without_validation(tiny, checkpoints):
    pairs = referenced(tiny, pair_rows())
    write_jsonl("none.jsonl", [])
    none = dpo.with_reference(dataset([], reference.COLUMNS), "none.jsonl")
    trainer = dpo.build(dpo_params(), 64, str(tiny.policy), pairs, none, checkpoints)
    assert curves_without_validation(trainer, checkpoints, "dpo") == "step\teval_loss\teval_rewards/accuracies\n"


@pytest.mark.parametrize("rows", [[], [pair(0, prompt=LONG)]])
def test_a_reference_of_no_validation_pairs_is_empty(tiny, capsys, rows):
    policy, tokenizer = models.load_policy(tiny.policy), models.load_tokenizer(tiny.policy)
    assert reference.reference_logprobs(policy, tokenizer, rows, 64, 4, split="validation") == []
    said = capsys.readouterr().out
    assert said.startswith("reference: no validation: data/splits/preference_validation.jsonl: ")


def test_rewards_are_normalised_by_training_answers_where_no_others_are(checkpoints, capsys):
    rows = [scored(i) for i in range(3)]
    for name, part in (("pairs.jsonl", rows), ("groups.jsonl", [group(0)])):
        write_jsonl(name, part)
    write_jsonl("none.jsonl", [])
    found = scores.measured_pairs("reward", SPLITS._replace(validation="none.jsonl"))
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert capsys.readouterr().out == (
        "reward: rewards are normalised by answers of the training rows: none.jsonl: no rows\n"
    )
    of_groups = scores.measured_pairs("reward", SPLITS._replace(train="none.jsonl", validation="none.jsonl"))
    assert [row["chosen"][0]["content"] for row in of_groups] == [r["content"] for r in group(0)["responses"]]
    assert scores.measured_pairs("reward", SPLITS) == rows


def test_a_run_shorter_than_the_steps_between_evaluations_is_evaluated_at_its_end(tiny, checkpoints):
    pairs = referenced(tiny, pair_rows())
    trainer = dpo.build(dpo_params(max_steps=2, eval_steps=50), 64, str(tiny.policy), pairs, pairs, checkpoints)
    assert training.last(training.run(trainer, checkpoints, "dpo"), "eval_rewards/accuracies") >= 0
