"""What PyTorch's fused attention is asked for on the paths of a GPU, where the wrong question costs all scores at once:
flash attention alone lets query heads share a key head, and it takes no mask, and 16 bits [sdp_utils.cpp of PyTorch].
"""

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rlhf_lib.models import hardware
from rlhf_lib.models.attention import attention
from rlhf_lib.models.packing import Packing

HEADS, SHARED, SIZE = 6, 2, 8


class Asked(TorchFunctionMode):
    """Keeps what fused attention was called with."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is functional.scaled_dot_product_attention:
            self.shapes = [tuple(x.shape) for x in args[:3]]
            self.mask, self.gqa = args[3], kwargs["enable_gqa"]
        return function(*args, **(kwargs or {}))


def tensors(rows, queries, keys, size=SIZE):
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, heads, n, size) for heads, n in ((HEADS, queries), (SHARED, keys), (SHARED, keys)))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def asked(*given, mask=None, **options):
    """What is asked for, after the outputs were found to be those of plain products."""
    module = torch.nn.Module()
    with hardware.as_on_a_gpu(), Asked() as found:
        outputs, _ = attention(module, *given, mask, **options)
    if not torch.is_autocast_enabled("cpu"):
        expected, _ = attention(module, *given, mask, **options)
        torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
    return found


def packed():
    return tensors(1, 12, 12), Packing([5, 7], torch.device("cpu"))


def test_in_16_bits_heads_share_keys_and_there_is_no_mask():
    given, packing = packed()
    with torch.autocast("cpu", torch.bfloat16):
        found = asked(*given, packing=packing)
    assert found.gqa and found.mask is None
    assert found.shapes == [(2, HEADS, 7, SIZE), (2, SHARED, 7, SIZE), (2, SHARED, 7, SIZE)]


def test_in_fp32_each_head_has_a_copy():
    given, packing = packed()
    found = asked(*given, packing=packing)
    assert not found.gqa and found.mask is None
    assert found.shapes == [(2, HEADS, 7, SIZE)] * 3


def test_heads_wider_than_flash_attention_takes_have_a_copy():
    with torch.autocast("cpu", torch.bfloat16):
        found = asked(*tensors(1, 12, 12, 264), packing=Packing([5, 7], torch.device("cpu")))
    assert not found.gqa and found.shapes == [(2, HEADS, 7, 264)] * 3


@pytest.mark.parametrize(("window", "masks"), [(6, True), (7, False), (None, False)])
def test_a_sliding_window_that_no_row_leaves_needs_no_mask(window, masks):
    given, packing = packed()
    assert (asked(*given, packing=packing, sliding_window=window).mask is not None) == masks


def test_a_decoded_token_copies_no_keys():
    mask = torch.zeros(3, 1, 1, 20)
    mask[1, ..., :4] = torch.finfo(mask.dtype).min
    found = asked(*tensors(3, 1, 20), mask=mask)
    assert not found.gqa
    assert found.shapes == [(3, SHARED, HEADS // SHARED, SIZE), (3, SHARED, 20, SIZE), (3, SHARED, 20, SIZE)]


def test_with_a_mask_for_each_head_it_does():
    found = asked(*tensors(3, 1, 20), mask=torch.randn(3, HEADS, 1, 20))
    assert found.shapes[1] == (3, HEADS, 20, SIZE)


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_before_ampere_have_no_flash_attention(capability, there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware.has_flash_attention(torch.device("cuda", 0)) == there
