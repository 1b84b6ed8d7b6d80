"""What a chat template adds to a row, in the table of which lengths the params hold."""

import pytest
from chat_standins import stand_in
from shipped_params import sections

from rlhf_lib.data.lengths import Lengths, told
from rlhf_lib.models.chat import dialogue_ids
from rlhf_lib.models.settled import settle


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def around_of(model):
    found = sections(base={"model_name_or_path": model})
    return Lengths(found["base"], found["prepare"]).around()


@pytest.mark.parametrize(
    ("family", "tokens"),
    [
        # two roles, and the EOS
        ("gpt2", 3),
        # and a BOS before them
        ("opt", 4),
        # <bos>; <start_of_turn>user and a line's end, <end_of_turn> and a line's end, twice, with model for user
        ("gemma", None),
        # with a system turn of its own
        ("qwen", None),
    ],
)
def test_what_a_template_puts_around_a_row_is_counted(project, family, tokens):
    tokenizer = stand_in(family).tokenizer
    tokenizer.save_pretrained(project / "mine")
    (project / "mine/config.json").write_text("{}")
    around = around_of("./mine")
    if tokens is None:
        settle(tokenizer)
        row = dialogue_ids(tokenizer, [{"role": "user", "content": "7"}], "7")
        tokens = len(row) - 2
    assert around == tokens
    out = list(
        told(sections(sft={"max_length": 10}), {"sft_train": {"answers": [1], "rows": [9, 10 - around]}}, around)
    )
    assert "50 % of the rows are longer, and lose their end" in out[-1]
    assert out[0] == f"What the params hold, in tokens; {around} of a row are the chat template's:"


def test_of_a_model_that_is_not_at_hand_the_projects_template_is_counted(project):
    assert around_of(None) == around_of("nobody/nothing") == 3
