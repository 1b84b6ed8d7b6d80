"""PPO on few or no prompts, on prompts that are too long, and when it diverges."""

import math
from pathlib import Path

import pytest
import torch
from one_line import told
from ppo_trainers import EVAL_ROWS, PTX_ROWS, TRAIN_ROWS, ppo_params
from transformers import TrainerCallback

from rlhf_lib.measure.overoptimisation import curve
from rlhf_lib.models import loading as models
from rlhf_lib.ppo import build as ppo
from rlhf_lib.ppo.data import Completions, Prompts
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir


def build_of(tiny, ending, checkpoints, train=TRAIN_ROWS, held_out=EVAL_ROWS, ptx=PTX_ROWS, **changes):
    params = ppo_params(reward_funcs=[str(tiny.reward)], **changes)
    return ppo.build(params, str(ending), str(tiny.reward), train, held_out, ptx, checkpoints)


def test_ppo_without_prompts_is_told(tiny, ending, checkpoints):
    said = told(build_of, tiny, ending, checkpoints, train=[])
    assert said.startswith("data/splits/prompts_train.jsonl: no rows to learn from; ")


def test_ptx_without_rows_is_told(tiny, ending, checkpoints):
    said = told(build_of, tiny, ending, checkpoints, ptx=[], ptx_coef=0.1)
    assert said.startswith("data/splits/sft_train.jsonl: no rows to learn from; ")


@pytest.mark.parametrize(
    ("long", "tokens", "penalty", "warned"),
    [(3, 9, 2.0, True), (2, 9, 2.0, False), (3, 10, 2.0, False), (3, 9, None, False), (0, 9, 2.0, False)],
)
def test_ppo_says_at_its_start_that_many_answers_of_sft_would_be_cut_off(
    tiny, ending, checkpoints, capsys, long, tokens, penalty, warned
):
    # a digit is a token, and so is the end
    texts = ["7" * 9] * long + ["777"] * (10 - long)
    rows = [{**PTX_ROWS[0], "completion": [{"role": "assistant", "content": text}]} for text in texts]
    build_of(tiny, ending, checkpoints, ptx=rows, response_length=tokens, missing_eos_penalty=penalty)
    line = (
        "ppo: ppo.response_length, 9 tokens, is too short for 30 % of the answers that SFT learnt, and what is cut off "
        "is penalised by 2: brevity is learnt first; 16 tokens would hold 95 %\n"
    )
    out = capsys.readouterr().out
    assert line in out if warned else "too short" not in out


def test_ppo_goes_on_without_validation(tiny, ending, checkpoints, capsys):
    trainer = build_of(tiny, ending, checkpoints, held_out=[])
    assert "ppo: no validation: data/splits/prompts_validation.jsonl: no rows" in capsys.readouterr().out
    log = training.run(trainer, checkpoints, "ppo")
    assert Path("metrics/ppo/eval.tsv").read_text() == "step\teval_reward\teval_kl\n"
    assert trainer.ppo_state.rollouts_done == 2 and trainer.ppo_state.completions == []
    assert curve(trainer.ppo_state.completions, lambda prompts, texts: []) == []
    assert training.last_or_none(log, "eval_reward") is None and training.last(log, "reward") is not None


def test_without_validation_ppo_does_what_it_does_with_it(tiny, ending, checkpoints):
    logs = []
    for held_out in ([], EVAL_ROWS):
        log = training.run(build_of(tiny, ending, checkpoints, held_out=held_out), checkpoints, "ppo")
        logs.append([entry["loss"] for entry in log if "loss" in entry])
        checkpoints.remove()
        checkpoints = CheckpointDir("ppo")
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"load_best_model_at_end": True}, "ppo.load_best_model_at_end: .* set it to false"),
        ({"early_stopping_patience": 1}, "ppo.early_stopping_patience: .* set it to null"),
    ],
)
def test_a_best_policy_needs_validation(tiny, ending, checkpoints, changes, text):
    with pytest.raises(SystemExit, match=text):
        build_of(tiny, ending, checkpoints, held_out=[], **changes)


def test_prompts_that_lose_their_beginning_are_counted(tiny, capsys):
    tokenizer = models.load_tokenizer(tiny.policy)
    long = [{"prompt": [{"role": "user", "content": "cat " * 100}]}]
    Prompts.encode(tokenizer, [*TRAIN_ROWS[:4], *long], 8, 64, "prompts.jsonl")
    assert capsys.readouterr().out == ""  # a fifth
    encoded = Prompts.encode(tokenizer, [*TRAIN_ROWS[:3], *long], 8, 64, "prompts.jsonl")
    assert max(map(len, encoded.ids)) == 56
    said = capsys.readouterr().out
    assert said.startswith(
        "ppo: ppo.response_length, 8, leaves 56 tokens to a prompt: 1 of the 4 of prompts.jsonl lose"
    )


def test_ptx_names_the_row_that_a_template_refuses(tiny):
    tokenizer = models.load_tokenizer(tiny.policy)
    tokenizer.chat_template = "{{ raise_exception('no') if messages | length > 2 }}{{ messages[0].content }}" + (
        "{{ messages[1].content if messages | length > 1 }}"
    )
    rows = [PTX_ROWS[0], {"prompt": [*PTX_ROWS[0]["prompt"]] * 3, "completion": PTX_ROWS[0]["completion"]}]
    assert told(Completions, tokenizer, rows, 64, "sft.jsonl").startswith("sft.jsonl: row 2: ")


class Spoilt(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] = math.nan


def test_a_policy_that_is_not_finite_stops_ppo(tiny, ending, checkpoints):
    trainer = build_of(tiny, ending, checkpoints)
    trainer.add_callback(Spoilt())
    said = told(training.run, trainer, checkpoints, "ppo")
    assert said.startswith("ppo: ") and "lower ppo.learning_rate" in said
    assert not checkpoints.path.exists()


def test_a_learning_rate_far_too_high_stops_ppo(tiny, ending, checkpoints):
    changes = {"learning_rate": 1e6, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "total_rollouts": 6}
    said = told(lambda: training.run(build_of(tiny, ending, checkpoints, **changes), checkpoints, "ppo"))
    assert said.startswith("ppo: ") and "the training diverged" in said
    assert not checkpoints.path.exists()
