import math

import pytest
import torch
from torch import tensor
from transformers import AutoModelForCausalLM

from rlhf_lib.models import logprobs, processes
from rlhf_lib.models.logprobs import (
    Batch,
    Distribution,
    Response,
    _LogProbs,
    by_length,
    collate,
    response_logits,
    response_logprobs,
    sequence_logprobs,
)
from rlhf_lib.models.support import Support

PIECES = pytest.mark.parametrize("piece", [1, 11, 30, 1 << 18])  # logits; of vocabularies of 11: rows 1, 1, 2, all


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def padded_policy(tiny):
    """The policy as transformers loads it: it takes padded rows only."""
    return AutoModelForCausalLM.from_pretrained(tiny.policy, attn_implementation="eager").eval()


@pytest.fixture(scope="module", params=["packed", "padded"])
def either(request, policy, padded_policy):
    return policy if request.param == "packed" else padded_policy


@pytest.fixture(scope="module")
def pad(tokenizer):
    return tokenizer.pad_token_id


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Prompts and responses of different lengths, some with the pad and the EOS id as ordinary tokens."""
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    prompts = [[20], [pad, 21, 22], [30, eos, 31, pad, 33, 34, 35, 36, 37], [eos] * 5, list(range(40, 60))]
    responses = [[50, 51, 52, eos], [pad], [60, pad, pad, 61, 62, 63], [eos], [70, 71, pad]]
    return prompts, [Response(ids, True) for ids in responses]


def flat(ids, support=None, positions=None):
    """A batch of tokens without their texts, for logits made by hand."""
    positions = torch.arange(len(ids)) if positions is None else tensor(positions)
    return Batch({}, torch.empty(0), tensor(ids), positions, None if support is None else tensor(support))


# ---- Batches


@pytest.mark.parametrize(("progress", "rank", "bars"), [("Reading", "0", 1), (None, "0", 0), ("Reading", "1", 0)])
def test_the_main_process_shows_how_far_the_batches_are(progress, rank, bars, monkeypatch, capsys):
    monkeypatch.setattr(processes, "SOON", 0)
    monkeypatch.setenv("RANK", rank)
    assert list(processes.with_bar([[1, 2], [0]], progress)) == [[1, 2], [0]]
    assert capsys.readouterr().err.count("Reading: 100%") == bars


def test_a_packed_batch_lays_rows_end_to_end(policy):
    batch = collate(policy, [[1, 2, 3], [4]], [Response([5], True), Response([6, 7], True)], pad_id=0)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 5, 4, 6, 7, *[1] * 25]]  # filled up to 32
    assert batch.inputs["position_ids"][:, :7].tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.places.tolist() == [2, 4, 5]
    assert batch.token_ids.tolist() == [5, 6, 7]
    assert batch.positions.tolist() == [0, 0, 1]


def test_a_padded_batch_pads_on_the_right(padded_policy):
    batch = collate(padded_policy, [[1, 2, 3], [4]], [Response([5], True), Response([6, 7], True)], pad_id=0)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 5], [4, 6, 7, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert "position_ids" not in batch.inputs  # by default they count from the left, in every architecture
    assert batch.places.tolist() == [2, 4, 5]
    assert batch.token_ids.tolist() == [5, 6, 7]
    assert batch.positions.tolist() == [0, 0, 1]


def test_supports_are_stacked_row_after_row(policy):
    supports = Support(tensor([5, 7, 8, 6]), tensor([3, 1])), Support(tensor([9]), tensor([1]))
    responses = [Response(ids, True, support) for ids, support in zip(([5, 6], [9]), supports, strict=True)]
    batch = collate(policy, [[1], [2]], responses, pad_id=0)
    assert batch.support.tolist() == [[5, 7, 8], [6, -1, -1], [9, -1, -1]]


@torch.no_grad()
def test_packed_and_padded_batches_agree(policy, padded_policy, rows, pad):
    one, other = (response_logits(model, collate(model, *rows, pad)) for model in (policy, padded_policy))
    close(one, other)


@torch.no_grad()
def test_neighbours_change_no_logprob(either, rows, pad):
    prompts, responses = rows
    together = response_logprobs(either, collate(either, prompts, responses, pad))
    for i, row in enumerate(together.split([len(response.ids) for response in responses])):
        close(row, response_logprobs(either, collate(either, [prompts[i]], [responses[i]], pad)))


@torch.no_grad()
def test_no_logprob_depends_on_the_pad_id(either, rows, pad):
    close(*(response_logprobs(either, collate(either, *rows, i)) for i in (pad, 99)))


@torch.no_grad()
def test_logprobs_are_those_of_the_tokens_after_their_contexts_whatever_their_ids(either, rows, pad):
    got = iter(response_logprobs(either, collate(either, *rows, pad), Distribution(1.3)))
    for prompt, response in zip(*rows, strict=True):
        for k, token in enumerate(response.ids):
            logits = either(tensor([prompt + response.ids[:k]])).logits[0, -1]
            assert next(got).item() == pytest.approx((logits / 1.3).log_softmax(0)[token].item(), abs=1e-5)


@torch.no_grad()
def test_no_logits_are_computed_for_the_prompt(either, rows, pad):
    assert response_logits(either, collate(either, *rows, pad)).shape == (15, either.config.vocab_size)


def test_sequence_logprobs_keep_the_order_of_the_rows(either, rows, pad):
    prompts, responses = rows
    got = sequence_logprobs(either, prompts, responses, pad, Distribution(0.7), batch_size=2)
    for i, response in enumerate(responses):
        with torch.no_grad():
            alone = response_logprobs(either, collate(either, [prompts[i]], [response], pad), Distribution(0.7))
        assert got[i] == pytest.approx(alone.sum().item(), abs=1e-4)


def test_sequence_logprobs_compute_equal_rows_once(either, rows, pad, monkeypatch):
    prompts, responses = rows
    measured = []
    compute = logprobs.response_logprobs
    monkeypatch.setattr(logprobs, "response_logprobs", lambda *args: measured.append(compute(*args)) or measured[-1])
    once = sequence_logprobs(either, prompts, responses, pad, batch_size=2)
    tokens = sum(map(len, measured))
    measured.clear()
    assert sequence_logprobs(either, prompts * 2, responses * 2, pad, batch_size=2) == once * 2
    assert sum(map(len, measured)) == tokens


def test_batches_by_length_hold_rows_of_like_length():
    assert list(by_length([5, 1, 4, 1, 3], 2)) == [[1, 3], [4, 2], [0]]


def test_batches_by_length_keep_the_rows_of_a_prompt_together():
    # the longest of a is 5, of b 3, of c 4
    assert list(by_length([5, 1, 4, 1, 3], 2, "abcab")) == [[1, 4], [2, 3], [0]]
    assert list(by_length([2, 2, 2, 2], 3, "abab")) == [[0, 2, 1], [3]]


# ---- The distribution


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_logprobs_and_entropies_are_those_of_the_softmax_at_the_temperature(temperature):
    torch.manual_seed(0)
    logits, ids = 5 * torch.randn(12, 11), torch.randint(11, (12,))
    logprobs, entropies = Distribution(temperature)(logits, flat(ids.tolist()))
    expected = torch.distributions.Categorical(logits=logits / temperature)
    close(logprobs, expected.log_prob(ids))
    close(entropies, expected.entropy())


def test_entropies_by_hand():
    logits = tensor([[0.0, math.log(3.0)], [1.0, 1.0], [0.0, -200.0]])
    # -(ln 0.25) / 4 - 3 (ln 0.75) / 4; ln 2; 0
    close(Distribution()(logits, flat([0, 0, 0]))[1], [0.562335, 0.693147, 0.0])


# Probabilities 1/2, 1/4, 1/4 at temperature 1; at temperature 1/2 they are as 4 : 1 : 1.
LOGITS = tensor([[math.log(2.0), 0.0, 0.0]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_an_early_eos_has_no_probability_and_the_rest_is_renormalised(temperature):
    logits, batch = LOGITS.repeat(4, 1), flat([1, 0, 1, 2], positions=[0, 1, 2, 2])
    logprobs, entropies = Distribution(temperature, min_new_tokens=2, stop_ids=(2,))(logits, batch)
    weight = 2 ** (1 / temperature)  # of token 0 against each of the others
    early, late = weight + 1, weight + 2
    close(logprobs.exp(), [1 / early, weight / early, 1 / late, 1 / late])
    of_early = -(weight / early) * math.log(weight / early) - math.log(1 / early) / early
    close(entropies[:2], [of_early, of_early])


def test_the_eos_of_a_response_long_enough_has_its_probability():
    logprobs, _ = Distribution(min_new_tokens=2, stop_ids=(0,))(LOGITS.repeat(3, 1), flat([1, 1, 0]))
    close(logprobs.exp(), [0.5, 0.5, 0.5])  # 1/4 of 1/2; the same; 1/2 of 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_probabilities_are_renormalised_over_the_support(temperature):
    batch = flat([1, 0, 2], support=[[0, 1, -1], [0, -1, -1], [2, 1, 0]])
    logprobs, entropies = Distribution(temperature)(LOGITS.repeat(3, 1), batch)
    weight = 2 ** (1 / temperature)
    close(logprobs.exp(), [1 / (weight + 1), 1.0, 1 / (weight + 2)])
    p = weight / (weight + 1)
    close(entropies[:2], [-p * math.log(p) - (1 - p) * math.log(1 - p), 0.0])


def test_tokens_out_of_the_support_get_no_gradient():
    logits = LOGITS.repeat(2, 1).requires_grad_()
    logprobs, _ = Distribution()(logits, flat([1, 2], support=[[0, 1], [2, -1]]))
    logprobs.sum().backward()
    close(logits.grad, [[-2 / 3, 2 / 3, 0.0], [0.0, 0.0, 0.0]])  # [j = t] - p_j over the support


# ---- Gradients


def reference(logits, ids, temperature):
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs.gather(1, ids.unsqueeze(1)).squeeze(1), -(logprobs.exp() * logprobs).sum(-1)


@PIECES
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("terms", ["log-probs", "entropies", "both"])
def test_gradients_are_those_of_autograd(piece, temperature, terms, monkeypatch):
    monkeypatch.setattr(_LogProbs, "_PIECE", piece)
    torch.manual_seed(0)
    ids = torch.randint(11, (7,))
    logits = (3 * torch.randn(7, 11)).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    weights = torch.randn(2, 7) * tensor([[terms != "entropies"], [terms != "log-probs"]])
    got = Distribution(temperature)(logits, flat(ids.tolist()))
    expected = reference(exact, ids, temperature)
    for pair, weighted in ((got, weights), (expected, weights.double())):
        (pair[0] @ weighted[0] + pair[1] @ weighted[1]).backward()
    close(got[0].detach().double(), expected[0].detach())
    close(got[1].detach().double(), expected[1].detach())
    close(logits.grad.double(), exact.grad)


def test_gradients_stay_finite_where_a_probability_is_0():
    logits = tensor([[0.0, -500.0, 1.0], [1e4, 0.0, -1e4]], requires_grad=True)
    logprobs, entropies = Distribution()(logits, flat([0, 0]))
    (logprobs.sum() + entropies.sum()).backward()
    assert logprobs.isfinite().all() and entropies.isfinite().all() and logits.grad.isfinite().all()
    close(logits.grad[1], [0.0, 0.0, 0.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_gradients_of_entropies_are_finite_where_a_token_is_ruled_out(temperature):
    logits = LOGITS.repeat(2, 1).requires_grad_()
    logprobs, entropies = Distribution(temperature, 1, (2,))(logits, flat([0, 1], positions=[0, 0]))
    (logprobs + entropies).sum().backward()
    pair = (LOGITS[:, :2].repeat(2, 1) / temperature).requires_grad_()
    expected = torch.distributions.Categorical(logits=pair)
    (expected.log_prob(tensor([0, 1])) + expected.entropy()).sum().backward()
    close(logits.grad[:, :2], pair.grad / temperature)
    assert logits.grad[:, 2].eq(0).all()


@PIECES
def test_bf16_logits_are_worked_on_in_fp32(piece, monkeypatch):
    monkeypatch.setattr(_LogProbs, "_PIECE", piece)
    torch.manual_seed(0)
    ids = torch.randint(11, (7,))
    logits = (3 * torch.randn(7, 11)).bfloat16().requires_grad_()
    exact = logits.detach().double().requires_grad_()
    logprobs, entropies = Distribution(0.7)(logits, flat(ids.tolist()))
    assert logprobs.dtype == entropies.dtype == torch.float32
    expected = reference(exact, ids, 0.7)
    close(logprobs.detach().double(), expected[0].detach())
    close(entropies.detach().double(), expected[1].detach())
    (logprobs - entropies).sum().backward()
    (expected[0] - expected[1]).sum().backward()
    assert logits.grad.dtype == torch.bfloat16
    close(logits.grad.double(), exact.grad, 2e-2)  # bf16 has eight bits


@pytest.mark.parametrize("requires_grad", [False, True])
def test_nothing_is_kept_for_a_backward_pass_that_cannot_come(requires_grad):
    logits = torch.randn(4, 11, requires_grad=requires_grad)
    logprobs, entropies = Distribution()(logits, flat([0, 1, 2, 3]))
    assert logprobs.requires_grad is entropies.requires_grad is requires_grad
    with torch.no_grad():
        assert not Distribution()(logits, flat([0, 1, 2, 3]))[0].requires_grad


@pytest.mark.parametrize("min_new_tokens", [0, 1])
def test_the_logits_are_left_as_they_were(min_new_tokens):
    logits = torch.randn(4, 11)
    before = logits.clone()
    Distribution(0.5, min_new_tokens, (3,))(logits, flat([0, 1, 2, 3], support=[[0, 1], [1, 0], [2, 3], [3, -1]]))
    assert logits.equal(before)
