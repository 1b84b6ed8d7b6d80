import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lib.generation import Response, encode_prompts, generate, text, until_eos
from rlhf_lib.logprobs import collate, response_logits, response_logprobs, sequence_logprobs, token_logprobs
from rlhf_lib.params.ppo import PPOParams
from rlhf_lib.params.schema import ParamsError
from rlhf_lib.ppo.rollout import Rollout, minibatches, update_inputs

CPU = torch.device("cpu")
PARAMS = {
    "seed": 0,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.0,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "max_grad_norm": 1.0,
    "per_device_train_batch_size": 2,
    "total_rollouts": 2,
    "rollout_batch_size": 8,
    "num_ppo_epochs": 2,
    "num_minibatches": 2,
    "response_length": 8,
    "temperature": 1.0,
    "critic": "shared",
    "vf_coef": 0.1,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "gamma": 0.9,
    "lam": 0.5,
    "whiten_advantages": False,
    "kl_estimator": "k1",
    "kl_coef": 0.1,
    "kl_target": None,
    "kl_horizon": 1000.0,
    "missing_eos_penalty": None,
    "eval_rollouts": 1,
    "save_rollouts": 1,
}


def ppo_params(**changes):
    return PPOParams(**{**PARAMS, **changes})


@pytest.fixture(scope="module")
def pad(tokenizer):
    return tokenizer.pad_token_id


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Prompts and responses of different lengths, some with the pad and the EOS id as ordinary tokens."""
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    prompts = [[20], [pad, 21, 22], [30, eos, 31, pad, 33, 34, 35, 36, 37], [eos] * 5, list(range(40, 60))]
    responses = [[50, 51, 52, eos], [pad], [60, pad, pad, 61, 62, 63], [eos], [70, 71, pad]]
    return prompts, responses


# ---- Batches


def test_collate_pads_prompts_on_the_left_and_responses_on_the_right():
    batch = collate([[1, 2, 3], [4]], [[5], [6, 7]], pad_id=0, device=CPU)
    assert batch.input_ids.tolist() == [[1, 2, 3, 5, 0], [0, 0, 4, 6, 7]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert batch.response_mask.tolist() == [[True, False], [True, True]]
    assert batch.response_ids.tolist() == [[5, 0], [6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3], [0, 0, 0, 1, 2]]


def test_masks_come_from_lengths_and_not_from_ids(rows, pad):
    batch = collate(*rows, pad, CPU)
    assert batch.response_mask.sum(dim=1).tolist() == [len(r) for r in rows[1]]
    assert batch.attention_mask.sum(dim=1).tolist() == [len(p) + len(r) for p, r in zip(*rows, strict=True)]


def test_padding_changes_no_logprob(policy, rows, pad):
    prompts, responses = rows
    with torch.no_grad():
        together = response_logprobs(policy, collate(prompts, responses, pad, CPU), 0.7)
        for i, response in enumerate(responses):
            alone = response_logprobs(policy, collate([prompts[i]], [response], pad, CPU), 0.7)[0]
            torch.testing.assert_close(together[i, : len(response)], alone, atol=1e-5, rtol=0)
            assert together[i, len(response) :].eq(0).all()


def test_no_logprob_depends_on_the_pad_id(policy, rows, pad):
    with torch.no_grad():
        one, other = (response_logprobs(policy, collate(*rows, i, CPU)) for i in (pad, 99))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_logprobs_are_those_of_the_tokens_after_their_contexts(policy, rows, pad):
    prompt, response = rows[0][2], rows[1][2]
    with torch.no_grad():
        got = response_logprobs(policy, collate([prompt], [response], pad, CPU), 1.3)[0]
        for k, token in enumerate(response):
            logits = policy(torch.tensor([prompt + response[:k]])).logits[0, -1]
            assert got[k].item() == pytest.approx((logits / 1.3).log_softmax(0)[token].item(), abs=1e-5)


def test_no_logits_are_computed_for_the_prompt(policy, rows, pad):
    with torch.no_grad():
        assert response_logits(policy, collate(*rows, pad, CPU)).shape == (5, 6, policy.config.vocab_size)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_token_logprobs_are_log_softmax_at_the_temperature(temperature):
    torch.manual_seed(0)
    logits, ids = 5 * torch.randn(3, 4, 11), torch.randint(11, (3, 4))
    expected = torch.log_softmax(logits / temperature, dim=-1).gather(-1, ids[..., None])[..., 0]
    torch.testing.assert_close(token_logprobs(logits, ids, temperature), expected)


def test_sequence_logprobs_keep_the_order_of_the_rows(policy, rows, pad):
    prompts, responses = rows
    got = sequence_logprobs(policy, prompts, responses, pad, 0.7, batch_size=2)
    for i, response in enumerate(responses):
        with torch.no_grad():
            alone = response_logprobs(policy, collate([prompts[i]], [response], pad, CPU), 0.7).sum().item()
        assert got[i] == pytest.approx(alone, abs=1e-4)


# ---- Sampling


def test_a_response_ends_with_its_first_eos():
    assert until_eos([5, 6, 2, 0, 2], eos_id=2) == Response([5, 6, 2], True)
    assert until_eos([2, 0, 0], eos_id=2) == Response([2], True)


def test_a_sampled_pad_token_is_kept():
    assert until_eos([5, 0, 6, 0], eos_id=2) == Response([5, 0, 6, 0], False)
    assert until_eos([0, 5, 2, 0], eos_id=2) == Response([0, 5, 2], True)


def test_padding_that_is_the_eos_is_cut_after_the_first():
    assert until_eos([5, 2, 2, 2], eos_id=2) == Response([5, 2], True)


def test_greedy_responses_do_not_depend_on_the_batch(policy, tokenizer, rows):
    prompts = rows[0]
    together = generate(policy, tokenizer, prompts, 6, 0.0, batch_size=len(prompts))
    assert together == [generate(policy, tokenizer, [prompt], 6, 0.0, batch_size=1)[0] for prompt in prompts]
    assert len({tuple(response.ids) for response in together}) > 1


@pytest.mark.parametrize(("temperature", "another"), [(0.1, 1.0), (1.0, 0.1)])
def test_sampling_follows_the_policy_at_the_temperature(policy, tokenizer, temperature, another):
    torch.manual_seed(0)
    prompt, draws = [30, 31, 32], 4000
    firsts = [r.ids[0] for r in generate(policy, tokenizer, [prompt] * draws, 1, temperature, batch_size=draws)]
    with torch.no_grad():
        logits = policy(torch.tensor([prompt])).logits[0, -1]
    observed = torch.bincount(torch.tensor(firsts), minlength=len(logits)) / draws
    # over 295 tokens the distance (total variation) is on average at most sqrt(295 / 4000) / 2 = 0.14
    assert (observed - (logits / temperature).softmax(0)).abs().sum() / 2 < 0.2
    assert (observed - (logits / another).softmax(0)).abs().sum() / 2 > 0.4


def test_sampling_leaves_the_models_mode_alone(policy, tokenizer):
    generate(policy.train(), tokenizer, [[30]], 1, 1.0, batch_size=1)
    assert policy.training
    generate(policy.eval(), tokenizer, [[30]], 1, 1.0, batch_size=1)
    assert not policy.training


def test_a_response_as_text_has_no_special_tokens(tokenizer):
    ids = tokenizer("the cat")["input_ids"]
    assert text(tokenizer, Response([*ids, tokenizer.eos_token_id], True)) == "the cat"


def test_a_long_prompt_loses_its_beginning(tokenizer):
    prompt = [{"role": "user", "content": "the cat " * 100}]
    (whole,) = encode_prompts(tokenizer, [prompt], 8, None, "ppo.response_length")
    (cut,) = encode_prompts(tokenizer, [prompt], 8, 64, "ppo.response_length")
    assert len(cut) == 56 and cut == whole[-56:]


@pytest.mark.parametrize("length", [57, 64, 500])
def test_responses_must_leave_room_for_a_prompt(tokenizer, length):
    with pytest.raises(ParamsError, match=r"^params.yaml: ppo\.response_length: .* set it to at most 56$"):
        encode_prompts(tokenizer, [[{"role": "user", "content": "cat"}]], length, 64, "ppo.response_length")


# ---- Rollouts


def small_rollout():
    responses = [Response([5, 0, 2], True), Response([6], False)]
    return Rollout.empty([[1, 2], [3]], responses, [1.0, -2.0])


def test_the_mask_of_a_rollout_is_that_of_its_responses():
    rollout = small_rollout()
    assert rollout.mask.tolist() == [[True, True, True], [True, False, False]]
    assert rollout.scores.tolist() == [1.0, -2.0]


def test_scores_may_be_whole_numbers():
    rollout = Rollout.empty([[1], [2]], [Response([5], False)] * 2, [1, 0])
    assert rollout.metrics()["reward"] == 0.5


def test_record_writes_rows_of_a_narrower_batch():
    rollout = small_rollout()
    rollout.record("values", [1], torch.tensor([[4.0]]))
    rollout.record("values", [0], torch.tensor([[1.0, 2.0, 3.0]]))
    assert rollout.values.tolist() == [[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]
    assert rollout.returns.eq(0).all()


def filled_rollout():
    rollout = small_rollout()
    rollout.record("logprobs", [0, 1], torch.tensor([[-1.0, -2.0, -3.0], [-1.0, 0.0, 0.0]]))
    rollout.record("ref_logprobs", [0, 1], torch.tensor([[-2.0, -2.0, -5.0], [-0.5, 0.0, 0.0]]))
    rollout.record("values", [0, 1], torch.tensor([[0.5, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    rollout.record("entropy", [0, 1], torch.tensor([[1.0, 2.0, 3.0], [2.0, 0.0, 0.0]]))
    return rollout


def test_kl_of_a_response_is_the_sum_over_its_tokens():
    assert filled_rollout().kl.tolist() == [3.0, -0.5]  # 1 + 0 + 2; -0.5


def test_advantages_of_a_rollout_by_hand():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(missing_eos_penalty=0.5), kl_coef=0.1)
    # rewards -0.1, 0, 1 - 0.2 and -2 - 0.5 + 0.05
    # A: 0.8 - 1 = -0.2; 0 + 0.9 - 0 + 0.45 * -0.2 = 0.81; -0.1 + 0 - 0.5 + 0.45 * 0.81 = -0.2355; -2.45 - 1
    expected = torch.tensor([[-0.2355, 0.81, -0.2], [-3.45, 0.0, 0.0]])
    torch.testing.assert_close(rollout.advantages, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(rollout.returns, (expected + rollout.values) * rollout.mask, atol=1e-6, rtol=0)
    assert rollout.scores.tolist() == [1.0, -2.0]


def test_whitening_leaves_the_returns_alone():
    plain, white = filled_rollout(), filled_rollout()
    plain.estimate_advantages(ppo_params(), 0.1)
    white.estimate_advantages(ppo_params(whiten_advantages=True), 0.1)
    assert white.returns.equal(plain.returns)
    kept = white.advantages[white.mask]
    assert kept.mean().item() == pytest.approx(0, abs=1e-6)
    assert kept.var(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert white.advantages[~white.mask].eq(0).all()


def test_metrics_of_a_rollout_by_hand():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(), 0.0)
    metrics = rollout.metrics()
    assert metrics["reward"] == -0.5
    assert metrics["kl"] == 1.25  # (3 - 0.5) / 2
    assert metrics["length"] == 2.0
    assert metrics["eos_rate"] == 0.5
    assert metrics["entropy"] == 2.0  # 8 / 4 tokens


# ---- Minibatches

LENGTHS = [9, 3, 7, 3, 5, 8, 1, 6]


@given(permutation=st.permutations(range(8)), micro=st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_minibatches_are_a_partition_that_the_micro_batch_size_does_not_change(permutation, micro):
    split = minibatches(permutation, LENGTHS, ppo_params(per_device_train_batch_size=micro))
    steps = [[i for rows in minibatch for i in rows] for minibatch in split]
    assert [set(step) for step in steps] == [set(permutation[:4]), set(permutation[4:])]
    assert sorted(steps[0] + steps[1]) == list(range(8))
    assert all(len(rows) == micro for minibatch in split for rows in minibatch)
    whole = minibatches(permutation, LENGTHS, ppo_params(per_device_train_batch_size=4))
    assert steps == [minibatch[0] for minibatch in whole]
    assert all([LENGTHS[i] for i in step] == sorted(LENGTHS[i] for i in step) for step in steps)


def test_update_inputs_are_the_rows_without_their_outer_padding():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(), 0.1)
    one, other = update_inputs(rollout, [[1], [0]], pad_id=0, device=CPU)
    assert one["num_tokens"] == other["num_tokens"] == 4
    assert one["batch"].input_ids.tolist() == [[3, 6]] and other["batch"].input_ids.tolist() == [[1, 2, 5, 0, 2]]
    for name in ("logprobs", "values", "advantages", "returns"):
        assert one[name].equal(getattr(rollout, name)[1:, :1])
        assert other[name].equal(getattr(rollout, name)[:1])
