"""What docs/models.md says of each architecture, and the tests hold it to."""

from typing import NamedTuple


class Cells(NamedTuple):
    """A row of the table: how rows lie in a forward pass, and what works."""

    rows: str  # packed or padded
    sampling: str = "yes"  # or slow: without a cache
    sft: str = "yes"
    reward_model: str = "yes"
    dpo: str = "yes"
    ppo: str = "yes"
    export: str = "yes"


PACKED, PADDED = Cells("packed"), Cells("padded")
# by the model_type in a model's config.json
TABLE = {
    "gpt2": PACKED,
    "gpt_neo": PADDED,
    "gpt_neox": PACKED,
    "opt": PACKED,
    "llama": PACKED,
    "qwen2": PACKED,
    "qwen3": PACKED,
    "mistral": PACKED,
    "gemma2": PACKED,
    "gemma3_text": PACKED,
    "phi3": PACKED,
    "olmo2": PACKED,
    "granite": PACKED,
    "stablelm": PADDED,
    "falcon": PADDED,
    "bloom": PADDED,
    "nemotron": PADDED,
    "deepseek_v3": PACKED,
    "lfm2": PADDED,
    "mamba": PADDED,
    "recurrent_gemma": PADDED._replace(sampling="slow"),
    "openai-gpt": PADDED._replace(sampling="slow"),
    "phi": PACKED,
    "smollm3": PACKED,
    "qwen3_moe": PACKED,
    "qwen3_5_text": PADDED,
    "gemma3n_text": PACKED,
    "gemma4_text": PACKED,
    "olmo3": PACKED,
    "exaone4": PACKED,
    "ministral3": PACKED,
    "gpt_oss": PADDED,
    "granitemoehybrid": PADDED,
    "falcon_h1": PADDED,
}
