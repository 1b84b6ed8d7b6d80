import pytest

from rlhf_lib.language import check_languages, foreign, foreign_language

FRENCH = "Quelle est la capitale de la France et combien d'habitants compte-t-elle aujourd'hui ?"
ENGLISH = "What is the capital of France, and how many people live there today?"


@pytest.mark.parametrize("text", ["No.", "42", "Teeth.", "Athens.", "Hoot.", "Oui.", "", "!!!", "1 + 2 = 3", "是的"])
def test_short_answers_are_never_foreign(text):
    assert not foreign(text, ["en"], 0.0)


def test_sure_detections():
    assert foreign(FRENCH, ["en"], 0.5)
    assert foreign_language(FRENCH, ["en"], 0.5) == "fr"
    assert not foreign(FRENCH, ["en", "fr"], 0.5)
    assert not foreign(ENGLISH, ["en"], 0.5)
    assert foreign("今日はとても良い天気なので、公園へ散歩に行きました。", ["en"], 0.5)


def test_code_is_in_no_language():
    assert not foreign("def add(a, b):\n    return a + b\n", ["en"], 0.5)


def test_no_languages_is_no_filter():
    assert not foreign(FRENCH, [], 0.0)


def test_confidence_of_one_drops_only_the_certain():
    assert foreign("une baguette", ["en"], 0.0)
    assert not foreign("une baguette", ["en"], 1.0)


@pytest.mark.parametrize("code", ["english", "EN", "xx", ""])
def test_unknown_codes_name_known_ones(code):
    with pytest.raises(ValueError, match="such as en, de"):
        check_languages(["en", code])
