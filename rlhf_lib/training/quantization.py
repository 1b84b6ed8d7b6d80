"""Weights of few bits: how a model that is trained by adapters, and its reference, are loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

from transformers import BitsAndBytesConfig

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import hardware
from rlhf_lib.training.params import QuantizationParams


def quantization(section: str, params: QuantizationParams) -> dict[str, Any]:
    """Arguments of from_pretrained() for weights of 8 or 4 bits, NF4 [arXiv:2305.14314]; {} for plain ones.

    A `ParamsError` where bitsandbytes is missing, or there is no GPU.
    """
    if not params.is_quantized:
        return {}
    where = f"params.yaml: {section}.load_in_{8 if params.load_in_8bit else 4}bit"
    if hardware.device().type != "cuda":
        raise ParamsError(f"{where}: needs a CUDA GPU, and this is {hardware.device().type}; set it to false")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ParamsError(f"{where}: needs bitsandbytes; pip install bitsandbytes, or set it to false")
    four_bits = {
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": hardware.product_dtype(),
    }
    config = BitsAndBytesConfig(load_in_4bit=True, **four_bits) if params.load_in_4bit else None
    return {
        "quantization_config": config or BitsAndBytesConfig(load_in_8bit=True),
        "device_map": {"": hardware.device()},
    }
