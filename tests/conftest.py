"""Tiny models and their tokenizer, made once, and PPO trainers of them, for the tests that run a model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Before any import of huggingface_hub: no test reaches the network. One thread: the models are tiny.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

import pytest

from rlhf_lib.models.params import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_lib.ppo.trainer import PPOTrainer
    from rlhf_lib.training.checkpoint import CheckpointDir

ROOT = Path(__file__).resolve().parents[1]

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


# What PPO reads: rows with columns beside the prompt, and SFT rows
TRAIN_ROWS = [
    {
        "id": f"train-{i}",
        "source": "demo/facts",
        "prompt": [{"role": "user", "content": text}],
        "answer": text.split()[2],
    }
    for i, text in enumerate(TEXTS)
]
EVAL_ROWS = [
    {
        "id": f"eval-{noun}",
        "source": "other",
        "prompt": [{"role": "user", "content": f"What is a {noun}?"}],
        "answer": noun,
    }
    for noun in ("cat", "dog", "sky")
]
PTX_ROWS = [
    {"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": answer}]}
    for text, answer in zip(TEXTS, ("Cat.", "A dog, in one word.", "sky", "Paint the cat.", "one"), strict=False)
]


class Tiny(NamedTuple):
    """Directories of a random two-layer model with its tokenizer, and of a reward model on the same trunk."""

    policy: Path
    reward: Path


def save_tiny(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, factory: pytest.TempPathFactory) -> Tiny:
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
    tiny = Tiny(factory.mktemp("policy"), factory.mktemp("reward"))
    models.save(model, tokenizer, tiny.policy)
    torch.manual_seed(1)
    reward = AutoModelForSequenceClassification.from_pretrained(tiny.policy, num_labels=1)
    models.save(reward, tokenizer, tiny.reward)
    write_json(tiny.reward / STATISTICS_FILE, {"mean": 0.1, "std": 0.5})
    return tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
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
    return save_tiny(base.fresh_model(params, tokenizer), tokenizer, tmp_path_factory)


@pytest.fixture(scope="module")
def policy(tiny: Tiny) -> PreTrainedModel:
    from rlhf_lib.models import loading as models

    return models.load_policy(tiny.policy)


@pytest.fixture(scope="module")
def tokenizer(tiny: Tiny) -> PreTrainedTokenizerBase:
    from rlhf_lib.models import loading as models

    return models.load_tokenizer(tiny.policy)


# ---- PPO


@pytest.fixture(scope="session")
def ending(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy, which here ends its response with any token with a probability of about a tenth."""
    import torch

    from rlhf_lib.models import loading as models

    path = tmp_path_factory.mktemp("ending")
    policy, tokenizer = models.load_policy(tiny.policy), models.load_tokenizer(tiny.policy)
    with torch.no_grad():
        eos = policy.get_input_embeddings().weight[tokenizer.eos_token_id]
        policy.transformer.ln_f.bias.copy_(3.5 * eos / eos.square().sum())
    models.save(policy, tokenizer, path)
    return path


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointDir:
    """A directory for the checkpoints of a stage (ppo), in a project of its own, where the test runs."""
    from rlhf_lib.training.checkpoint import CheckpointDir

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").write_text("policy: ppo\n")
    (tmp_path / "dvc.yaml").write_text("stages: {ppo: {cmd: x, deps: []}}\n")
    return CheckpointDir("ppo")


@pytest.fixture
def build(tiny: Tiny, ending: Path, checkpoints: CheckpointDir) -> Callable[..., PPOTrainer]:
    """A function of params that gives a trainer. `functions`, with their weights, take the place of reward_funcs."""
    from test_ppo_rollout import ppo_params

    from rlhf_lib.ppo import build as ppo
    from rlhf_lib.ppo.rewards import RewardFunctions

    defaults = {"temperature": 0.8, "eval_rollouts": 100, "save_rollouts": 100, "max_grad_norm": 0.0}

    def build(
        policy: Path = ending,
        reward: Path = tiny.reward,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        weights: Sequence[float] | None = None,
        **changes: Any,
    ) -> PPOTrainer:
        params = ppo_params(**{**defaults, "reward_funcs": [str(reward)], **changes})
        trainer = ppo.build(params, str(policy), str(reward), TRAIN_ROWS, EVAL_ROWS, PTX_ROWS, checkpoints)
        if functions is not None:
            trainer.sampler.reward = RewardFunctions(functions, weights or [1.0] * len(functions))
        return trainer

    return build


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def rows(trainer, key="loss"):
    """The logged rows that have `key`, without what differs from run to run."""
    log = [entry for entry in trainer.state.log_history if key in entry]
    varying = ("epoch", "runtime", "per_second")
    return [{k: v for k, v in entry.items() if not any(word in k for word in varying)} for entry in log]


def column(trainer, key):
    return [row[key] for row in rows(trainer, key)]
