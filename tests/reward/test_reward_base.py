"""What a reward model starts from, and the params of stages reward and judge."""

import json
import shutil

import pytest
from encoders import PROMPTS, save_encoder
from reward_trainers import load
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM
from trl_trainers import CHOSEN, TRAINER

from rlhf_lib.common.schema import check, read
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import loading as models
from rlhf_lib.reward.params import JudgeParams, RewardParams

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_head_follows_the_seed(tiny):
    heads = [load(tiny.policy, seed=seed).model.score.weight for seed in (0, 0, 1)]
    assert heads[0].equal(heads[1]) and not heads[0].equal(heads[2])


def test_a_decoder_without_pad_token_or_template_gets_them(tiny, tmp_path):
    """Its classifier reads the score at the last token that is no pad: with pad equal to EOS, before the EOS."""
    tokenizer = models.load_tokenizer(tiny.policy)
    tokenizer.chat_template, tokenizer.pad_token = None, tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(tiny.policy)
    model.config.pad_token_id = None
    models.save(model, tokenizer, tmp_path / "plain")
    got = load(tmp_path / "plain")
    assert got.tokenizer.chat_template and got.tokenizer.pad_token_id != got.tokenizer.eos_token_id
    assert got.model.config.pad_token_id == got.pad_id == got.tokenizer.pad_token_id
    alone = [got.scores([prompt], [answer])[0] for prompt, answer in zip(PROMPTS, CHOSEN, strict=True)]
    assert got.scores(PROMPTS, CHOSEN) == pytest.approx(alone, abs=1e-5)


def test_a_masked_language_model_gets_a_pooler_and_a_head(tmp_path):
    save_encoder(tmp_path, "bert")
    config, tokenizer = BertConfig.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    models.save(BertForMaskedLM(config), tokenizer, tmp_path / "mlm")
    assert len(set(load(tmp_path / "mlm", max_length=24).scores(PROMPTS, CHOSEN))) > 1


def told(base, **changes):
    with pytest.raises(ParamsError) as error:
        load(base, **changes)
    assert "\n" not in str(error.value) and str(error.value).startswith("params.yaml: reward.")
    return str(error.value)


def test_bases_that_cannot_be_had_are_told(tiny, tmp_path):
    assert "no such directory" in told("./none")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded: " in told(tmp_path / "empty")
    assert f"nobody/none@{COMMIT}: cannot be loaded: model nobody/none is not in the cache" in told(
        f"nobody/none@{COMMIT}"
    )


def test_a_checkpoint_without_its_trunk_is_told(tiny, tmp_path):
    shutil.copytree(tiny.policy, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    assert "no fitting weights for transformer.h.2." in told(tmp_path)


def test_tokenizers_that_cannot_serve_are_told(tiny, tmp_path):
    save_encoder(tmp_path, "distilbert")
    tokenizer, config = AutoTokenizer.from_pretrained(tmp_path), json.loads((tmp_path / "config.json").read_text())
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    assert "no pad token" in told(tmp_path, max_length=24)
    shutil.copytree(tiny.policy, tmp_path / "decoder")
    tokenizer = models.load_tokenizer(tiny.policy)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "decoder")
    assert "no EOS token" in told(tmp_path / "decoder")


def test_max_length_is_at_most_what_the_model_reads(tiny, tmp_path):
    assert "reward.max_length: 65 tokens, but the model attends to 64" in told(tiny.policy, max_length=65)
    # one position embedding more than its tokenizer may use
    assert "max_length: 25 tokens" in told(save_encoder(tmp_path, "roberta"), max_length=25)


# ---- params


SECTION = {**TRAINER, "model_name_or_path": "models/sft", "max_length": 64, "center_rewards_coefficient": None}
REWARD = {**SECTION, "loss_type": "bradley_terry", "bounded": False}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bounded": True}, r"reward\.bounded: must be false while reward\.loss_type is bradley_terry"),
        (
            {"bounded": True, "loss_type": "ranking"},
            r"reward\.bounded: must be false while reward\.loss_type is ranking",
        ),
        ({"loss_type": "mae", "center_rewards_coefficient": 0.1}, r"reward\.center_rewards_coefficient: must be null"),
        ({"loss_type": "hinge"}, r"reward\.loss_type: must be one of bradley_terry, margin, ranking, mse, mae"),
        ({"model_name_or_path": "bert-base"}, r"reward\.model_name_or_path: not the name of a model"),
        (
            {"model_name_or_path": "owner/name@main"},
            r"at its commit \(owner/name@<40 hex digits>\), got 'owner/name@main'",
        ),
        ({"model_name_or_path": "rewards.mine:f"}, r"reward\.model_name_or_path: not the name of a model"),
        ({"max_steps": 0}, r"reward\.max_steps: "),
    ],
)
def test_faults_between_params_are_told_in_one_line(changes, text):
    with pytest.raises(ParamsError, match=text) as error:
        check(RewardParams, {**REWARD, **changes}, "reward")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loss_type", ["mse", "mae"])
def test_regressions_may_be_bounded(loss_type):
    assert check(RewardParams, {**REWARD, "loss_type": loss_type, "bounded": True}, "reward").is_bounded


def test_the_judge_is_always_a_bradley_terry_model():
    judge = check(JudgeParams, SECTION, "judge")
    assert judge.kind == "bradley_terry" and not judge.is_bounded
    with pytest.raises(ParamsError, match=r"judge\.loss_type: unknown key"):
        check(JudgeParams, REWARD, "judge")


def test_one_value_of_a_section_can_be_read(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("policy: ppo\nprepare:\n  target_range: [1, 10]\n  seed: x\n")
    assert read("prepare.target_range", list[float], file) == [1.0, 10.0]
    for name, text in (("prepare.seed", "whole number"), ("prepare.no", "missing"), ("no.x", "missing")):
        with pytest.raises(ParamsError, match=rf"params\.yaml: {name}: .*{text}"):
            read(name, int, file)
