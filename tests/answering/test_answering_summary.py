"""The lines of the summary: which numbers are shown, and with which errors."""

import pytest

from rlhf_lib.answering import scores

LONG = "the cat sat on the mat"


def lines(*pairs):
    """By their names, the lines for answers beside references, each to a prompt of its own."""
    measured = [scores.beside(*pair) for pair in pairs]
    rows = [
        {"row": i, "reference": reference, "finished": True, "tokens": i, **found}
        for i, ((_, reference), (found, _)) in enumerate(zip(pairs, measured, strict=True), start=1)
    ]
    said = scores.summary(rows, [counts for _, counts in measured])
    return {line[:11].strip(): line[12:] for line in said}


def test_corpus_bleu_is_left_out_where_no_reference_has_four_tokens():
    found = lines(*[("Paris.", "Paris.")] * 6)
    assert found["bleu"] == "100 ± 0"
    assert found["corpus BLEU"] == "none: every answer or its reference is shorter than 4 tokens"
    assert lines(*[(LONG, "Paris.")] * 6)["corpus BLEU"].startswith("none")
    assert lines(*[("Paris.", LONG)] * 6)["corpus BLEU"].startswith("none")
    assert lines(*[(LONG, LONG)] * 6)["corpus BLEU"] == "100 ± 0"


def test_corpus_bleu_says_of_how_many_it_tells_little():
    said = lines(*[("Paris.", "Paris.")] * 5, *[(LONG, LONG)] * 3)["corpus BLEU"]
    assert said.endswith("; 5 of 8 answers or their references are shorter than 4 tokens")
    assert ";" not in lines(*[("Paris.", "Paris.")] * 3, *[(LONG, LONG)] * 5)["corpus BLEU"]


@pytest.mark.parametrize(("prompts", "shown"), [(1, "1 over 1 prompt"), (4, "2.5 over 4 prompts"), (5, "3 ± 0.707")])
def test_a_handful_of_prompts_has_no_standard_error(prompts, shown):
    found = lines(*[(LONG, LONG)] * prompts)
    assert found["tokens"] == shown
    assert ("±" in found["corpus BLEU"]) == (prompts == 5)
