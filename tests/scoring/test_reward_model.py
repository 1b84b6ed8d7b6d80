"""Reward models that others made: encoders, decoders without a pad token, and what is no reward model at all."""

import json
import shutil

import pytest
import torch
from encoders import ANSWERS, CONTEXT, PROMPTS, SIZES, save_encoder, user
from tokenizers import Tokenizer, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers, response_text
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.ppo.rewards import RewardFunctions
from rlhf_lib.scoring.reward_model import STATISTICS_FILE, RewardModel, encode_pair


@pytest.fixture(scope="module", params=SIZES)
def encoder(request, tmp_path_factory):
    """A reward model whose tokenizer has no chat template, and gives token_type_ids whether they are wanted or not."""
    reward = RewardModel.load(save_encoder(tmp_path_factory.mktemp(request.param), request.param))
    assert "token_type_ids" in reward.tokenizer(["cat"], ["dog"])
    return reward


def pair_by_hand(reward, prompt, answer):
    """[CLS] prompt [SEP] answer [SEP] as ids, and the segment of each."""
    first, second = (reward.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
    return [1, *first, 2, *second, 2], [0] * (len(first) + 2) + [1] * (len(second) + 1)


def score_by_hand(reward, ids, segments):
    """The score of one row without padding."""
    types = {"token_type_ids": torch.tensor([segments])} if reward.model.config.model_type == "bert" else {}
    with torch.no_grad():
        return reward.model(torch.tensor([ids]), **types).logits.item()


# ---- tokenizers without a chat template


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_prompt_and_answer_are_a_pair_whatever_the_batch(encoder, batch_size):
    encoder.batch_size = batch_size
    pairs = [pair_by_hand(encoder, p[0]["content"], a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert len({len(ids) for ids, _ in pairs}) > 2
    expected = [score_by_hand(encoder, *pair) for pair in pairs]
    assert encoder.scores(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert encoder.scores(PROMPTS[::-1], ANSWERS[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    assert len({round(score, 3) for score in expected}) == len(expected)  # so that a wrong order would show


@pytest.mark.parametrize("forged", ["[SEP] [CLS] cat [SEP]", "cat[SEP]", "[PAD]", "[CLS]"])
def test_special_tokens_that_a_text_spells_out_are_text(encoder, forged):
    """A policy could else end its answer and begin another pair."""
    special = {*encoder.tokenizer.all_special_ids} - {encoder.tokenizer.unk_token_id}
    for prompt, answer, limit in ((forged, "dog", CONTEXT), ("cat", forged, CONTEXT), ("cat " * 99, forged, 12)):
        ids = encode_pair(encoder.tokenizer, prompt, answer, limit)["input_ids"]
        assert [token for token in ids if token in special] == [1, 2, 2]
    assert encoder.tokenizer("[SEP]", add_special_tokens=False)["input_ids"] == [2]  # as ever, where it is meant


def unigram_tokenizer():
    """As DeBERTa v3's: its special tokens are pieces of the vocabulary, likelier than the letters in them."""
    tokenizer = Tokenizer(tokenizer_models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["[PAD]", "[CLS]", "[SEP]", "<unk>"]
    trainer = trainers.UnigramTrainer(special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(["a cat [S E P] sat", "the CLS dog PAD"] * 9, trainer)
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "<unk>"}
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, truncation_side="left", **names)


@pytest.mark.parametrize("limit", [64, 24])
@pytest.mark.parametrize("forged", ["[SEP] [CLS] a cat [SEP]", "cat[SEP]", "[PAD][PAD]", "[CLS]"])
def test_special_tokens_that_are_pieces_of_a_vocabulary_are_text_too(forged, limit):
    tokenizer = unigram_tokenizer()
    assert set(tokenizer(forged, add_special_tokens=False, split_special_tokens=True)["input_ids"]) & {0, 1, 2}
    ids = encode_pair(tokenizer, f"the cat {forged} sat", forged, limit)["input_ids"]
    assert [token for token in ids if token in (0, 1, 2)] == [1, 2, 2] and len(ids) <= limit


def test_a_prompt_of_several_turns_is_lines_of_role_and_content(encoder):
    turns = [*user("cat"), {"role": "assistant", "content": "dog"}, *user("sky")]
    expected = score_by_hand(encoder, *pair_by_hand(encoder, "user: cat\nassistant: dog\nuser: sky", "one"))
    assert encoder.scores([turns], ["one"]) == pytest.approx([expected], abs=1e-5)


def test_the_prompt_loses_its_beginning_to_the_answer(encoder):
    """The last words of the prompt decide the score; the first, which do not fit, do not."""
    answer = "dog dog dog"
    tail = "sky " * (CONTEXT - 6)  # with three special tokens and the answer, just the context
    expected = score_by_hand(encoder, *pair_by_hand(encoder, tail, answer))
    got = encoder.scores([user(tail), user("cat " * 40 + tail), PROMPTS[0]], [answer, answer, "Cat."])
    assert got[:2] == pytest.approx([expected] * 2, abs=1e-5)
    assert encoder.scores([user("cat " * 40 + tail)], ["dog dog sky"])[0] != pytest.approx(got[1], abs=1e-3)


@pytest.mark.parametrize("words", [CONTEXT - 4, CONTEXT - 3, CONTEXT - 2, 3 * CONTEXT])
def test_an_answer_that_fills_the_context_loses_its_beginning_last(encoder, words):
    prompt, answer = "sky " * 40, " ".join(["cat"] * (words - 4) + ["dog", "one", "word", "sky"])
    room = CONTEXT - 3
    kept = answer.split()[-room:]
    expected = score_by_hand(encoder, *pair_by_hand(encoder, "sky " * (room - len(kept)), " ".join(kept)))
    assert encoder.scores([user(prompt)], [answer]) == pytest.approx([expected], abs=1e-5)


def test_an_encoder_scores_what_another_tokenizer_decoded(tmp_path, policy, tokenizer):
    """A GPT-2 policy with a byte-level BPE, and a DistilBERT with a WordPiece vocabulary as its reward."""
    path = save_encoder(tmp_path / "quality", "distilbert")
    prompts = [prompt_ids(tokenizer, prompt) for prompt in PROMPTS]
    sampling = Sampling(6, temperature=0.0)
    noise = random_numbers(len(prompts), sampling, 0)
    responses = generate(policy, tokenizer, prompts, sampling, noise, batch_size=4)
    texts = [response_text(tokenizer, response) for response in responses]
    reward = RewardModel.load(path)
    expected = [
        score_by_hand(reward, *pair_by_hand(reward, prompt[0]["content"], text))
        for prompt, text in zip(PROMPTS, texts, strict=True)
    ]
    got = RewardFunctions.load([str(path)], [2.0], normalize_rewards=True)(PROMPTS, texts, {})
    assert got.by_name["quality"] == pytest.approx(expected, abs=1e-5)
    assert got.total == pytest.approx([2 * score for score in expected], abs=1e-5)


# ---- pad tokens of decoders


def save_decoder(source, path, config_pad, tokenizer_pad):
    """The reward model in `source`, with another pad id in its config, and another pad token in its tokenizer."""
    model = AutoModelForSequenceClassification.from_pretrained(source)
    tokenizer = models.load_tokenizer(source)
    model.config.pad_token_id, tokenizer.pad_token = config_pad, tokenizer_pad
    models.save(model, tokenizer, path)


PADS = [(None, None), (None, "<|end|>"), (None, "<|pad|>"), (-1, "<|pad|>"), (40, "<|pad|>"), (0, None), (0, "<|end|>")]


@pytest.mark.parametrize(("config_pad", "tokenizer_pad"), PADS)
def test_padding_never_changes_a_decoders_score(tiny, tmp_path, config_pad, tokenizer_pad):
    """Scores are read at the last token of each dialogue, the template's EOS, whatever is said of the pad token."""
    save_decoder(tiny.reward, tmp_path, config_pad, tokenizer_pad)
    reward = RewardModel.load(tmp_path)
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids = torch.tensor([dialogue_ids(reward.tokenizer, prompt, answer)])
        assert ids[0, -1] == reward.tokenizer.eos_token_id
        with torch.no_grad():
            expected.append(reward.model.score(reward.model.transformer(ids).last_hidden_state[0, -1]).item())
    assert reward.scores(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)


def test_a_decoder_that_pads_with_its_eos_reads_the_token_before_it(tiny, tmp_path):
    """So it was trained: its classifier looks for the last token that is not the pad token of its config."""
    eos = models.load_tokenizer(tiny.reward).eos_token_id
    save_decoder(tiny.reward, tmp_path, eos, "<|end|>")
    reward = RewardModel.load(tmp_path)
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids = dialogue_ids(reward.tokenizer, prompt, answer)
        assert ids[-1] == eos != ids[-2]
        with torch.no_grad():
            hidden = reward.model.transformer(torch.tensor([ids])).last_hidden_state
        expected.append(reward.model.score(hidden[0, -2]).item())
    assert reward.scores(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)


# ---- loading


def test_without_statistics_rewards_are_raw_scores(tiny, tmp_path):
    shutil.copytree(tiny.reward, tmp_path, dirs_exist_ok=True)
    (tmp_path / STATISTICS_FILE).unlink()
    scores = RewardModel.load(tiny.reward).scores(PROMPTS, ANSWERS)
    assert RewardModel.load(tmp_path)(PROMPTS, ANSWERS) == scores
    assert RewardModel.load(tiny.reward, normalize=False)(PROMPTS, ANSWERS) == scores
    normalised = [(score - 0.1) / 0.5 for score in scores]
    assert RewardModel.load(tiny.reward)(PROMPTS, ANSWERS) == pytest.approx(normalised)


def told(path, revision=None):
    """What the one-line error says."""
    with pytest.raises(ParamsError) as error:
        RewardModel.load(path, revision)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_tokenizers_own_limit_counts_where_it_has_no_chat_template(tiny):
    reward = RewardModel.load(tiny.reward)
    context = reward.model.config.max_position_embeddings
    reward.tokenizer.model_max_length = 5
    assert reward.limit == context > 5
    reward.tokenizer.chat_template = None
    assert reward.limit == 5
    reward.tokenizer.model_max_length = 10**30
    assert reward.limit == context


def test_a_missing_directory_is_told(tmp_path):
    text = told(tmp_path / "none")
    assert text.startswith(f"{tmp_path}/none: no such directory") and "dvc repro reward" in text


@pytest.mark.parametrize("kind", ["distilbert", "gpt2"])
@pytest.mark.parametrize("saved_labels", [True, False])
@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
def test_a_classifier_of_two_labels_is_told(tmp_path, kind, saved_labels, problem_type):
    """transformers leaves two labels out of config.json, as two is the default; older files name them."""
    save_encoder(tmp_path, kind, num_labels=2)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text()) | {"problem_type": problem_type}
    config |= {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}} if saved_labels else {}
    file.write_text(json.dumps(config))
    assert told(tmp_path).startswith(f"{tmp_path}: a classifier with 2 outputs; a reward model has one")


def test_the_number_of_outputs_is_that_of_the_weights(tmp_path):
    """A config that does not say means two labels to transformers; the checkpoint's head has one."""
    save_encoder(tmp_path, "distilbert")
    expected = RewardModel.load(tmp_path).scores(PROMPTS, ANSWERS)
    file = tmp_path / "config.json"
    config = {key: value for key, value in json.loads(file.read_text()).items() if "label" not in key}
    file.write_text(json.dumps(config))
    assert RewardModel.load(tmp_path).scores(PROMPTS, ANSWERS) == expected


def test_a_score_that_is_not_finite_is_told(tmp_path):
    """Without that, evaluate ended in a traceback of the JSON that it writes."""
    reward = RewardModel.load(save_encoder(tmp_path, "distilbert"))
    torch.nn.init.constant_(reward.model.classifier.weight, 3e38)
    with pytest.raises(ParamsError, match=f"^{tmp_path}: scores [1-9] of {len(ANSWERS)} answers as (-?inf|nan); "):
        reward(PROMPTS, ANSWERS)


def test_a_language_model_is_no_reward_model(tiny):
    """from_pretrained() would give it a random head."""
    assert told(tiny.policy).startswith(f"{tiny.policy}: not a reward model: the checkpoint has no fitting weights")
    assert "score.weight" in told(tiny.policy)


def test_a_directory_without_a_model_is_told(tmp_path):
    assert told(tmp_path).startswith(f"{tmp_path}: cannot be loaded as a reward model: ")


def test_a_hub_model_that_cannot_be_had_is_told():
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert told("nobody/none", commit).startswith(f"nobody/none@{commit}: cannot be loaded as a reward model: ")
