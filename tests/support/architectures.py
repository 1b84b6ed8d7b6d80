"""Random models of many architectures, shrunk."""

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
WINDOW = {"sliding_window": 4}
GEMMA = {**GROUPED, **WINDOW, "head_dim": 8, "query_pre_attn_scalar": 5}
HEADS = {**GROUPED, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW_AND_FULL = ["sliding_attention", "full_attention"]
PER_LAYER = {**HEADS, **WINDOW, "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MLA = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "head_dim": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
KINDS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neo": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
    },
    "gpt_neox": LLAMA,
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "init_std": 0.2,
    },
    "llama": LLAMA,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "mistral": {**GROUPED, **WINDOW},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 0.5},
    "gemma3_text": GEMMA,
    "phi3": GROUPED,
    "olmo2": GROUPED,
    "granite": {**GROUPED, "attention_multiplier": 0.3, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    "stablelm": GROUPED,
    "falcon": {**GROUPED, "num_kv_heads": 2, "new_decoder_architecture": True},
    "bloom": {"hidden_size": 32, "n_head": 4, "n_layer": 2},
    "nemotron": GROUPED,
    "deepseek_v3": {**LLAMA, **MLA},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"]},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "recurrent_gemma": {**GROUPED, "num_hidden_layers": 3, "head_dim": 8, "lru_width": 32, "attention_window_size": 64},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "phi": LLAMA,
    "smollm3": {**GROUPED, "no_rope_layer_interval": 2},
    "qwen3_moe": {**HEADS, **EXPERTS, "num_experts": 4},
    "qwen3_5_text": {**HEADS, **DELTA},
    "gemma3n_text": {
        **PER_LAYER,
        "num_hidden_layers": 4,
        "layer_types": [*WINDOW_AND_FULL, *WINDOW_AND_FULL],
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "num_kv_shared_layers": 2,
        "laurel_rank": 4,
    },
    "gemma4_text": {**PER_LAYER, "global_head_dim": 8, "num_kv_shared_layers": 0, "layer_types": WINDOW_AND_FULL},
    "olmo3": {**GROUPED, **WINDOW},
    "exaone4": {**HEADS, **WINDOW, "sliding_window_pattern": 2},
    "ministral3": HEADS,
    "gpt_oss": {**HEADS, **WINDOW, **EXPERTS, "num_local_experts": 4, "layer_types": WINDOW_AND_FULL},
    "granitemoehybrid": {
        **GROUPED,
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "shared_intermediate_size": 32,
        "num_local_experts": 0,
    },
    "falcon_h1": {
        **HEADS,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
    },
}
# Layers that look at neighbouring tokens other than by attention to all or in a window.
MIXING = {
    "lfm2": KINDS["lfm2"],
    "llama4_text": {**GROUPED, "head_dim": 8, "attention_chunk_size": 4, "intermediate_size_mlp": 48},
}
# Weights much larger than at initialisation, so that who attends to whom shows in the logits.
SPREAD = {"initializer_range": 0.2}


def config(kind, vocab_size=50):
    """A shrunk config of the architecture."""
    ids = {"vocab_size": vocab_size, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return AutoConfig.for_model(kind, **SPREAD, **(MIXING | KINDS)[kind], **ids)


def draw(kind, vocab_size=50):
    """A random model as transformers makes it."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(kind, vocab_size), attn_implementation="eager").eval()


def make(kind):
    """A random model as it comes, and the same one made fast."""
    plain, fast = draw(kind), draw(kind)
    models.run_fast(fast)
    return plain, fast
