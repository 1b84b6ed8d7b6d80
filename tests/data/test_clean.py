import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rows import FRENCH, PARAMS, responses, row, run

from rlhf_lib.common.rows import make_row
from rlhf_lib.data.prepare.clean import clean, clean_lines
from rlhf_lib.data.prepare.length import Tokens, load_tokens

ENGLISH = replace(PARAMS, languages=["en"])
DIALOGUE = [
    {"role": "system", "content": "s1 s2"},
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d e f"},
]


def save(tokenizer, folder):
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The directory of a tokenizer whose tokens are words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return save(tokenizer, tmp_path_factory.mktemp("words") / "model")


def bpe():
    """A byte-level BPE as GPT-2's: most words are one token only after a space, and é is two."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog sat on the cat"], trainer)
    return tokenizer


def texts(cleaned):
    return [response["content"] for response in cleaned.row["responses"]]


def reasons(cleaned):
    """Why the prompt is dropped, or else why responses are."""
    return cleaned.dropped.reason if cleaned.dropped else [dropped.reason for dropped in cleaned.dropped_responses]


def test_text_is_tidied_and_repeats_are_dropped():
    cleaned = clean(row(" q\r\nr ", (" yes\r\n", 3.0), ("yes", 9.0), (" \n\u200b", 5.0), ("a\rb", None)), PARAMS)
    assert cleaned.row["prompt"][0]["content"] == "q\nr"
    assert cleaned.row["responses"] == responses(("yes", 3.0), ("a\nb", None))
    assert reasons(cleaned) == ["duplicate_response", "empty_response"]


@pytest.mark.parametrize("blank", ["", " \r\n", "\u200b", "\ufeff "])
def test_a_blank_prompt_is_dropped(blank):
    cleaned = clean(row(blank), PARAMS)
    assert (reasons(cleaned), cleaned.row) == ("empty_prompt", None)


def test_a_prompt_alone_is_kept_but_not_one_that_lost_its_responses():
    assert clean(make_row("s", row()["prompt"], []), PARAMS).row["responses"] == []
    assert reasons(clean(row("Why?", (" ", 3.0)), PARAMS)) == "no_response"


@pytest.mark.parametrize(("limit", "kept"), [(None, ["No.", "Why?", "é"]), (3, ["No.", "Why?"]), (4, ["Why?"])])
def test_answers_that_are_too_short_are_dropped(limit, kept):
    """In characters, after the blank space around them is gone."""
    cleaned = clean(
        row("Is it?", (" No.  ", 3.0), ("Why?", 2.0), ("é", 1.0)), replace(PARAMS, min_response_chars=limit)
    )
    assert texts(cleaned) == kept
    assert reasons(cleaned) == ["response_too_short"] * (3 - len(kept))


def test_foreign_texts_are_dropped():
    cleaned = clean(row("What is the capital of France?", (FRENCH, 9.0), ("Paris.", 7.0), ("42", 1.0)), ENGLISH)
    assert (texts(cleaned), reasons(cleaned)) == (["Paris.", "42"], ["foreign_response"])
    assert cleaned.dropped_responses[0][1:] == (FRENCH, "fr")
    assert clean(row(FRENCH), ENGLISH).dropped == ("foreign_prompt", FRENCH, "fr")
    assert clean(row(FRENCH), PARAMS).dropped is None
    assert reasons(clean(row("What is it?", (FRENCH, 9.0)), ENGLISH)) == "no_response"


def test_the_language_of_a_dialogue_is_that_of_its_last_question():
    turns = [("user", FRENCH), ("assistant", FRENCH), ("user", "Please tell me that in plain English instead.")]
    assert clean(row([{"role": role, "content": text} for role, text in turns]), ENGLISH).dropped is None


@pytest.mark.parametrize("pattern", ["s1 s2", "^c$", r"e\s+f", "(?i)D E"])
def test_a_pattern_in_any_message_drops_the_prompt(pattern):
    assert reasons(clean(row(DIALOGUE), replace(PARAMS, drop_patterns=["nothing", pattern]))) == "prompt_pattern"


def test_a_pattern_drops_the_responses_that_have_it():
    params = replace(PARAMS, drop_patterns=[r"As an AI\b", "http"])
    cleaned = clean(row("Why?", ("As an AI, no", 1.0), ("As an AIX, yes", 2.0), ("see http://x", 3.0)), params)
    assert (texts(cleaned), reasons(cleaned)) == (["As an AIX, yes"], ["response_pattern"] * 2)


def test_long_texts_are_dropped(words):
    params = replace(PARAMS, tokenizer_name_or_path=words, max_prompt_tokens=8, max_response_tokens=2)
    cleaned = clean(row(DIALOGUE, ("one two", 1.0), ("one two three", 2.0)), params)
    assert (texts(cleaned), reasons(cleaned)) == (["one two"], ["response_too_long"])
    assert reasons(clean(row(DIALOGUE), replace(params, max_prompt_tokens=7))) == "prompt_too_long"
    assert clean(row("a " * 99), replace(params, max_prompt_tokens=None)).dropped is None


def test_long_responses_lose_their_end(words):
    params = replace(PARAMS, tokenizer_name_or_path=words, max_response_tokens=2, too_long="truncate")
    cleaned = clean(row("a b c", ("one two", 1.0), ("one\n two \nthree", 2.0), ("one  two four", 3.0)), params)
    assert texts(cleaned) == ["one two", "one\n two", "one  two"]
    assert (cleaned.truncated, cleaned.dropped) == (["response", "response"], None)
    same = clean(row("a b c", ("one two", 1.0), ("one two three", 2.0)), params)
    assert (texts(same), reasons(same)) == (["one two"], ["duplicate_response"])


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (8, ["s1 s2", "a b", "c", "d e f"]),
        (7, ["s1 s2", "d e f"]),
        (5, ["s1 s2", "d e f"]),
        (4, ["d e f"]),
        (2, ["e f"]),
        (1, ["f"]),
    ],
)
def test_long_dialogues_lose_their_oldest_turns(words, limit, expected):
    params = replace(PARAMS, tokenizer_name_or_path=words, max_prompt_tokens=limit, too_long="truncate")
    cleaned = clean(row(DIALOGUE), params)
    assert [message["content"] for message in cleaned.row["prompt"]] == expected
    assert cleaned.truncated == ["prompt"] * (limit < 8)


def test_prompts_that_are_the_same_once_cut_are_duplicates(words):
    params = replace(PARAMS, tokenizer_name_or_path=words, max_prompt_tokens=2, too_long="truncate")
    done = run([row("a b c"), row("x B, c!")], params)
    assert done.tally.dropped_rows == {"duplicate_prompt": {"s": 1}}
    assert done.tally.truncated == {"prompt": {"s": 2}}


ROLES = st.lists(st.sampled_from(["user", "assistant"]), max_size=3).map(lambda roles: ["user", *roles, "user"])
LETTERS = st.text("ab é\n\u200b", max_size=9) | st.sampled_from(["the cat sat on the mat", "été 😀 the dog"])


@settings(deadline=None)
@given(st.data(), st.booleans(), st.integers(1, 6))
def test_a_cut_dialogue_is_its_end_and_begins_with_the_user(data, with_system, limit):
    turns = [{"role": role, "content": data.draw(LETTERS)} for role in data.draw(ROLES)]
    prompt = [{"role": "system", "content": data.draw(LETTERS)}] * with_system + turns
    fitted = Tokens(bpe()).fit(prompt, limit)
    assert fitted[0]["role"] in ("user", "system") and fitted[-1]["role"] == "user"
    rest = fitted[fitted[0]["role"] == "system" :]
    assert [m["role"] for m in rest] == [m["role"] for m in turns[-len(rest) :]]
    assert rest[:-1] == turns[-len(rest) : -1]
    assert turns[-1]["content"].strip().endswith(rest[-1]["content"].strip())


@settings(deadline=None)
@given(LETTERS, st.integers(1, 6))
def test_a_cut_text_has_at_most_so_many_tokens(text, limit):
    tokens = Tokens(bpe())
    head, tail = tokens.head(text, limit), tokens.tail(text, limit)
    assert text.startswith(head.lstrip()) or head in text
    assert tail in text
    assert max(tokens.count_text(head), tokens.count_text(tail)) <= limit


def test_what_a_tokenizer_cuts_and_pads_itself_is_no_matter(tmp_path):
    tokenizer = bpe()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=6)
    tokens = load_tokens(save(tokenizer, tmp_path / "model"), None)
    assert [tokens.count_text(text) for text in ("x", "x y", "x y z " * 3)] == [1, 3, 18]


@pytest.mark.parametrize("content", [None, "{}", "[", ""])
def test_a_directory_without_a_tokenizer_ends_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    params = replace(PARAMS, tokenizer_name_or_path=str(tmp_path), max_response_tokens=3)
    with pytest.raises(SystemExit) as error:
        clean(row(), params)
    assert str(error.value).startswith(f"params.yaml: prepare.tokenizer_name_or_path: {tmp_path}/tokenizer.json is not")
    assert "\n" not in str(error.value)


CONTENT = st.text("ab .\r\n\u200b", max_size=6)


@given(CONTENT, st.lists(st.tuples(CONTENT, st.none() | st.floats(0, 9)), min_size=1, max_size=5))
def test_what_is_clean_stays_as_it_is(prompt, scored):
    before = row(prompt, *scored)
    cleaned = clean(before, PARAMS)
    if cleaned.row is None:
        assert cleaned.dropped is not None
    else:
        again = clean(cleaned.row, PARAMS)
        assert (again.row, again.key, again.dropped_responses) == (cleaned.row, cleaned.key, [])
        assert len(cleaned.row["responses"]) + len(cleaned.dropped_responses) == len(before["responses"])


def test_keys_are_those_of_the_normalised_prompt_and_the_seed():
    keys = [clean(row(text), PARAMS).key for text in ("What is it?", " what IS it", "what is that")]
    assert keys[0] == keys[1] != keys[2]
    assert clean(row("What is it?"), replace(PARAMS, seed=1)).key != keys[0]


def test_lines_are_cleaned_in_order():
    lines = [(f"rows: line {n}", json.dumps(row(text)).encode()) for n, text in enumerate((" a\r\n", " ", "é"))]
    (first, _), (none, dropped), (third, _) = clean_lines(PARAMS, lines)
    assert [json.loads(line)["prompt"][0]["content"] for line in (first, third)] == ["a", "é"]
    assert (none, dropped.dropped.reason) == (b"", "empty_prompt")
    assert first.endswith(b"}\n")


@pytest.mark.parametrize("line", [b"3", b"{", b"[" * 100_000, b"\xff", b"", b'{"id": "x"}', b'{"id": "\\ud800"}'])
def test_a_line_that_is_no_row_is_named(line):
    with pytest.raises(SystemExit) as error:
        clean_lines(PARAMS, [("rows: line 1", json.dumps(row()).encode()), ("rows: line 2", line)])
    assert str(error.value).startswith("rows: line 2: not a ")
    assert "\n" not in str(error.value)
