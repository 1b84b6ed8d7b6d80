"""Which lengths the params hold, and in what they are counted."""

from pathlib import Path

import pytest
from shipped_params import sections
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from rlhf_lib.data.lengths import Lengths, answers, measure, told

ESTIMATED = "estimated, at 4 bytes a token (a word of English is about 1.5), as no tokenizer is at hand yet"


def lengths(**changes):
    found = sections(**changes)
    return Lengths(found["base"], found["prepare"])


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


# ---- what is counted


def save_tokenizer(folder, text="", **options):
    """A tokenizer of bytes, and of what is frequent in a text, with <|end|> as one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([text], trainer)
    for name, values in options.items():
        getattr(tokenizer, name)(**values)
    Path(folder).mkdir(parents=True)
    tokenizer.save(f"{folder}/tokenizer.json")


def test_without_a_tokenizer_bytes_are_counted(project):
    length = lengths(base={"model_name_or_path": "nobody/nothing"})
    assert length.told == ESTIMATED
    # three bytes each in UTF-8
    assert length(["", "abcd", "abcde", "四个汉字"]) == [0, 1, 2, 3]


def test_the_tokenizer_of_models_base_counts(project):
    save_tokenizer("models/base")
    length = lengths()
    assert length.told == "tokens of models/base"
    assert length(["ab", "<|end|>"]) == [2, 1]


def test_the_model_that_is_named_goes_before_models_base_of_another_run(project):
    save_tokenizer("models/base")
    save_tokenizer("mine", "zyxw " * 50)
    length = lengths(base={"model_name_or_path": "./mine"})
    assert length.told == "tokens of ./mine"
    assert length(["zyxw"]) < lengths()(["zyxw"])


def test_models_base_of_other_params_is_passed_over(project):
    """Else the rows of a preset would be counted in the tokens of the demo, three times as many."""
    save_tokenizer("models/base")
    (project / "params.yaml").write_text("base: {vocab_size: 4096, n_embd: 192}\n")
    lock = (
        "{stages: {base: {params: {params.yaml: {base: {vocab_size: %d, n_embd: 96}}}, outs: [{path: models/base}]}}}"
    )
    (project / "dvc.lock").write_text(lock % 1024)
    assert lengths().told == ESTIMATED
    (project / "dvc.lock").write_text(lock % 4096)
    assert lengths().told == "tokens of models/base"


def test_a_tokenizer_that_cuts_and_pads_counts_all_the_same(project):
    save_tokenizer("models/base", enable_truncation={"max_length": 2}, enable_padding={"length": 9})
    assert lengths()(["xyz", "x"]) == [3, 1]


def test_a_file_that_is_no_tokenizer_is_passed_over(project):
    (project / "models/base").mkdir(parents=True)
    (project / "models/base/tokenizer.json").write_text("{}")
    assert lengths().told == ESTIMATED


def test_a_record_of_each_kind_is_measured(project):
    said = [{"role": "user", "content": "a" * 8}]

    def says(tokens):
        return [{"role": "assistant", "content": "b" * 4 * tokens}]

    group = {"prompt": said, "responses": [{"content": "c" * 4, "score": 1.0}, {"content": "d" * 20, "score": 2.0}]}
    pair = {"prompt": said, "chosen": says(3), "rejected": says(4), "score_chosen": 2.0, "score_rejected": 1.0}
    for record, expected in ((group, [1, 5]), (pair, [3, 4]), ({"prompt": said, "completion": says(7)}, [7])):
        assert measure(record, lengths()) == (2, expected)
    assert [score for _, score in answers(pair)] == [2.0, 1.0]


# ---- what the params hold

ANSWERS = [9] * 70 + [29] * 25 + [59] * 5  # and a token that ends each: 30 % are longer than 10


def lines(found, **measured):
    return list(told(found, measured))


def test_answers_that_are_longer_than_what_ppo_and_the_evaluation_sample(project):
    found = sections(ppo={"response_length": 10}, evaluate={"max_new_tokens": 30})
    out = lines(found, sft_train={"answers": ANSWERS, "rows": ANSWERS})
    assert out[2].split()[:5] == ["ppo.response_length", "10", "30", "%", "32"]
    assert out[2].endswith("100 answers of sft_train: would be cut off and penalised")
    assert out[3].split()[:5] == ["evaluate.max_new_tokens", "30", "5", "%", "32"]
    assert out[4].split()[:5] == ["sft.max_length", "128", "0", "%", "32"]
    assert out[5:] == [
        "  ppo.response_length: 30 % of the answers that SFT teaches are longer, and would be cut off and penalised: "
        "PPO would learn brevity first; raise it to 32, or teach shorter ones (prepare.max_response_tokens)"
    ]


def test_without_a_penalty_ppo_is_not_said_to_learn_brevity(project):
    found = sections(ppo={"response_length": 10, "missing_eos_penalty": None})
    out = lines(found, sft_train={"answers": ANSWERS, "rows": ANSWERS})
    assert "are longer, and would be cut off; raise it to 32" in out[-1]
    assert "brevity" not in "".join(out) and "penalised" not in "".join(out)


def test_negatives_are_bounded_where_there_are_any(project):
    measured = {"sft_train": {"answers": ANSWERS, "rows": ANSWERS}}
    assert "negatives" not in "".join(lines(sections(), **measured))
    found = sections(negatives={"model_name_or_path": "models/sft", "max_new_tokens": 10})
    assert any("negatives.max_new_tokens: 30 % of the answers" in line for line in lines(found, **measured))


@pytest.mark.parametrize(
    ("section", "split", "lost"),
    [
        ("sft", "sft_train", "lose their end"),
        ("reward", "reward_train", "are dropped"),
        ("judge", "judge_train", "are dropped"),
        ("reference", "preference_train", "lose their end"),
    ],
)
def test_rows_that_are_longer_than_a_trainer_reads(project, section, split, lost):
    found = sections(**{section: {"max_length": 10}})
    out = lines(found, **{split: {"answers": [1], "rows": ANSWERS}})
    assert out[-1] == f"  {section}.max_length: 30 % of the rows are longer, and {lost}; raise it to 32"


def test_a_ranking_learns_from_groups(project):
    found = sections(reward={"loss_type": "ranking", "max_length": 10})
    measured = {"reward_train": {"answers": [1], "rows": [1]}, "groups_train": {"answers": [1], "rows": [99]}}
    assert "100 % of the rows are longer" in lines(found, **measured)[-1]


def test_of_few_longer_ones_there_is_a_number_and_no_advice(project):
    out = lines(sections(ppo={"response_length": 10}), sft_train={"answers": [9] * 300 + [30], "rows": [9]})
    assert "< 1 %" in out[2] and not any("raise it" in line for line in out)


def test_without_rows_there_is_nothing_to_say(project):
    assert lines(sections()) == []
