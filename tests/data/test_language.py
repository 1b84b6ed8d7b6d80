from pathlib import Path

import pytest

from rlhf_lib.data.prepare.language import check_languages, foreign_language, foreign_response

FRENCH = "Quelle est la capitale de la France et combien d'habitants compte-t-elle aujourd'hui ?"
ENGLISH = "What is the capital of France, and how many people live there today?"
SHORT_ANSWERS = Path(__file__).with_name("short_answers.txt")


@pytest.mark.parametrize("text", ["No.", "42", "Teeth.", "Athens.", "Hoot.", "Oui.", "", "!!!", "1 + 2 = 3", "是的"])
def test_a_few_letters_are_never_foreign(text):
    assert foreign_language(text, ["en"], 0.0) is None


def test_short_answers_are_no_foreign_responses():
    answers = SHORT_ANSWERS.read_text(encoding="utf-8").splitlines()
    assert len(set(answers)) >= 120
    assert [answer for answer in answers if foreign_response(answer, ["en"], 0.5)] == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (FRENCH, "fr"),
        ("Je ne sais pas du tout ce que vous voulez dire.", "fr"),
        ("La respuesta correcta es la segunda opción de la lista.", "es"),
        ("Ich weiß es leider nicht genau, aber ich denke schon.", "de"),
        ("Non lo so, ma penso che sia vero.", "it"),
        ("Não sei, mas acho que é verdade mesmo.", "pt"),
        ("Ik weet het niet, maar ik denk het wel.", "nl"),
        ("Jag vet inte, men jag tror att det är sant.", "sv"),
        ("Nie wiem, ale myślę, że to prawda.", "pl"),
        ("Bilmiyorum ama bence bu doğru bir cevap değil.", "tr"),
        ("Tôi không biết nhưng tôi nghĩ điều đó đúng.", "vi"),
        ("Δεν ξέρω, αλλά νομίζω ότι είναι αλήθεια.", "el"),
        ("Я не знаю, но думаю, что это правда.", "ru"),
        ("لا أعرف ولكن أعتقد أن هذا صحيح تماما", "ar"),
        ("मुझे नहीं पता लेकिन मुझे लगता है कि यह सच है", "hi"),
        ("저는 모르지만 그것이 사실이라고 생각합니다.", "ko"),
        # few words or none between spaces, but of a script that is not English's
        ("我不知道，但是我认为这是真的。", "zh"),
        ("今日はとても良い天気なので、公園へ散歩に行きました。", "ja"),
    ],
)
def test_a_foreign_sentence_is_foreign_everywhere(text, language):
    assert foreign_response(text, ["en"], 0.5) == foreign_language(text, ["en"], 0.5) == language
    assert foreign_response(text, ["en", language], 0.5) is None


def test_a_short_prompt_is_judged_where_a_short_response_is_not():
    assert foreign_language("Les Misérables", ["en"], 0.5) == "fr"
    assert foreign_response("Les Misérables", ["en"], 0.5) is None
    assert foreign_language(ENGLISH, ["en"], 0.5) is None


def test_the_beginning_of_a_long_text_decides():
    assert foreign_language(ENGLISH * 40 + FRENCH * 400, ["en"], 0.5) is None
    assert foreign_language(FRENCH * 40 + ENGLISH * 400, ["en"], 0.5) == "fr"


def test_code_is_in_no_language():
    assert foreign_language("def add(a, b):\n    return a + b\n", ["en"], 0.5) is None


def test_no_languages_is_no_filter():
    assert foreign_language(FRENCH, [], 0.0) is None


def test_confidence_of_one_drops_only_the_certain():
    assert foreign_language("une baguette", ["en"], 0.0)
    assert foreign_language("une baguette", ["en"], 1.0) is None


@pytest.mark.parametrize("code", ["english", "EN", "xx", ""])
def test_unknown_codes_name_known_ones(code):
    with pytest.raises(ValueError, match="such as en, de"):
        check_languages(["en", code])
