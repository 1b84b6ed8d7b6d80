"""A tiny model and its tokenizer, made once, for the tests that run a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# Before any import of huggingface_hub: no test reaches the network. One thread: the models are tiny.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parents[1]

TEXTS = [f"{verb} the {noun} in one word." for verb in ("Name", "Paint", "Describe") for noun in ("cat", "dog", "sky")]


class Tiny(NamedTuple):
    """Directories of a random two-layer GPT-2 with its tokenizer, and of a reward model on the same trunk."""

    policy: Path
    reward: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    import torch
    from transformers import AutoModelForSequenceClassification

    from rlhf_lib import base, models
    from rlhf_lib.params.base import BaseParams
    from rlhf_lib.rewards import STATISTICS_FILE
    from rlhf_lib.tracking import write_json

    params = BaseParams(
        model_name_or_path=None,
        model_revision=None,
        seed=0,
        vocab_size=320,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
    )
    tokenizer = base.fresh_tokenizer(TEXTS, params.vocab_size)
    model = base.fresh_model(params, tokenizer)
    with torch.no_grad():  # sharper than at initialisation, so that log-probs differ visibly
        for weight in model.parameters():
            weight.mul_(3.0) if weight.dim() > 1 else None
    base.complete(model, tokenizer, params.seed)
    tiny = Tiny(tmp_path_factory.mktemp("policy"), tmp_path_factory.mktemp("reward"))
    models.save(model, tokenizer, tiny.policy)
    torch.manual_seed(1)
    reward = AutoModelForSequenceClassification.from_pretrained(tiny.policy, num_labels=1)
    models.save(reward, tokenizer, tiny.reward)
    write_json(tiny.reward / STATISTICS_FILE, {"mean": 0.1, "std": 0.5})
    return tiny


@pytest.fixture(scope="module")
def policy(tiny: Tiny) -> PreTrainedModel:
    from rlhf_lib import models

    return models.load_policy(tiny.policy)


@pytest.fixture(scope="module")
def tokenizer(tiny: Tiny) -> PreTrainedTokenizerBase:
    from rlhf_lib import models

    return models.load_tokenizer(tiny.policy)
