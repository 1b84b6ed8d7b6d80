import pytest
import torch
from conftest import TEXTS
from transformers import AutoModelForSequenceClassification

from rlhf_lib import generation, logprobs, models
from rlhf_lib.chat import dialogue_ids, prompt_ids
from rlhf_lib.generation import Response, until_eos
from rlhf_lib.params.schema import ParamsError
from rlhf_lib.rewards import RewardModel

ANSWERS = ["Cat.", "The sky is in one word, the dog.", "", "dog dog dog", "<|end|><|pad|>", "Paint", "é", "cat", "A."]


def user(text):
    return [{"role": "user", "content": text}]


PROMPTS = [user(text) for text in TEXTS]
PROMPTS[3] = [{"role": "system", "content": "Name the sky."}, *user("the")]  # prompts of different lengths


@pytest.fixture(scope="module")
def reward(tiny):
    return RewardModel.load(tiny.reward)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return [prompt_ids(tokenizer, prompt) for prompt in PROMPTS]


# ---- saving and loading


@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_two_saves_are_the_same_file_by_file(tiny, tmp_path, kind):
    load = models.load_policy if kind == "policy" else models.load_reward
    for name in ("a", "another/name"):
        source = getattr(tiny, kind)
        models.save(load(source), models.load_tokenizer(source), tmp_path / name)
    first = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    second = {file.name: file.read_bytes() for file in (tmp_path / "another/name").iterdir()}
    assert first == second and "training_args.bin" not in first
    assert not any(str(tmp_path).encode() in content or str(source).encode() in content for content in first.values())


def test_a_saved_model_says_the_same(policy, tokenizer, encoded, tmp_path):
    models.save(policy, tokenizer, tmp_path)
    again, ids = models.load_policy(tmp_path), torch.tensor(encoded[:1])
    with torch.no_grad():
        assert again(ids).logits.equal(policy(ids).logits)
    assert prompt_ids(models.load_tokenizer(tmp_path), PROMPTS[0]) == encoded[0]


def test_loaded_models_are_ready_to_measure(policy, reward):
    assert not policy.training and not reward.model.training
    assert policy.dtype == reward.model.dtype == torch.float32


def test_a_length_beyond_the_context_is_told(policy):
    models.check_length("sft.max_length", 64, policy)
    with pytest.raises(ParamsError, match=r"sft\.max_length: 65 .* at most 64") as error:
        models.check_length("sft.max_length", 65, policy)
    assert "\n" not in str(error.value)


# ---- log-probs


def sum_by_hand(model, prompt, response, temperature=1.0):
    """The response's log-prob from one forward pass without padding, token by token."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0].double() / temperature
    steps = enumerate(response, start=len(prompt))
    return sum(logits[i - 1, token].item() - logits[i - 1].logsumexp(0).item() for i, token in steps)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sequence_logprobs_are_those_of_single_rows_in_order(policy, tokenizer, encoded, batch_size, temperature):
    responses = [
        dialogue_ids(tokenizer, prompt, answer)[len(ids) :]
        for prompt, answer, ids in zip(PROMPTS, ANSWERS, encoded, strict=True)
    ]
    got = logprobs.sequence_logprobs(policy, encoded, responses, tokenizer.pad_token_id, temperature, batch_size)
    expected = [sum_by_hand(policy, p, r, temperature) for p, r in zip(encoded, responses, strict=True)]
    assert got == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in got}) == len(got)  # so that a wrong order would show


def test_a_pad_id_inside_a_response_counts_as_a_token(policy, tokenizer, encoded):
    pad = tokenizer.pad_token_id
    responses = [[5, pad, 7, pad], [9, 8, 7, 6, 5, 4]]
    got = logprobs.sequence_logprobs(policy, encoded[:2], responses, pad)
    expected = [sum_by_hand(policy, p, r) for p, r in zip(encoded[:2], responses, strict=True)]
    assert got == pytest.approx(expected, abs=1e-4)


def test_collate_lays_prompts_and_responses_side_by_side():
    batch = logprobs.collate([[1, 2], [3]], [[4], [5, 6, 0]], pad_id=0, device=torch.device("cpu"))
    assert batch.input_ids.tolist() == [[1, 2, 4, 0, 0], [0, 3, 5, 6, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]
    assert batch.response_mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.response_ids.tolist() == [[4, 0, 0], [5, 6, 0]]
    assert batch.position_ids[:, :3].tolist() == [[0, 1, 2], [0, 0, 1]]


def test_response_logprobs_are_zero_off_the_response(policy):
    batch = logprobs.collate([[1, 2], [3]], [[4], [5, 6, 9]], pad_id=0, device=policy.device)
    got = logprobs.response_logprobs(policy, batch)
    assert ((got != 0) == batch.response_mask).all()


def test_batches_of_like_length_hold_every_row_once():
    batches = list(logprobs.by_length([5, 1, 4, 1, 3], 2))
    assert batches == [[1, 3], [4, 2], [0]]


# ---- generation


def greedy_by_hand(model, tokenizer, prompt, max_new_tokens):
    ids = list(prompt)
    for _ in range(max_new_tokens):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] == tokenizer.eos_token_id:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_greedy_responses_do_not_depend_on_the_batch(policy, tokenizer, encoded, batch_size):
    got = generation.generate(policy, tokenizer, encoded, 6, 0.0, batch_size)
    assert [response.ids for response in got] == [greedy_by_hand(policy, tokenizer, p, 6) for p in encoded]
    assert all(r.finished == (r.ids[-1] == tokenizer.eos_token_id) for r in got)


def test_greedy_responses_come_in_the_order_of_the_prompts(policy, tokenizer, encoded):
    forward = generation.generate(policy, tokenizer, encoded, 5, 0.0, 3)
    assert generation.generate(policy, tokenizer, encoded[::-1], 5, 0.0, 3) == forward[::-1]
    assert len({tuple(r.ids) for r in forward}) > 1


def test_sampling_follows_the_models_distribution(policy, tokenizer, encoded):
    temperature, count = 0.5, 4000
    torch.manual_seed(0)
    got = generation.generate(policy, tokenizer, [encoded[0]] * count, 1, temperature, 4000)
    with torch.no_grad():
        logits = policy(torch.tensor([encoded[0]])).logits[0, -1]
    expected = (logits / temperature).softmax(0)
    drawn = torch.bincount(torch.tensor([r.ids[0] for r in got]), minlength=len(expected)) / count
    error = (expected * (1 - expected) / count).sqrt()
    assert ((drawn - expected).abs() <= 5 * error + 1 / count).all()


def test_sampling_depends_on_the_seed_alone(policy, tokenizer, encoded):
    def draw(seed):
        torch.manual_seed(seed)
        return generation.generate(policy, tokenizer, encoded, 6, 1.0, 4)

    assert draw(3) == draw(3) != draw(4)


@pytest.mark.parametrize("training", [True, False])
def test_generation_puts_the_models_mode_back(tiny, tokenizer, encoded, training):
    model = models.load_policy(tiny.policy).train(training)
    generation.generate(model, tokenizer, encoded[:2], 2, 1.0, 2)
    assert model.training == training and all(part.training == training for part in model.modules())


def test_a_response_ends_with_its_first_eos():
    assert until_eos([5, 2, 2, 0], eos_id=2) == Response([5, 2], True)
    assert until_eos([2, 5], eos_id=2) == Response([2], True)
    assert until_eos([5, 0, 0], eos_id=2) == Response([5, 0, 0], False)


def test_an_eos_in_the_prompt_does_not_end_the_response(policy, tokenizer):
    turns = [*user("Name the cat."), {"role": "assistant", "content": "Cat."}, *user("Name the dog.")]
    prompt = prompt_ids(tokenizer, turns)
    assert tokenizer.eos_token_id in prompt
    (got,) = generation.generate(policy, tokenizer, [prompt], 5, 0.0, 1)
    assert got.ids == greedy_by_hand(policy, tokenizer, prompt, 5)


def test_response_text_leaves_special_tokens_out(tokenizer):
    ids = tokenizer("A cat.", add_special_tokens=False)["input_ids"]
    assert generation.text(tokenizer, Response([*ids, tokenizer.eos_token_id], True)) == "A cat."


def test_prompts_lose_their_beginning_to_make_room(tokenizer, encoded):
    got = generation.encode_prompts(tokenizer, PROMPTS, 56, 64, "evaluate.max_new_tokens")
    assert got == [ids[-8:] for ids in encoded] and any(len(ids) > 8 for ids in encoded)
    assert generation.encode_prompts(tokenizer, PROMPTS, 8, 64, "x") == encoded
    assert generation.encode_prompts(tokenizer, PROMPTS, 10**6, None, "x") == encoded


def test_no_room_for_a_prompt_is_told(tokenizer):
    with pytest.raises(ParamsError, match=r"evaluate\.max_new_tokens: 57 .* at most 56") as error:
        generation.encode_prompts(tokenizer, PROMPTS, 57, 64, "evaluate.max_new_tokens")
    assert "\n" not in str(error.value)


# ---- rewards


def score_by_hand(reward, prompt, answer):
    """The score at the last token of the dialogue alone, from the trunk and the head."""
    ids = torch.tensor([dialogue_ids(reward.tokenizer, prompt, answer)])
    with torch.no_grad():
        return reward.model.score(reward.model.transformer(ids).last_hidden_state[0, -1]).item()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_scores_are_read_at_the_last_token_whatever_the_batch(tiny, batch_size):
    reward = RewardModel.load(tiny.reward)
    reward.batch_size = batch_size
    expected = [score_by_hand(reward, p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert reward.scores(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert reward.scores(PROMPTS[::-1], ANSWERS[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    assert len({round(value, 4) for value in expected}) == len(expected)


def test_rewards_are_scores_less_the_mean_in_units_of_the_spread(reward):
    assert (reward.mean, reward.std) == (0.1, 0.5)
    expected = [(score - 0.1) / 0.5 for score in reward.scores(PROMPTS, ANSWERS)]
    assert reward(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-9)


def test_a_dialogue_beyond_the_context_loses_its_beginning(reward):
    long = user("cat " * 100 + "Name the dog.")
    whole = dialogue_ids(reward.tokenizer, long, "Dog.")
    assert len(whole) > 64
    with torch.no_grad():
        expected = reward.model(torch.tensor([whole[-64:]])).logits.item()
    short, got = reward.scores([PROMPTS[0], long], [ANSWERS[0], "Dog."])
    assert got == pytest.approx(expected, abs=1e-5)
    assert short == pytest.approx(score_by_hand(reward, PROMPTS[0], ANSWERS[0]), abs=1e-5)


def test_a_reward_model_scores_with_eos_once(reward):
    ids = dialogue_ids(reward.tokenizer, PROMPTS[0], "Cat.")
    assert ids.count(reward.tokenizer.eos_token_id) == 1
    assert reward.model.config.pad_token_id == reward.tokenizer.pad_token_id != reward.tokenizer.eos_token_id


def test_no_rows_have_no_rewards(reward):
    assert reward([], []) == []


def test_reward_models_have_one_output(tiny):
    model = AutoModelForSequenceClassification.from_pretrained(tiny.reward)
    assert model.config.num_labels == 1 and models.load_reward(tiny.reward).config.num_labels == 1
