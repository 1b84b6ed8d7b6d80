"""What comes before someone's eyes: text of a user's rows, or of a model, and lists of names."""

from collections.abc import Sequence

# Control characters, which steer a terminal; those that turn the direction of what follows; halves of pairs, which no
# encoding has.
_STEERING = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
_SHOWN = {code: "�" for code in _STEERING if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """`text` with what would steer a terminal or a page replaced: rows and models may say any character."""
    return text.translate(_SHOWN)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The names for one line: the first, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
