import pytest
import torch
from architectures import GROUPED, SPREAD
from tiny_models import TEXTS
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaTokenizer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.models.logprobs import Response, sequence_logprobs
from rlhf_lib.scoring.reward_model import RewardModel

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
    load = models.load_policy if kind == "policy" else AutoModelForSequenceClassification.from_pretrained
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


@pytest.mark.parametrize(("legacy", "behind"), [(True, "\u2581a"), (False, "a")])
def test_a_saved_tokenizer_reads_what_stands_behind_a_special_token_as_before(policy, tmp_path, legacy, behind):
    """As Llama's first tokenizers, which put a space there, and its later ones, which do not."""
    pieces = ["<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[("\u2581", "a")], legacy=legacy)
    models.save(policy, tokenizer, tmp_path)
    for each in (tokenizer, models.load_tokenizer(tmp_path)):
        assert each.tokenize("a</s>a") == ["\u2581a", "</s>", behind]


def test_loaded_models_are_ready_to_measure(policy, reward):
    assert not policy.training and not reward.model.training
    assert policy.dtype == reward.model.dtype == torch.float32


def test_a_length_beyond_the_context_is_told(policy):
    models.check_length("sft.max_length", 64, policy)
    with pytest.raises(ParamsError, match=r"sft\.max_length: 65 .* at most 64") as error:
        models.check_length("sft.max_length", 65, policy)
    assert "\n" not in str(error.value)


def test_in_the_context_of_longrope_what_is_said_of_a_row_does_not_depend_on_longer_ones():
    """As in Phi-3.5 and Phi-4 mini, whose frequencies are other ones for a batch with a longer row than of old."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 10_000.0}
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": 8}
    torch.manual_seed(0)
    shape = {**SPREAD, **GROUPED, **lengths, "vocab_size": 50, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("phi3", rope_parameters=rope, **shape)).eval()
    models.run_fast(model)
    longest = models.context_length(model)
    prompts, responses = [[3, 4], [5, 6, 7]], [Response([8, 9], True), Response([4] * (longest - 3), True)]
    together, alone = (sequence_logprobs(model, prompts, responses, 0, batch_size=size) for size in (2, 1))
    assert together == pytest.approx(alone, abs=1e-4)
    with pytest.raises(ParamsError, match="at most 8"):
        models.check_length("sft.max_length", 9, model)


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


def test_a_reward_model_has_one_output(reward):
    assert reward.model.config.num_labels == 1


def test_attention_is_left_to_pytorchs_own_kernels():
    """cuDNN's would build a plan for every new shape, and decoding has a new one at each token."""
    assert not torch.backends.cuda.cudnn_sdp_enabled()
