"""Tiny models and their tokenizer, made once: fixtures for the conftest.py of a folder whose tests run a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from project import of_one_stage

from rlhf_lib.models.params import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_lib.training.checkpoint import CheckpointDir

IN_FP32 = dataclasses.replace(AUTO, device="cpu", precision="fp32")


@pytest.fixture(autouse=True, scope="session")
def in_fp32() -> None:
    """The tests' models compute in fp32 on the CPU, whatever the machine has: numbers are compared to 1e-5."""
    from rlhf_lib.models import hardware

    hardware.use(IN_FP32)


@pytest.fixture
def compute() -> Iterator[Callable[..., None]]:
    """Chooses other hardware settings for the rest of a test."""
    from rlhf_lib.models import hardware

    yield lambda **changes: hardware.use(dataclasses.replace(IN_FP32, **changes))
    hardware.use(IN_FP32)


TEXTS = [f"{verb} the {noun} in one word." for verb in ("Name", "Paint", "Describe") for noun in ("cat", "dog", "sky")]


class Tiny(NamedTuple):
    """Directories of a random two-layer model with its tokenizer, and of a reward model on the same trunk."""

    policy: Path
    reward: Path


def save_tiny(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Tiny:
    """Directories of a random model, made sharper than at initialisation, so that log-probs differ visibly."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from rlhf_lib.base import model as base
    from rlhf_lib.common.files import write_json
    from rlhf_lib.models import loading as models
    from rlhf_lib.scoring.reward_model import STATISTICS_FILE

    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0) if weight.dim() > 1 else None
    base.complete(model, tokenizer, seed=0)
    tiny = Tiny(folder / "policy", folder / "reward")
    models.save(model, tokenizer, tiny.policy)
    torch.manual_seed(1)
    reward = AutoModelForSequenceClassification.from_pretrained(tiny.policy, num_labels=1)
    models.save(reward, tokenizer, tiny.reward)
    write_json(tiny.reward / STATISTICS_FILE, {"mean": 0.1, "std": 0.5})
    return tiny


@functools.cache  # a session fixture is made anew for each conftest.py that has it
def tiny_in(folder: Path) -> Tiny:
    from rlhf_lib.base import model as base
    from rlhf_lib.base.params import BaseParams

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
    return save_tiny(base.fresh_model(params, tokenizer), tokenizer, folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_in(tmp_path_factory.getbasetemp() / "tiny")


@pytest.fixture(scope="module")
def policy(tiny: Tiny) -> PreTrainedModel:
    from rlhf_lib.models import loading as models

    return models.load_policy(tiny.policy)


@pytest.fixture(scope="module")
def tokenizer(tiny: Tiny) -> PreTrainedTokenizerBase:
    from rlhf_lib.models import loading as models

    return models.load_tokenizer(tiny.policy)


@functools.cache
def ending_in(folder: Path, policy: Path) -> Path:
    import torch

    from rlhf_lib.models import loading as models

    model, tokenizer = models.load_policy(policy), models.load_tokenizer(policy)
    with torch.no_grad():
        eos = model.get_input_embeddings().weight[tokenizer.eos_token_id]
        model.transformer.ln_f.bias.copy_(3.5 * eos / eos.square().sum())
    models.save(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def ending(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy, which here ends its response with any token with a probability of about a tenth."""
    return ending_in(tmp_path_factory.getbasetemp() / "ending", tiny.policy)


def checkpoints_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointDir:
    """A directory for the checkpoints of a stage (ppo), in a project of its own in `folder`, which becomes the current
    one."""
    from rlhf_lib.training.checkpoint import CheckpointDir

    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(of_one_stage(folder)))
    return CheckpointDir("ppo")


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointDir:
    """`checkpoints_in` the directory where the test runs."""
    return checkpoints_in(tmp_path, monkeypatch)
