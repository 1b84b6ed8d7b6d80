"""Text of a user's rows, or of a model, on a terminal."""


def visible(text: str) -> str:
    """`text` with what would steer a terminal replaced: rows and models may say any byte."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)
