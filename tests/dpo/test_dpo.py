"""DPO and its reference log-probs."""

import math

import pytest
import torch
from tiny_models import TEXTS
from trl import DPOConfig, DPOTrainer
from trl_trainers import (
    CHOSEN,
    LONG,
    REJECTED,
    assistant,
    batch_of,
    dataset,
    dpo_params,
    loss_by_hand,
    moved_policy,
    pair,
    pair_rows,
    referenced,
    user,
)

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.dpo.reference import COLUMNS, REFERENCE_COLUMNS, SHARED_COLUMNS, reference_logprobs
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.training import trainer as training

SIDES = ("chosen", "rejected")

# ---- DPO


@pytest.fixture
def moved(tiny, tmp_path):
    return moved_policy(tiny, tmp_path / "moved")


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


def test_what_dpo_validates_is_of_pairs_and_not_of_batches(tiny, moved, checkpoints):
    """Batches of 8 and 1 pairs: the lone one counts once."""
    pairs = referenced(tiny, pair_rows())
    names = ("rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected", "logps/chosen", "loss")
    told = []
    for size in (1, 8, 9):
        params = dpo_params(per_device_eval_batch_size=size)
        got = dpo.build(params, 64, moved, pairs, pairs, checkpoints).evaluate()
        told.append([got[f"eval_{name}"] for name in names])
    assert told[0] == pytest.approx(told[2], abs=1e-5) and told[1] == pytest.approx(told[2], abs=1e-5)
    assert abs(told[2][0]) > 1e-3


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


def test_the_shared_length_is_that_of_the_shorter_answer(tiny, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, most = models.load_policy(tiny.policy), 13
    got = reference_logprobs(model, tokenizer, dataset(pair_rows(), COLUMNS), most, batch_size=4)
    cut = 0
    for i, row in enumerate(got):
        start = len(prompt_ids(tokenizer, user(TEXTS[i])))
        dialogues = [dialogue_ids(tokenizer, user(TEXTS[i]), answer)[:most] for answer in (CHOSEN[i], REJECTED[i])]
        cut += max(map(len, dialogues)) == most
        for ids, key, of_shared in zip(dialogues, REFERENCE_COLUMNS, SHARED_COLUMNS, strict=True):
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            each = [logprobs[place - 1, ids[place]].item() for place in range(start, len(ids))]
            assert row[key] == pytest.approx(sum(each), abs=1e-4)
            assert row[of_shared] == pytest.approx(sum(each[: min(map(len, dialogues)) - start]), abs=1e-4)
    assert cut and all(any(row[f"ref_{side}_logps"] < row[f"ref_{side}_shared_logps"] for row in got) for side in SIDES)


def test_tokens_beyond_the_shared_length_count_ld_alpha_times(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = {"ref_chosen_shared_logps": -4.0, "ref_rejected_shared_logps": -3.0}
    write_jsonl("reference.jsonl", [{"id": "pair-0", "ref_chosen_logps": -10.0, "ref_rejected_logps": -3.0, **shared}])
    pairs = dataset([pair(0)], COLUMNS)
    for alpha, expected in ((None, -10.0), (1.0, -10.0), (0.25, -5.5), (0.0, -4.0)):
        (got,) = dpo.with_reference(pairs, "reference.jsonl", alpha)
        assert (got["ref_chosen_logps"], got["ref_rejected_logps"]) == (expected, -3.0)


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
        reference_logprobs(models.load_policy(tiny.policy), tokenizer, pairs, 512, 4)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_reference_does_not_depend_on_the_batch(tiny, batch_size):
    policy, tokenizer = models.load_policy(tiny.policy), models.load_tokenizer(tiny.policy)
    pairs = dataset(pair_rows(), COLUMNS)
    one, other = (reference_logprobs(policy, tokenizer, pairs, 64, size) for size in (4, batch_size))
    for name in (*REFERENCE_COLUMNS, *SHARED_COLUMNS):
        assert [row[name] for row in one] == pytest.approx([row[name] for row in other], abs=1e-4)
