"""Flash attention, which takes 16 bits alone: what is computed in fp32 is given PyTorch's attention instead."""

import pytest
import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import frozen, hardware
from rlhf_lib.models.loading import load_policy
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.sft.trainer import token_loss
from rlhf_lib.training.adapters import some_logits

FLASH = "flash_attention_2"
ROWS = [{"prompt": [{"role": "user", "content": "Name the cat"}], "completion": [{"content": "a cat"}]}]
FAULT = "FlashAttention only support fp16 and bf16 data type"


def of_16_bits(module, query, key, value, attention_mask, **options):
    """In place of the package, which needs a GPU."""
    if not torch.is_autocast_enabled("cpu"):
        raise RuntimeError(FAULT)
    return sdpa_attention_forward(module, query, key, value, None, **options)


@pytest.fixture
def flash(monkeypatch):
    """Lets models be loaded with that attention from then on, as on a machine that has the package."""
    monkeypatch.setitem(AttentionInterface._global_mapping, FLASH, of_16_bits)
    known = PreTrainedModel._check_and_adjust_attn_implementation

    def check(self, name, **options):
        return name if name == FLASH else known(self, name, **options)

    monkeypatch.setattr(PreTrainedModel, "_check_and_adjust_attn_implementation", check)
    return lambda: monkeypatch.setattr(hardware, "attn_implementation", lambda: FLASH)


def test_the_stand_in_refuses_fp32(flash, tiny):
    flash()
    model = load_policy(tiny.policy)
    with pytest.raises(RuntimeError, match=FAULT):
        model(torch.tensor([[20, 21, 22]]))


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, tokenizer: torch.tensor(token_loss(model, tokenizer, ROWS, 64, 8)),
        lambda model, tokenizer: some_logits(model, model),
    ],
    ids=["token loss", "merged"],
)
def test_a_policy_is_measured_in_fp32(flash, tiny, tokenizer, measure):
    expected = measure(load_policy(tiny.policy), tokenizer)
    flash()
    model = load_policy(tiny.policy)
    torch.testing.assert_close(measure(model, tokenizer), expected, atol=1e-5, rtol=1e-5)
    assert model.config._attn_implementation == FLASH  # again, for what comes next


def test_rewards_are_in_fp32(flash, tiny):
    asked = [ROWS[0]["prompt"]] * 2, ["a cat", "a dog on a mat"]
    expected = RewardModel.load(tiny.reward).scores(*asked)
    flash()
    model = RewardModel.load(tiny.reward)
    assert model.model.config._attn_implementation == FLASH
    assert model.scores(*asked) == pytest.approx(expected, abs=1e-5)


def test_a_model_held_in_bf16_keeps_it(flash, tiny):
    flash()
    model = load_policy(tiny.policy, torch.bfloat16)
    with frozen.autocast(model):
        assert model.config._attn_implementation == FLASH
        model(torch.tensor([[20, 21, 22]]))


def test_it_is_refused_for_a_training_in_fp32(compute, monkeypatch):
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cuda", 0))
    with pytest.raises(ParamsError) as error:
        compute(attn_implementation=FLASH, precision="fp32")
    assert str(error.value) == (
        "params.yaml: compute.attn_implementation: flash_attention_2 has no fp32, in which products are here; set it "
        "to auto, or compute.precision to bf16 or fp16"
    )
