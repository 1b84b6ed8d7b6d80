"""The configs of the models that presets name, in the real models' sizes, without a network and without weights."""

from __future__ import annotations

from transformers import (
    DistilBertConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)


def gpt2(layers: int, width: int, heads: int) -> PretrainedConfig:
    return GPT2Config(n_layer=layers, n_embd=width, n_head=heads)


def llama(sizes: tuple[int, int, int, int, int, int], context: int, **more: int) -> PretrainedConfig:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    own = dict(zip((*names, "vocab_size"), sizes, strict=True))
    return LlamaConfig(**own, **more, max_position_embeddings=context, tie_word_embeddings=True)


def neox() -> PretrainedConfig:
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return GPTNeoXConfig(**sizes, vocab_size=50304, max_position_embeddings=2048)


def qwen() -> PretrainedConfig:
    sizes = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    return Qwen2Config(**sizes, num_key_value_heads=2, max_position_embeddings=32768, tie_word_embeddings=True)


CONFIGS: dict[str, PretrainedConfig] = {
    "openai-community/gpt2": gpt2(12, 768, 12),
    "openai-community/gpt2-medium": gpt2(24, 1024, 16),
    "openai-community/gpt2-large": gpt2(36, 1280, 20),
    "EleutherAI/gpt-neo-125m": GPTNeoConfig(
        hidden_size=768, num_layers=12, num_heads=12, attention_types=[[["global", "local"], 6]]
    ),
    "EleutherAI/pythia-160m": neox(),
    "HuggingFaceTB/SmolLM2-135M": llama((576, 1536, 30, 9, 3, 49152), 8192),
    "Qwen/Qwen2.5-0.5B-Instruct": qwen(),
    "meta-llama/Llama-3.2-1B-Instruct": llama((2048, 8192, 16, 32, 8, 128256), 131072, head_dim=64),
    "distilbert/distilbert-base-uncased": DistilBertConfig(),
}
