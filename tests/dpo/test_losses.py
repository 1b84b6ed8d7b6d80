"""Every loss of dpo.loss_type on precomputed references is TRL's, with its reference model beside the policy."""

import math
from typing import get_args

import pytest
import torch
from tiny_models import checkpoints_in
from trl import DPOConfig, DPOTrainer
from trl_trainers import (
    CHOSEN,
    TEXTS,
    assistant,
    dataset,
    dpo_params,
    loss_by_hand,
    moved_policy,
    pair_rows,
    referenced,
    user,
)

from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.dpo.params import SMOOTHED, UNWEIGHTED, Loss
from rlhf_lib.dpo.reference import COLUMNS, REFERENCE_COLUMNS
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.training import trainer as training

LOSSES = get_args(Loss)
CUT = 13  # tokens of a dialogue: some answers lose their end
ROWS = range(5)


def with_smoothing(loss, **options):
    return {"loss_type": [loss], "label_smoothing": 0.1 if loss in SMOOTHED else 0.0, **options}


CASES = {
    **{loss: with_smoothing(loss) for loss in LOSSES},
    **{f"weighted {loss}": with_smoothing(loss, use_weighting=True) for loss in LOSSES if loss not in UNWEIGHTED},
    **{f"ld {loss}": with_smoothing(loss, ld_alpha=0.3) for loss in ("sigmoid", "ipo", "aot", "sft")},
    **{f"ld {alpha}": {"loss_type": ["sigmoid"], "ld_alpha": alpha} for alpha in (0.0, 1.0)},
    **{
        f"{kind} {loss}": {"loss_type": [loss], "f_divergence_type": kind, "f_alpha_divergence_coef": 0.3}
        for kind in ("forward_kl", "js_divergence", "alpha_divergence")
        for loss in ("sigmoid", "ipo")
    },
    "tau": {"loss_type": ["discopop"], "discopop_tau": 0.5},
    "sum": {"loss_type": ["sigmoid", "sft"]},
    "weighted sum": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.5]},
    "all but exo": {"loss_type": [loss for loss in LOSSES if loss != "exo_pair"], "ld_alpha": 0.5},
}


@pytest.fixture(scope="module")
def trainers(tiny, tmp_path_factory):
    """Ours on references that were computed before, and TRL's with its own; both can weight pairs."""
    folder = tmp_path_factory.mktemp("losses")
    with pytest.MonkeyPatch.context() as patch:
        checkpoints = checkpoints_in(folder, patch)
        moved = moved_policy(tiny, folder / "moved")
        pairs = referenced(tiny, pair_rows(), max_length=CUT)
        ours = dpo.build(dpo_params(use_weighting=True), CUT, moved, pairs, pairs, checkpoints)
        plain = DPOTrainer(
            model=moved,
            ref_model=models.load_policy(tiny.policy),
            args=DPOConfig(
                output_dir="scratch",
                max_length=CUT,
                use_weighting=True,
                model_init_kwargs=models.init_kwargs(),
                **hardware.trainer_kwargs(),
            ),
            train_dataset=dataset(pair_rows(), COLUMNS),
            processing_class=models.load_tokenizer(tiny.policy),
        )
    return ours, plain, folder / "reference.jsonl"


def set_options(trainer, options):
    """The options of `build`'s params, where TRL's trainers keep them."""
    params = dpo_params(**options)
    trainer.args.discopop_tau = params.discopop_tau
    trainer.loss_types, trainer.loss_weights = params.losses, params.loss_weights or [1.0] * len(params.losses)
    for name in ("beta", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "label_smoothing"):
        setattr(trainer, name, getattr(params, name))
    trainer.use_weighting = params.use_weighting


def loss_and_gradient(trainer, rows):
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    (gradient,) = torch.autograd.grad(loss, [trainer.model.transformer.h[0].attn.c_attn.weight])
    return loss.item(), gradient


def test_some_answers_are_cut_and_some_are_longer_than_their_pairs(trainers):
    rows = [trainers[0].train_dataset[i] for i in ROWS]
    whole = [[len(row["prompt_ids"]) + len(row[key]) for key in ("chosen_ids", "rejected_ids")] for row in rows]
    cut = [[min(length, CUT) for length in both] for both in whole]
    assert cut != whole
    assert any(one > other for one, other in cut) and any(one < other for one, other in cut)


@pytest.mark.parametrize("case", CASES)
def test_a_loss_is_trls(trainers, case):
    ours, plain, file = trainers
    for trainer in (ours, plain):
        set_options(trainer, CASES[case])
    of_pairs = dpo.with_reference(ours.train_dataset.remove_columns(REFERENCE_COLUMNS), file, ours.ld_alpha)
    loss, gradient = loss_and_gradient(ours, [of_pairs[i] for i in ROWS])
    expected, theirs = loss_and_gradient(plain, [plain.train_dataset[i] for i in ROWS])
    assert loss == pytest.approx(expected, abs=1e-5)
    assert gradient.flatten().tolist() == pytest.approx(theirs.flatten().tolist(), abs=1e-5)
    assert gradient.abs().max() > 1e-4


def test_the_losses_differ(trainers):
    """So that none is another's: of 15 losses on the same batch no two are equal."""
    ours, _, _ = trainers
    found = []
    for loss in LOSSES:
        set_options(ours, with_smoothing(loss))
        found.append(loss_and_gradient(ours, [ours.train_dataset[i] for i in ROWS])[0])
    gaps = [abs(one - other) for i, one in enumerate(found) for other in found[:i]]
    assert len(found) == 15 and min(gaps) > 1e-4


def kept_bytes(trainer, rows):
    """What autograd keeps for the backward pass, each storage once."""
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    assert loss.requires_grad
    return sum(kept.values())


def test_no_loss_needs_more_memory(trainers):
    """As `make plan` has it: beside the log-probs a loss keeps some numbers a token."""
    ours, _, _ = trainers
    rows = [ours.train_dataset[i] for i in ROWS]
    set_options(ours, {"loss_type": "sigmoid"})
    of_dpo = kept_bytes(ours, rows)
    few = [loss for loss in LOSSES if loss not in UNWEIGHTED]
    every = {"loss_type": list(LOSSES), "label_smoothing": 0.1, "ld_alpha": 0.5}
    for options in (every, {"loss_type": few, "label_smoothing": 0.1, "use_weighting": True}):
        set_options(ours, options)
        assert of_dpo < kept_bytes(ours, rows) < 1.03 * of_dpo


def test_sigmoid_and_sft_by_hand(trainers):
    """References 1 nat below and 0.5 nats above the policy: a margin of 1.5 nats, at beta 0.5 a loss of
    log(1 + exp(-0.75)) = 0.386871; to which a quarter of the mean loss of the chosen answers' tokens is added."""
    ours, _, _ = trainers
    set_options(ours, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.25]})
    rows = [ours.train_dataset[i] for i in ROWS]
    with torch.no_grad():
        batch = ours.data_collator(rows)
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logps = ours.model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(dim=1)
    chosen, rejected = (side.tolist() for side in logps.chunk(2))
    marked = [
        {**row, "ref_chosen_logps": one - 1.0, "ref_rejected_logps": other + 0.5}
        for row, one, other in zip(rows, chosen, rejected, strict=True)
    ]
    answers = [{"prompt": user(TEXTS[i]), "completion": assistant(CHOSEN[i])} for i in ROWS]
    nll = loss_by_hand(ours.model, ours.processing_class, answers, CUT)
    assert loss_and_gradient(ours, marked)[0] == pytest.approx(0.386871 + 0.25 * nll, abs=1e-5)


def test_build_hands_every_option_to_trl(tiny, checkpoints):
    pairs = referenced(tiny, pair_rows(), ld_alpha=0.25)
    options = {
        "loss_type": ["robust", "discopop"],
        "loss_weights": [0.75, 2.0],
        "label_smoothing": 0.2,
        "discopop_tau": 0.125,
        "f_divergence_type": "alpha_divergence",
        "f_alpha_divergence_coef": 0.375,
        "ld_alpha": 0.25,
        "use_weighting": True,
    }
    trainer = dpo.build(dpo_params(**options), 64, str(tiny.policy), pairs, pairs, checkpoints)
    assert {name: getattr(trainer.args, name) for name in options} == options
    assert (trainer.loss_types, trainer.loss_weights) == (options["loss_type"], options["loss_weights"])
    assert trainer.ld_alpha == 0.25 and trainer.use_weighting
    rows = [trainer.train_dataset[i] for i in ROWS]
    # the policy is its reference: robust costs ln 2, and discopop, half logistic and half exponential, (ln 2 + 1) / 2
    with torch.no_grad():
        trainer.use_weighting = False
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows)).item()
    assert loss == pytest.approx(0.75 * math.log(2) + 2 * (math.log(2) + 1) / 2, abs=1e-5)


def test_a_run_of_all_losses_together(tiny, checkpoints):
    pairs = referenced(tiny, pair_rows(), ld_alpha=0.5)
    params = dpo_params(loss_type=list(LOSSES), label_smoothing=0.1, ld_alpha=0.5, max_steps=3, eval_steps=3)
    log = training.run(dpo.build(params, 64, str(tiny.policy), pairs, pairs, checkpoints), checkpoints, "dpo")
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 3 and all(map(math.isfinite, losses)) and training.last(log, "eval_loss") < losses[0]


def test_discopop_rises_where_training_starts_at_trls_temperature(trainers):
    """Its slope at a margin of 0 is (1 - ln 2) / (4 tau) - 3/4: 0.784 at 0.05, 0 at 0.1023, -0.443 at 0.25."""
    ours, _, _ = trainers
    row = ours.train_dataset[0]
    set_options(ours, {"loss_type": "sigmoid"})
    batch = ours.data_collator([row])
    with torch.no_grad():
        ours.compute_loss(ours.model, batch)
    at_policy = {f"ref_{side}_logps": ours._metrics["eval"][f"logps/{side}"][-1] for side in ("chosen", "rejected")}
    for tau, slope in ((0.05, 0.784), (0.25, -0.443)):
        set_options(ours, {"loss_type": "discopop", "discopop_tau": tau, "beta": 1.0})
        below, above = (
            loss_and_gradient(
                ours, [{**row, **at_policy, "ref_rejected_logps": at_policy["ref_rejected_logps"] + step}]
            )
            for step in (-1e-2, 1e-2)
        )
        assert (above[0] - below[0]) / 2e-2 == pytest.approx(slope, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_of_a_few_steps_finishes(tiny, checkpoints, case):
    options = CASES[case]
    pairs = referenced(tiny, pair_rows(), ld_alpha=options.get("ld_alpha"))
    params = dpo_params(**{**options, "max_steps": 4, "eval_steps": 4, "learning_rate": 3e-3})
    trainer = dpo.build(params, 64, str(tiny.policy), pairs, pairs, checkpoints)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    log = training.run(trainer, checkpoints, "dpo")
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 4 and all(map(math.isfinite, [*losses, training.last(log, "eval_loss")]))
    assert all(not torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())
