"""The key taken out of what a server says."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode

import pytest

from rlhf_lib.llm_judge.masking import Mask

KEY = "sk-aB3/d+F6=h_J9"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f"{KEY} and {KEY}{KEY}.", "*** and ***."),
        ("You sent sk-aB3/d+F6", "You sent ***"),  # cut behind
        ("it ends in +F6=h_J9", "it ends in ***"),  # and before
        ("SK-AB3/D+F6=H_J9", "***"),
        ("sk-aB3%2Fd%2bF6%3Dh_J9", "***"),
        ("sk-aB3%252Fd%25252BF6=h_J9", "***"),
        (r"{\"key\": \"sk-aB3\/d+F6=h_J9\"}", r"{\"key\": \"***\"}"),
        (r"s\u006b\u002daB3\\u002fd+F6=h_J9", "***"),
        (r"b'sk\x2daB3\x2Fd+F6=h_J9'", "b'***'"),
        ("sk&#45;aB3&#x2F;d&#043;F6=h_J9", "***"),
        ("736B2d6142332f642b46363d685f4a39", "***"),
        ("%41sk-aB3/d+F6=h_J9", "%41***"),  # what is no part of the key stays as it was
        ("an error of %41 \\u0041 &#65; alone", "an error of %41 \\u0041 &#65; alone"),
        ("sk-aB3/", "sk-aB3/"),  # seven characters
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        ("", ""),
    ],
)
def test_a_key_is_masked_whole_cut_or_encoded(said, expected):
    assert Mask(KEY)(said) == expected


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", ":", "me:", "user:"])
def test_of_base64_at_any_offset_nothing_is_left_that_gives_the_key_away(encode, before):
    encoded = encode(f"{before}{KEY}:x".encode()).decode()
    masked = Mask(KEY)(f"Basic {encoded}")
    start, _, end = masked.removeprefix("Basic ").partition("***")
    assert "***" in masked and len(start) <= len(before) * 4 / 3 + 3 and len(end) <= 6


@pytest.mark.parametrize(
    ("key", "said", "expected"),
    [
        ("", "A", "A"),
        ("A", "A is better than a B", "A is better than a B"),
        ("tie", "tie", "tie"),
        ("EMPTY", "The key EMPTY, not EMPTY1", "The key ***, not EMPTY1"),
        ("abc123", "Bearer abc123: no such key: xabc1234", "Bearer ***: no such key: xabc1234"),
    ],
)
def test_a_short_key_is_masked_as_a_word_and_a_placeholder_nowhere(key, said, expected):
    assert Mask(key)(said) == expected
