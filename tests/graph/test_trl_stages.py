import copy
import math
from pathlib import Path

import pytest
import torch
from tiny_models import TEXTS
from trl import DPOConfig, DPOTrainer
from trl_trainers import (
    CHOSEN,
    LONG,
    REJECTED,
    CountSteps,
    KillAfterSave,
    Killed,
    assistant,
    batch_of,
    dataset,
    dpo_params,
    loss_by_hand,
    pair,
    pair_rows,
    read_tsv,
    referenced,
    reward_trainer,
    sft_rows,
    sft_trainer,
    user,
)

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.dpo.reference import COLUMNS, reference_logprobs
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.sft import trainer as sft
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return models.load_tokenizer(tiny.policy)


# ---- what the trainers share


@pytest.mark.parametrize(("steps", "logged"), [(3, [3]), (4, [4]), (5, [4]), (8, [4, 8])])
def test_a_run_shorter_than_the_logging_steps_is_logged_at_its_end(tiny, checkpoints, steps, logged):
    trainer = sft_trainer(tiny, checkpoints, max_steps=steps, logging_steps=4)
    assert [entry["step"] for entry in training.run(trainer, checkpoints) if "loss" in entry] == logged


def test_a_dataset_holds_the_columns_and_the_length_in_characters(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [pair(0), pair(1)])
    rows = training.dataset(tmp_path / "rows.jsonl", COLUMNS)
    assert set(rows.column_names) == {*COLUMNS, "length"}
    assert rows["length"] == [len(TEXTS[i]) + len(CHOSEN[i]) + len(REJECTED[i]) for i in (0, 1)]
    assert rows[1]["chosen"] == assistant(CHOSEN[1]) and rows["id"] == ["pair-0", "pair-1"]


def test_last_is_the_newest_value_of_the_key():
    log = [{"loss": 3.0}, {"loss": 0.0, "step": 2}, {"eval_loss": 1.0}]
    assert (training.last(log, "loss"), training.last(log, "eval_loss")) == (0.0, 1.0)
    with pytest.raises(KeyError):
        training.last(log, "kl")


def test_curves_are_the_log_by_step_without_times(tiny, checkpoints):
    trainer = sft_trainer(tiny, checkpoints, max_steps=2, eval_steps=1)
    training.write_curves("sft", training.run(trainer, checkpoints))
    train, evaluation = read_tsv("metrics/sft/train.tsv"), read_tsv("metrics/sft/eval.tsv")
    assert [row["step"] for row in train] == [row["step"] for row in evaluation] == ["1", "2"]
    assert all(float(row["loss"]) > 0 for row in train) and all(float(row["eval_loss"]) > 0 for row in evaluation)
    for column in (*train[0], *evaluation[0]):
        assert not any(word in column for word in ("runtime", "per_second", "flos", "epoch")), column


@pytest.mark.parametrize("order", ["random", "group_by_length"])
@pytest.mark.parametrize("build", [sft_trainer, reward_trainer])
def test_a_killed_run_goes_on_to_the_same_weights_and_curves(tiny, checkpoints, build, order):
    changes = {"train_sampling_strategy": order, "max_steps": 4}  # in the second pass over nine rows
    whole = build(tiny, checkpoints, **changes)
    log = training.run(whole, checkpoints)
    checkpoints.remove()

    checkpoints = CheckpointDir("ppo")
    killed = build(tiny, checkpoints, **changes)
    killed.add_callback(KillAfterSave())
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    assert checkpoints.latest().endswith("checkpoint-2")
    resumed = build(tiny, checkpoints, **changes)
    counter = CountSteps()
    resumed.add_callback(counter)
    resumed_log = training.run(resumed, checkpoints)
    assert counter.steps == 2

    for name, rows in (("whole", log), ("resumed", resumed_log)):
        training.write_curves(name, rows)
    for curve in ("train.tsv", "eval.tsv"):
        assert Path(f"metrics/whole/{curve}").read_bytes() == Path(f"metrics/resumed/{curve}").read_bytes()
    assert len(read_tsv("metrics/resumed/train.tsv")) == 4
    expected, got = whole.model.state_dict(), resumed.model.state_dict()
    assert expected.keys() == got.keys() and all(expected[key].equal(got[key]) for key in expected)


# ---- SFT


def test_sft_learns_the_answer_and_its_eos_alone(tiny, checkpoints, tokenizer):
    trainer = sft_trainer(tiny, checkpoints)
    indices = [0, 1, 3, 8]
    batch = batch_of(trainer, indices)
    for i, ids, labels in zip(indices, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        prompt, dialogue = prompt_ids(tokenizer, user(TEXTS[i])), dialogue_ids(tokenizer, user(TEXTS[i]), CHOSEN[i])
        pads = len(ids) - len(dialogue)
        assert ids == dialogue + [tokenizer.pad_token_id] * pads
        assert labels == [-100] * len(prompt) + dialogue[len(prompt) :] + [-100] * pads
        assert labels.count(tokenizer.eos_token_id) == 1
    assert any(labels[-1] == -100 for labels in batch["labels"].tolist())  # so that there were pads to mask


def test_sft_refuses_rows_longer_than_the_context(tiny, checkpoints):
    with pytest.raises(ParamsError, match=r"sft\.max_length: 65"):
        sft_trainer(tiny, checkpoints, max_length=65)


@pytest.mark.parametrize("max_length", [64, 14])
def test_token_loss_weighs_each_answer_token_alike(tiny, tokenizer, max_length):
    model = models.load_policy(tiny.policy)
    expected = loss_by_hand(model, tokenizer, sft_rows(), max_length)
    assert sft.token_loss(model, tokenizer, sft_rows(), max_length) == pytest.approx(expected, abs=1e-5)


def test_token_loss_leaves_out_a_row_without_room_for_its_answer(tiny, tokenizer):
    model = models.load_policy(tiny.policy)
    long = {"prompt": user(LONG), "completion": assistant("Cat.")}
    expected = loss_by_hand(model, tokenizer, sft_rows(), 32)
    assert sft.token_loss(model, tokenizer, [*sft_rows(), long], 32) == pytest.approx(expected, abs=1e-5)


def test_sft_lowers_the_loss(tiny, checkpoints, tokenizer):
    trainer = sft_trainer(tiny, checkpoints, max_steps=12, eval_steps=12, save_steps=12)
    before = sft.token_loss(trainer.model, tokenizer, sft_rows(), 64)
    training.run(trainer, checkpoints)
    assert sft.token_loss(trainer.model, tokenizer, sft_rows(), 64) < before - 0.5


# ---- reward


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


# ---- DPO


@pytest.fixture
def moved(tiny, tmp_path, tokenizer):
    """The directory of a policy that has moved away from the reference."""
    model = copy.deepcopy(models.load_policy(tiny.policy))
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    models.save(model, tokenizer, tmp_path / "moved")
    return str(tmp_path / "moved")


def test_dpo_on_precomputed_references_is_trls_dpo(tiny, moved, checkpoints):
    pairs = referenced(tiny, pair_rows())
    ours = dpo.build(dpo_params(), 64, moved, pairs, pairs, checkpoints)
    config = {"output_dir": "scratch", "beta": 0.5, "max_length": 64, "model_init_kwargs": models.init_kwargs()}
    plain = DPOTrainer(
        model=moved,
        ref_model=models.load_policy(tiny.policy),
        args=DPOConfig(**config, **hardware.trainer_kwargs()),
        train_dataset=dataset(pair_rows(), COLUMNS),
        processing_class=models.load_tokenizer(tiny.policy),
    )
    loss, expected = (t.compute_loss(t.model, batch_of(t, range(5))).item() for t in (ours, plain))
    assert loss == pytest.approx(expected, abs=1e-5)
    assert abs(loss - math.log(2)) > 1e-2  # the policies differ, so that the reference matters


def test_dpo_keeps_the_references_that_rows_bear(tiny, checkpoints):
    pairs = referenced(tiny, pair_rows())
    marked = pairs.remove_columns("ref_chosen_logps").add_column("ref_chosen_logps", [-1.5] * len(pairs))
    trainer = dpo.build(dpo_params(), 64, str(tiny.policy), marked, marked, checkpoints)
    assert list(trainer.train_dataset["ref_chosen_logps"]) == [-1.5] * len(pairs)
    assert list(trainer.train_dataset["ref_rejected_logps"]) == list(pairs["ref_rejected_logps"])
    assert list(trainer.eval_dataset["ref_chosen_logps"]) == [-1.5] * len(pairs)
    assert batch_of(trainer, [0, 1])["ref_chosen_logps"].tolist() == [-1.5, -1.5]


def test_the_dpo_loss_starts_at_ln_2(tiny, checkpoints):
    pairs = referenced(tiny, pair_rows())
    trainer = dpo.build(dpo_params(), 64, str(tiny.policy), pairs, pairs, checkpoints)
    for rows in ([0], range(9)):
        loss = trainer.compute_loss(trainer.model, batch_of(trainer, rows)).item()
        assert loss == pytest.approx(math.log(2), abs=1e-5)


def test_dpo_raises_the_margin(tiny, checkpoints):
    pairs = referenced(tiny, pair_rows())
    params = dpo_params(max_steps=6, eval_steps=6, learning_rate=3e-3)
    log = training.run(dpo.build(params, 64, str(tiny.policy), pairs, pairs, checkpoints), checkpoints)
    assert training.last(log, "eval_loss") < math.log(2) - 0.05
    assert training.last(log, "eval_rewards/margins") > 0.1 and training.last(log, "eval_rewards/accuracies") > 0.8


def test_reference_logprobs_are_the_summed_logprobs_of_the_answers(tiny, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models.load_policy(tiny.policy)
    got = reference_logprobs(model, tokenizer, dataset(pair_rows(), COLUMNS), 64, batch_size=4)
    assert [row["id"] for row in got] == [row["id"] for row in pair_rows()]
    for row, i in zip(got, range(9), strict=True):
        for key, answer in (("ref_chosen_logps", CHOSEN[i]), ("ref_rejected_logps", REJECTED[i])):
            lone = {"prompt": user(TEXTS[i]), "completion": assistant(answer)}
            tokens = len(dialogue_ids(tokenizer, lone["prompt"], answer)) - len(prompt_ids(tokenizer, lone["prompt"]))
            assert row[key] == pytest.approx(-loss_by_hand(model, tokenizer, [lone], 64) * tokens, abs=1e-3)


def test_references_are_joined_by_id_and_pairs_without_are_dropped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = dataset([pair(0), pair(1), pair(2)], COLUMNS)
    rows = [{"id": f"pair-{i}", "ref_chosen_logps": -1.0 * i, "ref_rejected_logps": -10.0 * i} for i in (2, 7, 0)]
    write_jsonl("reference.jsonl", rows)
    got = dpo.with_reference(pairs, "reference.jsonl")
    assert list(got["id"]) == ["pair-0", "pair-2"]
    assert list(got["ref_chosen_logps"]) == [0.0, -2.0] and list(got["ref_rejected_logps"]) == [0.0, -20.0]
    assert got[1]["chosen"] == assistant(CHOSEN[2])


def test_a_pair_whose_prompt_fills_the_length_is_dropped_in_both(tiny, checkpoints):
    pairs = referenced(tiny, [pair(0), pair(1, prompt=LONG), pair(2)])
    assert list(pairs["id"]) == ["pair-0", "pair-2"]
    trainer = dpo.build(dpo_params(), 64, str(tiny.policy), pairs, pairs, checkpoints)
    assert list(trainer.train_dataset["id"]) == ["pair-0", "pair-2"]


def test_reference_refuses_pairs_longer_than_the_context(tiny, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = dataset([pair(0, prompt=LONG)], COLUMNS)
    with pytest.raises(ParamsError, match=r"reference\.max_length: 512"):
        reference_logprobs(models.load_policy(tiny.policy), tokenizer, pairs, 512)
