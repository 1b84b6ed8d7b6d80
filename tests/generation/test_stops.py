"""Answers that end: what the templates of real models teach, and where we, transformers and pipelines stop."""

import pytest
from same_greedy import differing, ours
from taught_standins import PROMPTS, complete, teach


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen", "gemma"])
def test_answers_end_by_themselves_where_a_turn_does_not_end_with_the_eos(name, checkpoints, tmp_path):
    before = complete(name, tmp_path / "base")
    after = teach(before, tmp_path / "sft", checkpoints)
    responses, texts = ours(after, PROMPTS)
    print(name, sum(r.finished for r in responses), len(PROMPTS), texts[:4], texts[-3:])
    assert sum(response.finished for response in responses) >= 0.95 * len(PROMPTS)
    assert differing(after, PROMPTS[:50]) == []
