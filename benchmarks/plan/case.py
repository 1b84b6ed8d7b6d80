"""One configuration of the plan's check in a process of its own: `python -m benchmarks.plan.case NAME`.

Trains a few steps at random weights on rows of known lengths, validates, samples or scores, as the stage would, and
prints the peak memory as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.plan import readers
from benchmarks.ppo import worker
from benchmarks.ppo.cases import LIKE_TRL, LORA
from benchmarks.ppo.cases import SIZES as SIZES_OF_PPO
from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common import environment
from rlhf_lib.common.rows import Message
from rlhf_lib.common.schema import PARAMS_FILE, check
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.models.params import AUTO, Choice

PARAMS = Path(__file__).resolve().parents[2] / PARAMS_FILE
STEPS = 2  # the optimizer's moments are there in the second


@dataclass(frozen=True)
class Case:
    about: str
    stage: Literal["sft", "reward", "dpo", "ppo", "reference", "evaluate"]
    size: str
    rows: int  # to a forward pass; pairs where the stage learns from pairs
    prompt: int  # tokens of each row's prompt, the role tokens included
    answer: int  # tokens of each row's answer, its end included
    precision: Choice = "fp32"
    checkpointing: bool = False
    accumulation: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)
    eval_rows: int = 0  # to a forward pass of the validation, and of the scores of evaluate; 0: none is validated

    def params(self) -> Any:
        """The stage's section of params.yaml, with what the case sets."""
        settings: dict[str, Any] = {**self.overrides, "per_device_train_batch_size": self.rows}
        if self.stage == "reference":
            settings = {"max_length": self.prompt + self.answer, "precompute_ref_batch_size": self.rows}
        elif self.stage == "evaluate":
            settings = {"max_new_tokens": self.answer, "samples_per_prompt": 1, "temperatures": [1.0]}
            settings |= {"per_device_eval_batch_size": self.rows, **self.overrides}
        elif self.stage == "ppo":
            settings = {**LIKE_TRL, **settings, "response_length": self.answer, "total_rollouts": 2}
            settings |= {"eval_rollouts": 10**6, "save_rollouts": 10**6, "num_completions_to_log": 0}
            settings |= {"rollout_batch_size": 2 * self.rows * self.accumulation, "num_minibatches": 2}
            settings |= {"num_ppo_epochs": 1, **self.overrides}
        else:
            settings |= {"gradient_accumulation_steps": self.accumulation, "max_steps": STEPS}
            settings |= {} if self.stage == "dpo" else {"max_length": self.prompt + self.answer}
            settings |= {"eval_steps": 10**6, "save_steps": 10**6}
            settings |= {"per_device_eval_batch_size": self.eval_rows or self.rows}
        values = {**load_yaml(PARAMS)[self.stage], **settings}
        return check(SECTIONS[self.stage], values, self.stage, PARAMS_FILE)


SIZES: dict[str, dict[str, int]] = {
    **SIZES_OF_PPO,
    "two": {"n_layer": 2, "n_embd": 768, "n_head": 12, "vocab_size": 50257},  # layers of GPT-2
}
_LORA = {"lora_r": 8, "lora_target_modules": ["c_attn"]}
_SHARED = {"critic": "shared"}
_AT_ONCE = {**_SHARED, "total_rollouts": 1}
_IN_PIECES = {**_AT_ONCE, "generation_batch_size": 16, "local_rollout_forward_batch_size": 16}
CASES: dict[str, Case] = {
    "sft_tiny": Case("SFT, 4 layers, 256 wide", "sft", "tiny", 16, 64, 192),
    "sft_gpt2_bf16": Case("SFT, GPT-2, bf16", "sft", "gpt2", 4, 64, 192, "bf16"),
    "sft_gpt2_lora": Case("SFT, GPT-2, LoRA", "sft", "gpt2", 4, 64, 192, overrides=_LORA),
    "sft_gpt2_checkpointing": Case(
        "SFT, GPT-2, activations computed again, 2 micro-batches", "sft", "gpt2", 4, 64, 192, "fp32", True, 2
    ),
    "reward_tiny": Case("reward model, 4 layers, 256 wide", "reward", "tiny", 16, 64, 192),
    "dpo_gpt2": Case("DPO, GPT-2", "dpo", "gpt2", 2, 64, 192),
    "ppo_gpt2": Case("PPO, GPT-2, a critic of its own", "ppo", "gpt2", 8, 64, 64, overrides=LIKE_TRL),
    "ppo_gpt2_lora": Case("PPO, GPT-2, LoRA, shared critic", "ppo", "gpt2", 8, 64, 64, overrides=LORA),
    "ppo_tiny_bf16": Case(
        "PPO, 4 layers, 256 wide, shared critic, bf16",
        "ppo",
        "tiny",
        32,
        64,
        64,
        "bf16",
        overrides=_SHARED,
    ),
    "sft_validation": Case("SFT, 2 layers of GPT-2, validated on 20 rows", "sft", "two", 1, 32, 96, eval_rows=20),
    "reward_validation": Case(
        "reward model, 2 layers of GPT-2, validated on 40 pairs", "reward", "two", 1, 32, 96, eval_rows=40
    ),
    "dpo_validation": Case("DPO, 2 layers of GPT-2, validated on 10 pairs", "dpo", "two", 1, 32, 96, eval_rows=10),
    "reference": Case("reference, 2 layers of GPT-2", "reference", "two", 16, 64, 192),
    "reference_bf16": Case("reference, 2 layers of GPT-2, bf16", "reference", "two", 32, 64, 192, "bf16"),
    "evaluate": Case("evaluate, 2 layers of GPT-2: log-probs", "evaluate", "two", 32, 16, 48, eval_rows=8),
    "evaluate_cache": Case("evaluate, 4 layers, 256 wide: cache", "evaluate", "tiny", 64, 192, 16, eval_rows=8),
    "evaluate_scores": Case("evaluate, 2 layers of GPT-2: scores", "evaluate", "two", 4, 112, 16, eval_rows=40),
    "ppo_at_once": Case(
        "PPO, 4 layers, 256 wide: 128 sampled at once", "ppo", "tiny", 4, 160, 16, accumulation=16, overrides=_AT_ONCE
    ),
    "ppo_in_pieces": Case(
        "PPO, 4 layers, 256 wide: 16 sampled at once", "ppo", "tiny", 4, 160, 16, accumulation=16, overrides=_IN_PIECES
    ),
}


def tokenizer() -> Any:
    """A tokenizer of bytes: one token a letter, so that a row has the tokens that the case says."""
    from rlhf_lib.base import model as base
    from rlhf_lib.models.chat import ROLES, chat_template

    made = base.fresh_tokenizer([], 256 + 2 + len(ROLES))
    made.chat_template = chat_template()
    return made


def write_models(case: Case, folder: Path, made: Any) -> None:
    """Random weights of the case's size, as `policy` and as `reward`."""
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    from rlhf_lib.common.files import write_json
    from rlhf_lib.models import loading as models
    from rlhf_lib.scoring.reward_model import STATISTICS_FILE

    ids = {name: getattr(made, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.0)
    config = GPT2Config(**SIZES[case.size], **ids, **dropouts, num_labels=1)
    torch.manual_seed(0)
    models.save(GPT2LMHeadModel(config), made, folder / "policy")
    models.save(GPT2ForSequenceClassification(config), made, folder / "reward")
    write_json(folder / "reward" / STATISTICS_FILE, {"mean": 0.0, "std": 1.0})


def rows(case: Case, made: Any, count: int) -> list[dict[str, Any]]:
    """Prompts and answers of random letters, of exactly the case's lengths in tokens."""
    from rlhf_lib.models.chat import dialogue_ids, prompt_ids

    draw = random.Random(0)
    empty: list[Message] = [{"role": "user", "content": ""}]
    around = len(prompt_ids(made, empty))
    end = len(dialogue_ids(made, empty, "")) - around

    def text(length: int) -> str:
        return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=length))

    def message(role: str, length: int) -> list[Message]:
        return [{"role": role, "content": text(length)}]

    return [
        {
            "prompt": message("user", case.prompt - around),
            "completion": message("assistant", case.answer - end),
            "chosen": message("assistant", case.answer - end),
            "rejected": message("assistant", case.answer - end),
            "ref_chosen_logps": -100.0,
            "ref_rejected_logps": -100.0,
            "length": case.prompt + case.answer,
            "id": str(i),
            "source": "random",
            "responses": [{"content": text(case.answer - end), "score": 1.0}],
        }
        for i in range(count)
    ]


def trainer(case: Case, folder: Path) -> Any:
    """The stage's trainer on the case's models and rows."""
    from datasets import Dataset

    from rlhf_lib.common.rows import write_jsonl
    from rlhf_lib.dpo import reference
    from rlhf_lib.dpo import trainer as dpo
    from rlhf_lib.ppo import build as ppo
    from rlhf_lib.reward import trainer as reward
    from rlhf_lib.sft import trainer as sft

    nowhere = worker.Nowhere(folder)
    made = tokenizer()
    write_models(case, folder, made)
    params, policy = case.params(), str(folder / "policy")
    made_rows = rows(case, made, max(2 * case.rows * case.accumulation * STEPS, case.eval_rows))
    if case.stage == "ppo":
        rewarding = str(folder / "reward")
        params = dataclasses.replace(params, reward_funcs=[rewarding])
        return ppo.build(params, policy, rewarding, made_rows, made_rows[:1], [], nowhere)
    if case.stage == "reward":
        file = folder / "rows.jsonl"
        write_jsonl(file, made_rows)
        params = dataclasses.replace(params, model_name_or_path=policy)
        return reward.build("reward", params, reward.Splits(str(file), str(file)), None, nowhere)
    columns = (
        (*sft.COLUMNS, "length")
        if case.stage == "sft"
        else (*reference.COLUMNS, *reference.REFERENCE_COLUMNS, "length")
    )
    data = Dataset.from_list([{name: row[name] for name in columns} for row in made_rows])
    few = data.select(range(min(len(data), max(1, case.eval_rows))))
    if case.stage == "sft":
        return sft.build(params, policy, data, few, nowhere)
    return dpo.build(params, case.prompt + case.answer, policy, data, few, nowhere)


def train(case: Case, folder: Path) -> float:
    """Train, validate where the case has rows for that, and measure the answers, as the stage does; MiB held before."""
    from transformers import TrainerCallback

    before: list[float] = []

    class Reset(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            worker.reset_peak()
            before.append(worker.peak_mb())

    built = trainer(case, folder)
    built.add_callback(Reset())
    built.train()
    if case.eval_rows:
        built.evaluate()
        readers.after(case.params(), case.stage, built, folder, rows(case, tokenizer(), case.eval_rows))
    return before[0]


def measure(case: Case) -> dict[str, float]:
    """MiB that the process held at most while it worked, and before."""
    import torch

    from rlhf_lib.models import hardware

    torch.set_num_threads(worker.THREADS)
    hardware.use(
        dataclasses.replace(AUTO, device="cpu", precision=case.precision, gradient_checkpointing=case.checkpointing)
    )
    with tempfile.TemporaryDirectory(prefix="plan-case-") as folder:
        if case.stage in ("reference", "evaluate"):
            made = tokenizer()
            write_models(case, Path(folder), made)
            worker.reset_peak()
            before = worker.peak_mb()
            # of each row, evaluate scores two answers: the sampled one and its own
            few = rows(case, made, max(case.rows, case.eval_rows))
            readers.READ[case.stage](case.params(), case.eval_rows, Path(folder), few)
        else:
            before = train(case, Path(folder))
        return {"peak_mb": worker.peak_mb(), "before_mb": before}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to stderr
    os.dup2(2, 1)
    environment.prepare()
    answers.write(json.dumps(measure(CASES[sys.argv[1]])) + "\n")


if __name__ == "__main__":
    main()
