"""A preset's params shrunk to minutes on a CPU: tiny models of its architecture, and some rows in the form of the hub's
data sets, in files of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import upstream_rows
from shrunk_models import write_decoder, write_encoder

Params = dict[str, Any]

ROWS = 160  # of each source
LENGTH = 160  # tokens of the models' context
MODELS = "tiny"  # the folder of the models


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_user_files(folder: Path) -> None:
    """The files that the page says its reader has: a pun list, and questions and answers with scores."""
    puns = [upstream_rows.pun(i) for i in range(ROWS)]
    (folder / "Pun_Dataset.json").write_text(json.dumps(puns), encoding="utf-8")
    answers = [upstream_rows.scored_answer(i) for i in range(2 * ROWS)]
    parts = {"train": answers[:-80], "val": answers[-80:-40], "test": answers[-40:]}
    (folder / "qa.json").write_text(json.dumps(parts), encoding="utf-8")


def shrink(params: Params, folder: Path) -> Params:
    """The params in place, for the files and models that are written into the folder."""
    _sources(params, folder)
    _models(params, folder)
    params["compute"] |= {"device": "cpu", "precision": "fp32"}
    prepare = params["prepare"]
    prepare |= {"validation_share": 0.2}
    if not prepare["test_share"]:  # that of the hub's own test splits
        prepare |= {"test_share": 0.1, "preference_share": prepare["preference_share"] - 0.1}
    for key in ("sft", "reward", "judge", "dpo"):
        own = params[key]
        own |= {"max_steps": 6, "logging_steps": 2, "eval_steps": 3, "save_steps": 6, "per_device_train_batch_size": 4}
        own["gradient_accumulation_steps"] = min(own["gradient_accumulation_steps"], 2)
        if key != "dpo":
            own["max_length"] = LENGTH
    params["reference"]["max_length"] = LENGTH
    _sampling(params)
    return params


def _sources(params: Params, folder: Path) -> None:
    params["load"]["num_proc"] = 1
    for number, source in enumerate(params["load"]["sources"]):
        if source["reader"] in upstream_rows.MAKERS:
            make = upstream_rows.MAKERS[source["reader"]]
            source["path"] = f"{source['reader']}.jsonl"
            write_jsonl(folder / source["path"], [make(1000 * number + i) for i in range(ROWS)])
            for option in ("subsets", "hub_id", "revision"):
                source.pop(option, None)


def _models(params: Params, folder: Path) -> None:
    texts, base = upstream_rows.texts(), params["base"]
    write_decoder(base["model_name_or_path"], texts, folder / MODELS / "decoder", LENGTH, vocab_size=800)
    base |= {"model_name_or_path": f"{MODELS}/decoder", "model_revision": None}
    params["prepare"] |= {"tokenizer_name_or_path": f"{MODELS}/decoder", "tokenizer_revision": None}
    params["prepare"] |= {"max_prompt_tokens": LENGTH - 32, "max_response_tokens": LENGTH // 2}
    for key in ("reward", "judge"):
        if "@" in params[key]["model_name_or_path"]:
            write_encoder(texts, folder / MODELS / "encoder", LENGTH)
            params[key]["model_name_or_path"] = f"{MODELS}/encoder"


def _sampling(params: Params) -> None:
    ppo, evaluate = params["ppo"], params["evaluate"]
    ppo["num_minibatches"] = min(ppo["num_minibatches"], 2)
    ppo |= {"rollout_batch_size": 8 * ppo["num_minibatches"], "per_device_train_batch_size": 4}
    ppo |= {"total_rollouts": 3, "eval_rollouts": 1, "save_rollouts": 2, "response_length": 16}
    evaluate |= {"max_prompts": 8, "max_new_tokens": 16, "per_device_eval_batch_size": 8}
    params["best_of_n"]["n"] = [2]
