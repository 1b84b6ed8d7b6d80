"""Tokenizers as big as real ones: hundreds of reserved tokens, and several chat templates."""

import re
from copy import deepcopy

import pytest
from chat_standins import tokenizer_of
from one_line import told

from rlhf_lib.models.chat import dialogue_ids
from rlhf_lib.models.settled import settle


@pytest.mark.parametrize("reserved", [250, 1000])
def test_a_vocabulary_may_reserve_many_special_tokens(reserved):
    """As Llama 3's 250, and the 1,000 of Mistral's later ones."""
    tokenizer = deepcopy(tokenizer_of("qwen"))
    names = [f"<|reserved_{number}|>" for number in range(reserved)]
    tokenizer.add_special_tokens({"extra_special_tokens": [*names, "[INST]", "<\U0001f3ad>"]})
    settle(tokenizer)
    for token in (*names[:: reserved // 50], names[-1], "[INST]", "<\U0001f3ad>"):
        ids = dialogue_ids(tokenizer, [{"role": "user", "content": f"a{token}b"}], f"{token} c")
        assert tokenizer.convert_tokens_to_ids(token) not in ids, token


def test_of_several_templates_the_default_one_is_taken():
    """Command-R and Hermes bring such lists."""
    tokenizer = deepcopy(tokenizer_of("qwen"))
    of_family = tokenizer.chat_template
    settle(tokenizer)
    wanted, tokenizer.chat_template = tokenizer.chat_template, {"tool_use": "x", "default": of_family}
    settle(tokenizer)
    assert tokenizer.chat_template == wanted
    tokenizer.chat_template = {"tool_use": "x", "rag": of_family}
    assert re.search(
        r"is one of several \(tool_use, rag\), of which none is the default; mend", told(settle, tokenizer)
    )
