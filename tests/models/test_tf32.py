"""Products in TF32, of which 10 bits count: what is held to a thousandth or less is multiplied in fp32 in any case."""

from collections.abc import Iterator

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlhf_lib.models import proof
from rlhf_lib.models.loading import run_fast
from rlhf_lib.models.seeds import seeded
from rlhf_lib.training import adapters

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}


def rounded(x):
    """fp32 numbers to 10 bits, as a GPU's tensor cores take them."""
    if not isinstance(x, torch.Tensor) or x.dtype != torch.float32 or x.dim() < 2:
        return x
    return (((x.contiguous().view(torch.int32) + (1 << 12)) >> 13) << 13).view(torch.float32)


class AsOnAGpu(TorchDispatchMode):
    """Multiplies as a GPU does where it may use TF32."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in PRODUCTS and torch.backends.cuda.matmul.fp32_precision == "tf32":
            args = tuple(map(rounded, args))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def in_tf32() -> Iterator[None]:
    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32"
    with AsOnAGpu():
        yield
    assert products.fp32_precision == "tf32"
    products.fp32_precision = before


@pytest.fixture
def model():
    """Deep enough for rounding to add up."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 12}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, max_position_embeddings=64)).eval()


@pytest.mark.usefixtures("in_tf32")
def test_a_model_still_decodes_from_its_cache_and_takes_rows_end_to_end(model):
    assert proof.prove_packing(model).reason is None
    run_fast(model)
    assert proof.takes_cache(model)


@pytest.mark.usefixtures("in_tf32")
def test_merged_adapters_are_still_the_trained_ones(model, tmp_path):
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = 0.05 * torch.randn(weight.shape, generator=seeded(name))
    expected = adapters.some_logits(adapted, model)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    assert adapters.merged_fault(merged, tmp_path, expected) is None
