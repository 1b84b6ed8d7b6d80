import json
from contextlib import nullcontext

import pytest
import torch
from architectures import MIXING, make
from model_table import TABLE
from transformers import AutoModelForCausalLM
from transformers.activations import NewGELUActivation

from rlhf_lib.models import attention, hardware
from rlhf_lib.models import packing as packed
from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.beginnings import NONE, Beginning
from rlhf_lib.models.logprobs import Response, collate, response_logits
from rlhf_lib.models.packing import Packing, packed_inputs

PACKED = [kind for kind, cells in TABLE.items() if cells.rows == "packed"]
# lengths of prompts and responses
SHAPES = {
    "one row": ([5], [7]),
    "all of one length": ([3, 5, 6], [6, 4, 3]),
    "different": ([1, 9, 4, 2], [12, 1, 5, 1]),
    "shorter than the window": ([1, 2], [2, 1]),
    # the second row's whole prompt is the first one's, and four tokens of the last one's
    "of one beginning": ([9, 9, 2, 6], [3, 5, 4, 1]),
}


@pytest.fixture(scope="module", params=list(TABLE))
def pair(request):
    return make(request.param)


@pytest.fixture(scope="module", params=PACKED)
def packed_pair(request):
    return make(request.param)


def texts(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prompts, responses = (
        [torch.randint(50, (size,), generator=generator).tolist() for size in sizes] for sizes in SHAPES[shape]
    )
    if shape == "of one beginning":
        prompts[0][0], prompts[2][0] = 1, 2
        prompts[1], prompts[3] = prompts[0], prompts[0][:4] + prompts[3][4:]
        prompts[0][4], prompts[3][4] = 1, 2
    return prompts, [Response(ids, True) for ids in responses]


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def logits_of(model, prompts, responses):
    return response_logits(model, collate(model, prompts, responses, pad_id=0))


@pytest.mark.parametrize("kind", TABLE)
def test_who_takes_rows_without_padding(kind):
    plain, fast = make(kind)
    assert not takes_packing(plain)
    assert takes_packing(fast) == (kind in PACKED)
    shape = collate(fast, *texts("different"), 0).inputs["input_ids"].shape
    assert shape == ((1, 64) if kind in PACKED else (4, 13))  # of 35 tokens, and 29 that fill up


def test_what_prompts_begin_with_in_common_is_read_once():
    _, fast = make(PACKED[0])
    with hardware.as_on_a_gpu():  # where no rows fill up
        batch = collate(fast, *texts("of one beginning"), 0)
        # of the second prompt the last token alone, whose next one is asked for; of the last one two tokens
        assert batch.inputs["input_ids"].shape == (1, 9 + 3 + 1 + 5 + 2 + 4 + 2 + 1)
        prompts, responses = texts("of one beginning")
        assert collate(fast, prompts[1:3], responses[1:3], 0).inputs["input_ids"].shape == (1, 9 + 5 + 2 + 4)


@pytest.fixture(params=["one block", "blocks", "fused"])
def products(request, monkeypatch):
    """What multiplies: as on a CPU, in one block or in blocks of four, or as on a GPU."""
    if request.param == "blocks":
        monkeypatch.setattr(packed, "ONE_BLOCK", 0)
        monkeypatch.setattr(packed, "BLOCK", 4)
    with hardware.as_on_a_gpu() if request.param == "fused" else nullcontext():
        yield


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_the_fast_model_has_the_logits_of_the_plain_padded_one(pair, shape):
    plain, fast = pair
    close(logits_of(fast, *texts(shape)), logits_of(plain, *texts(shape)))


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("shape", ["all of one length", "different", "of one beginning"])
def test_the_fast_model_has_the_gradients_of_the_plain_padded_one(pair, shape):
    weights = None
    for model in pair:
        model.zero_grad()
        logits = logits_of(model, *texts(shape))
        if weights is None:
            weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        (logits.log_softmax(-1) * weights).sum().backward()
    for (name, one), other in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        torch.testing.assert_close(
            other.grad,
            one.grad,
            atol=1e-5 * max(1.0, one.grad.abs().max()),
            rtol=1e-4,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("kind", MIXING)
@torch.no_grad()
def test_rows_of_a_model_with_layers_of_another_kind_stay_apart(kind):
    plain, fast = make(kind)
    close(logits_of(fast, *texts("different")), logits_of(plain, *texts("different")))


@pytest.mark.usefixtures("products")
@torch.no_grad()
def test_a_row_does_not_see_its_neighbours(packed_pair):
    _, fast = packed_pair
    prompts, responses = texts("different")
    together = logits_of(fast, prompts, responses).split([len(r.ids) for r in responses])
    alone = [logits_of(fast, [p], [r]) for p, r in zip(prompts, responses, strict=True)]
    others, other_responses = texts("different", seed=1)
    others[2], other_responses[2] = prompts[2], responses[2]
    close(logits_of(fast, others, other_responses).split([len(r.ids) for r in other_responses])[2], alone[2])
    for row, own in zip(together, alone, strict=True):
        close(row, own)


@torch.no_grad()
def test_a_model_made_fast_takes_padded_rows_as_before(packed_pair):
    plain, fast = packed_pair
    ids = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 0] + [1] * 6, [1] * 9])
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    close(fast(**inputs).logits[mask.bool()], plain(**inputs).logits[mask.bool()])


def test_the_sliding_window_and_the_soft_cap_of_these_models_matter():
    """Else the tests above would show nothing of them."""
    plain, _ = make("gemma2")
    with torch.no_grad():
        as_is = logits_of(plain, *texts("different"))
        for name, value in (("sliding_window", 64), ("attn_logit_softcapping", None)):
            changed = type(plain.config)(**{**plain.config.to_dict(), name: value})
            other = AutoModelForCausalLM.from_config(changed, attn_implementation="eager").eval()
            other.load_state_dict(plain.state_dict())
            assert (logits_of(other, *texts("different")) - as_is).abs().max() > 0.01


def test_packing_by_hand():
    packing = Packing([2, 1, 3], torch.device("cpu"))
    x = torch.arange(6.0).reshape(1, 1, 6, 1).requires_grad_()
    padded = packing.pad(x)
    # the longest row first; a padding position holds its row's first token
    assert padded.reshape(3, 3).tolist() == [[3, 4, 5], [0, 1, 0], [2, 2, 2]]
    assert packing.unpad(padded).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    # only real tokens pass a gradient on
    (packing.unpad(padded).flatten() * torch.arange(1.0, 7.0)).sum().backward()
    assert x.grad.flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_packing_of_rows_that_begin_alike_by_hand():
    """Rows of 2, 1 and 3 tokens, the last one of which begins with the whole first one."""
    packing = Packing([2, 1, 3], torch.device("cpu"), [NONE, NONE, Beginning(0, 2)])
    x = torch.arange(4.0).reshape(1, 1, 4, 1).requires_grad_()
    padded = packing.pad(x)
    assert padded.reshape(3, 3).tolist() == [[0, 1, 3], [0, 1, 0], [2, 2, 2]]
    assert packing.unpad(padded).flatten().tolist() == [0, 1, 2, 3]
    assert packing.places([[0, 1], [0], [1, 2]]).tolist() == [0, 1, 2, 1, 3]
    # each token's gradient is the sum over the rows that begin with it, without the padding
    (padded.reshape(3, 3) * torch.tensor([[1.0, 2, 4], [8, 16, 32], [64, 128, 256]])).sum().backward()
    assert x.grad.flatten().tolist() == [9, 18, 64, 4]
    x.grad = None
    # the place in its first row alone passes a gradient on
    (packing.unpad(packing.pad(x)).flatten() * torch.arange(1.0, 5.0)).sum().backward()
    assert x.grad.flatten().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("tokens", "longest", "filler"),
    [
        (64, 9, []),
        (20, 5, [5, 5, 2]),  # up to 32
        (1000, 100, [24]),  # up to 1024, in steps of 512 / 16
        (5000, 50, [50, 50, 20]),  # up to 5120, in steps of 4096 / 16
    ],
)
def test_rows_that_fill_up_bring_the_tokens_to_few_numbers_and_are_no_longer_than_the_others(tokens, longest, filler):
    lengths = [longest] * (tokens // longest) + ([tokens % longest] if tokens % longest else [])
    rows, cpu = [[7] * length for length in lengths], torch.device("cpu")
    inputs = packed_inputs(rows, [0] * len(rows), cpu)
    assert inputs["input_ids"].tolist() == [[7] * (tokens + sum(filler))]  # a token that the model has read
    assert inputs["position_ids"][0, tokens:].tolist() == [place for length in filler for place in range(length)]
    assert inputs["packing"].rows == len(lengths) + len(filler) and inputs["packing"].width == longest
    with hardware.as_on_a_gpu():
        assert packed_inputs(rows, [0] * len(rows), cpu)["packing"].rows == len(lengths)


def test_blocks_by_hand(monkeypatch):
    monkeypatch.setattr(packed, "ONE_BLOCK", 2)
    monkeypatch.setattr(packed, "BLOCK", 2)
    assert Packing([3, 5, 1, 2], torch.device("cpu")).blocks == [(0, 2, 4), (2, 4, 2), (4, 5, 1)]
    assert Packing([2, 1], torch.device("cpu")).blocks == [(0, 2, 2)]


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("trained", [{"query", "key", "value"}, {"value"}], ids=["all", "values alone"])
@pytest.mark.parametrize("beginnings", [None, [NONE, NONE, Beginning(0, 4)]], ids=["apart", "of one beginning"])
def test_the_gradients_of_attention_are_those_of_finite_differences(dropout, window, kv_heads, trained, beginnings):
    packing = Packing([9, 2, 6], torch.device("cpu"), beginnings)
    module = torch.nn.Module()
    given = [
        torch.randn(1, heads, len(packing.padded_index), 3, dtype=torch.float64, requires_grad=name in trained)
        for name, heads in (("query", 4), ("key", kv_heads), ("value", kv_heads))
    ]

    def attend(*inputs):
        torch.manual_seed(0)  # the same weights are dropped every time
        return attention.attention(module, *inputs, None, dropout=dropout, packing=packing, sliding_window=window)[0]

    torch.autograd.gradcheck(attend, given, fast_mode=True)


def test_attention_drops_weights_in_training_alone():
    packing, module = Packing([200, 150], torch.device("cpu")), torch.nn.Module()
    query, key = torch.zeros(2, 1, 1, 350, 1)
    # each query weighs all that it sees alike: of ones, the sum of the weights
    sums, again = (
        attention.attention(
            module.train(mode), query, key, torch.ones(1, 1, 350, 1), None, dropout=0.5, packing=packing
        )
        for mode in (True, False)
    )
    assert again[0].allclose(torch.ones(1))
    assert 0.95 < sums[0].mean() < 1.05 and sums[0].std() > 0.05


def test_the_causal_mask_by_hand():
    packing = Packing([4, 2], torch.device("cpu"))
    assert packing.causal_mask(torch.float32, None).eq(0).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]
    assert packing.causal_mask(torch.float32, 2).eq(0).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]


# ---- run_fast


def test_the_one_kernel_gelu_is_the_same_function():
    plain, fast = make("gpt2")
    assert any(isinstance(module, NewGELUActivation) for module in plain.modules())
    assert not any(isinstance(module, NewGELUActivation) for module in fast.modules())
    x = torch.linspace(-8, 8, 1001)
    close(fast.transformer.h[0].mlp.act(x), plain.transformer.h[0].mlp.act(x))


def test_run_fast_leaves_what_is_saved_as_it_was(pair, tmp_path):
    written = []
    for name, model in zip(("plain", "fast"), pair, strict=True):
        model.save_pretrained(tmp_path / name)
        written.append(json.loads((tmp_path / name / "config.json").read_text()))
    assert written[0] == written[1]
    assert (tmp_path / "plain/model.safetensors").read_bytes() == (tmp_path / "fast/model.safetensors").read_bytes()
