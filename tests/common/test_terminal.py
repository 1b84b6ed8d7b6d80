"""What of a text is shown."""

from rlhf_lib.common.terminal import visible


def test_what_would_steer_a_terminal_is_not_shown():
    assert visible("a\x1b[2Jb\rc\x07\n\td") == "a�[2Jb�c�\n\td"
    assert visible("\x00 \x7f \x85 \x9b31m \u202eabc\u202c \u2067 \ud83d") == "� � � �31m �abc� � �"


def test_every_script_is_shown():
    texts = "é 你好\u3000世界 می\u200cخواهم 👩\u200d🔬 \xa0« \u200b\xad שלום a\u0301"
    assert visible(texts) == texts
