"""Trainers of SFT, reward model and DPO on the tiny model, and their rows."""

import copy
import csv

import torch
from tiny_models import TEXTS
from transformers import TrainerCallback

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.dpo.params import DPOParams
from rlhf_lib.dpo.reference import COLUMNS, reference_logprobs
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.reward import trainer as reward
from rlhf_lib.reward.params import JudgeParams
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import trainer as training

CHOSEN = ["Cat.", "The dog.", "sky", "Paint the cat dog sky.", "one", "A word.", "dog", "in one word", "the"]
REJECTED = ["word word word", "sky", "Name the cat.", "dog", "cat cat", "one.", "the sky in one", "cat", "Paint it."]
TRAINER = {
    "seed": 0,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": {},
    "warmup_steps": 0.0,
    "optim": "adamw_torch_fused",
    "optim_args": None,
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "per_device_train_batch_size": 3,
    "per_device_eval_batch_size": 3,
    "num_train_epochs": 2.0,
    "max_steps": 5,
    "gradient_accumulation_steps": 1,
    "train_sampling_strategy": "random",
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 5,
    "save_steps": 2,
    "load_best_model_at_end": False,
    "metric_for_best_model": "eval_loss",
    "early_stopping_patience": None,
    "save_total_limit": 1,
    "lora_r": None,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "lora_target_modules": None,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "freeze": [],
}
DPO = {
    "beta": 0.5,
    "loss_type": "sigmoid",
    "label_smoothing": 0.0,
    "loss_weights": None,
    "discopop_tau": 0.05,
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5,
    "ld_alpha": None,
    "use_weighting": False,
}
LONG = "cat " * 100


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def sft_rows():
    return [{"id": str(i), "prompt": user(TEXTS[i]), "completion": assistant(CHOSEN[i])} for i in range(len(TEXTS))]


def pair(i, prompt=None):
    answers = {"chosen": assistant(CHOSEN[i]), "rejected": assistant(REJECTED[i])}
    return {"id": f"pair-{i}", "source": "demo", "prompt": user(prompt or TEXTS[i]), **answers}


def pair_rows():
    return [pair(i) for i in range(len(TEXTS))]


def turned(rows):
    """Pairs that say the opposite."""
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


def dataset(rows, columns):
    return training.of_rows(rows, columns)


def sft_trainer(tiny, checkpoints, rows=None, **changes):
    rows = dataset(rows or sft_rows(), sft.COLUMNS)
    params = SFTParams(**{**TRAINER, "max_length": 64, **changes})
    return sft.build(params, str(tiny.policy), rows, rows, checkpoints)


def reward_trainer(tiny, checkpoints, rows=None, **changes):
    write_jsonl("pairs.jsonl", rows or pair_rows())
    base = {"model_name_or_path": str(tiny.policy), "max_length": 64, "center_rewards_coefficient": None}
    params = JudgeParams(**{**TRAINER, **base, **changes})
    return reward.build("reward", params, reward.Splits("pairs.jsonl", "pairs.jsonl"), None, checkpoints)


def dpo_params(**changes):
    return DPOParams(**{**TRAINER, **DPO, **changes})


def referenced(tiny, rows, path="reference.jsonl", max_length=64, ld_alpha=None):
    """The pairs with the reference log-probs that the tiny policy gives them."""
    pairs = dataset(rows, COLUMNS)
    policy, tokenizer = models.load_policy(tiny.policy), models.load_tokenizer(tiny.policy)
    write_jsonl(path, reference_logprobs(policy, tokenizer, pairs, max_length, batch_size=4))
    return dpo.with_reference(pairs, path, ld_alpha)


def dpo_trainer(tiny, checkpoints, **changes):
    pairs = referenced(tiny, pair_rows())
    return dpo.build(dpo_params(**changes), 64, str(tiny.policy), pairs, pairs, checkpoints)


BUILD = {"sft": sft_trainer, "reward": reward_trainer, "dpo": dpo_trainer}


def moved_policy(tiny, folder):
    """The directory of a policy that has moved away from the tiny one."""
    model, tokenizer = copy.deepcopy(models.load_policy(tiny.policy)), models.load_tokenizer(tiny.policy)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    models.save(model, tokenizer, folder)
    return str(folder)


def batch_of(trainer, rows):
    return trainer.data_collator([trainer.train_dataset[i] for i in rows])


def read_tsv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


class Killed(Exception):
    pass


class KillAfterSave(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        raise Killed


class CountSteps(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


def loss_by_hand(model, tokenizer, rows, max_length):
    losses = []
    for row in rows:
        start = len(prompt_ids(tokenizer, row["prompt"]))
        ids = dialogue_ids(tokenizer, row["prompt"], row["completion"][0]["content"])[:max_length]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        losses += [-logits[i - 1].log_softmax(0)[ids[i]].item() for i in range(start, len(ids))]
    return sum(losses) / len(losses)
