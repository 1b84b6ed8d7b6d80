"""Random models of many architectures."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_lib.models import loading as models

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**LLAMA, "num_key_value_heads": 2}
# Weights much larger than at initialisation, so that who attends to whom shows in the logits.
KINDS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.2},
    "llama": {**LLAMA, "initializer_range": 0.2},
    "qwen2": {**GROUPED, "initializer_range": 0.2},
    "mistral": {**GROUPED, "sliding_window": 4, "initializer_range": 0.2},
    "gemma2": {
        **GROUPED,
        "head_dim": 8,
        "query_pre_attn_scalar": 5,
        "sliding_window": 4,
        "attn_logit_softcapping": 0.5,
        "initializer_range": 0.2,
    },
    "gpt_neox": {**LLAMA, "initializer_range": 0.2},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "init_std": 0.2,
    },
    "gpt_neo": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    },
}
# Layers that look at neighbouring tokens other than by attention, or by attention in chunks.
MIXING = {
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"], "initializer_range": 0.2},
    "llama4_text": {**GROUPED, "head_dim": 8, "attention_chunk_size": 4, "intermediate_size_mlp": 48},
}


def make(kind):
    """A random model as it comes, and the same one made fast."""
    torch.manual_seed(0)
    ids = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    # Each with a config of its own, in which set_attn_implementation writes.
    configs = [AutoConfig.for_model(kind, **(KINDS | MIXING)[kind], **ids) for _ in range(2)]
    plain, fast = (AutoModelForCausalLM.from_config(c, attn_implementation="eager").eval() for c in configs)
    fast.load_state_dict(plain.state_dict())
    models.run_fast(fast)
    return plain, fast
