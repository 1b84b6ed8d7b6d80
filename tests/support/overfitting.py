"""Trainers of each kind whose validations get worse, and what is looked at of their runs."""

from pathlib import Path

from encoders import save_encoder
from kto_trainers import kto_params, thumb_rows
from reward_trainers import ANSWERS, group, params
from transformers import TrainerCallback
from trl_trainers import (
    REJECTED,
    TRAINER,
    Killed,
    dataset,
    dpo_params,
    pair_rows,
    referenced,
    sft_rows,
    turned,
)

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.kto import trainer as kto
from rlhf_lib.kto.data import COLUMNS
from rlhf_lib.reward import trainer as reward
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import trainer as training

# Rows are learnt by heart, and those that are held out say the opposite: each validation is worse than the one before,
# after the first few. Evaluations and checkpoints do not meet: transformers would refuse such settings.
BEST = {
    "learning_rate": 3e-3,
    "max_steps": 12,
    "num_train_epochs": 100.0,
    "eval_steps": 2,
    "save_steps": 5,
    "load_best_model_at_end": True,
}
LORA = {"lora_r": 4, "lora_alpha": 64}


def build_sft(tiny, checkpoints, held_out=True, **changes):
    others = [
        {**row, "completion": [{"role": "assistant", "content": REJECTED[-i]}]} for i, row in enumerate(sft_rows())
    ]
    train = dataset(sft_rows(), sft.COLUMNS)
    validation = dataset(others if held_out else [], sft.COLUMNS)
    built = SFTParams(**{**TRAINER, "max_length": 64, **BEST, "learning_rate": 3e-2, **changes})
    return sft.build(built, str(tiny.policy), train, validation, checkpoints)


def build_reward(tiny, checkpoints, held_out=True, base=None, **changes):
    pairs = pair_rows()
    write_jsonl("pairs.jsonl", pairs)
    write_jsonl("held_out.jsonl", turned(pairs) if held_out else [])
    write_jsonl("groups.jsonl", [group(i) for i in range(9)])
    write_jsonl("held_out_groups.jsonl", [group(i, ANSWERS[1:] + ANSWERS[:1]) for i in range(9)] if held_out else [])
    files = reward.Splits("pairs.jsonl", "held_out.jsonl", "groups.jsonl", "held_out_groups.jsonl")
    return reward.build("reward", params(base or tiny.policy, **{**BEST, **changes}), files, None, checkpoints)


def build_ranking(tiny, checkpoints, **changes):
    return build_reward(tiny, checkpoints, **{"loss_type": "ranking", **changes})


def build_encoder(tiny, checkpoints, **changes):
    return build_reward(tiny, checkpoints, base=save_encoder(Path("bert"), "bert"), max_length=24, **changes)


def build_dpo(tiny, checkpoints, held_out=True, **changes):
    train = referenced(tiny, pair_rows())
    validation = referenced(tiny, turned(pair_rows())) if held_out else train.select([])
    return dpo.build(dpo_params(**{**BEST, **changes}), 64, str(tiny.policy), train, validation, checkpoints)


def build_kto(tiny, checkpoints, held_out=True, **changes):
    rows = thumb_rows()
    train = dataset(rows, COLUMNS)
    other = [{**row, "label": not row["label"]} for row in rows] if held_out else []
    validation = dataset(other, COLUMNS)
    return kto.build(kto_params(**{**BEST, **changes}), str(tiny.policy), train, validation, checkpoints)


BUILD = {
    "sft": build_sft,
    "reward": build_reward,
    "ranking": build_ranking,
    "encoder": build_encoder,
    "dpo": build_dpo,
    "kto": build_kto,
}


class Evaluations(TrainerCallback):
    """The trained weights at each evaluation, by step."""

    def __init__(self):
        self.weights = {}

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = trained(model)


def trained(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def run(build, tiny, checkpoints, **changes):
    trainer, seen = build(tiny, checkpoints, **changes), Evaluations()
    names = set(trained(trainer.model))
    trainer.add_callback(seen)
    log = training.run(trainer, checkpoints, "sft")
    now = {name: weight.detach() for name, weight in trainer.model.named_parameters() if name in names}
    return trainer, log, seen, now


def best_evaluation(log, metric="eval_loss"):
    """The first evaluation with the lowest loss, or the highest of another metric."""
    entries = [entry for entry in log if metric in entry]
    sign = 1 if metric.endswith("loss") else -1
    return min(entries, key=lambda entry: sign * entry[metric])


class KillAt(TrainerCallback):
    """Raises at an event, such as the checkpoint of a step."""

    def __init__(self, event, step):
        setattr(self, event, self.kill)
        self.step = step

    def kill(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def curves(name):
    return [open(f"metrics/{name}/{part}.tsv").read() for part in ("train", "eval")]
