"""Shrunk models of the architectures that presets name, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    set_seed,
)

from rlhf_lib.base import model as base
from rlhf_lib.models import loading as models

LENGTH = 96  # tokens of the shrunk models' context
GPT2_MODELS = {f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large")}
# heads, and heads of keys and values: as many queries share one as in the real models (9 and 3, 32 and 8)
LLAMAS = {"HuggingFaceTB/SmolLM2-135M": (3, 1), "meta-llama/Llama-3.2-1B-Instruct": (4, 1)}
ENCODER = "distilbert/distilbert-base-uncased"


def config_of(model_id: str | None, length: int = LENGTH) -> PretrainedConfig:
    """The shrunk config of the model that a preset names; None: the fresh model. In layers it is that of the real model
    where a preset freezes layers by number."""
    if model_id is None or model_id in GPT2_MODELS:
        return GPT2Config(n_embd=16, n_head=2, n_positions=length, n_layer=2)
    if model_id == "EleutherAI/gpt-neo-125m":
        layers = {"num_layers": 12, "attention_types": [[["global", "local"], 6]]}
        return GPTNeoConfig(hidden_size=16, num_heads=2, max_position_embeddings=length, window_size=32, **layers)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if model_id == "EleutherAI/pythia-160m":
        return GPTNeoXConfig(**sizes, max_position_embeddings=length)
    shared = {"max_position_embeddings": length, "tie_word_embeddings": True}
    if model_id in LLAMAS:
        heads, kv_heads = LLAMAS[model_id]
        sizes |= {"hidden_size": 8 * heads, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
        return LlamaConfig(**sizes, **shared)
    assert model_id == "Qwen/Qwen2.5-0.5B-Instruct", f"{model_id}: name its architecture here"
    return Qwen2Config(**sizes, num_key_value_heads=1, **shared)


def write_decoder(
    model_id: str | None, texts: Sequence[str], path: Path | str, length: int = LENGTH, vocab_size: int = 300
) -> None:
    """Random weights of the architecture, and a tokenizer learnt from the texts."""
    tokenizer = base.fresh_tokenizer(list(texts), vocab_size)
    config = config_of(model_id, length)
    config.update({"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": None, "pad_token_id": None})
    set_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    base.complete(model, tokenizer, seed=0)
    models.save(model, tokenizer, path)


def write_encoder(texts: Sequence[str], path: Path | str, length: int = LENGTH) -> None:
    """A random DistilBERT with a WordPiece tokenizer learnt from the texts, for a dialogue in one piece or two."""
    tokenizer = Tokenizer(tokenizer_models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*texts, "user: assistant: system:"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **names)
    config = DistilBertConfig(
        vocab_size=len(fast), max_position_embeddings=length, n_layers=2, n_heads=2, dim=16, hidden_dim=32, num_labels=1
    )
    set_seed(0)
    models.save(AutoModelForSequenceClassification.from_config(config), fast, path)
