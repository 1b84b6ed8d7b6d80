"""Which texts are in a language that is not wanted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

MIN_LETTERS = 10  # below this the detector guesses: "No." and "Teeth." are answers, not Romanian
MAX_CHARS = 2000  # the language of a long text shows in its beginning; reading on only costs time
NO_LANGUAGE = "zxx"  # the detector's class for code, numbers and the like


def check_languages(languages: Sequence[str]) -> None:
    """Raise `ValueError` where the detector does not know one of the ISO 639-1 codes."""
    if not languages:
        return  # no filter: the detector's model need not be read
    known = _identifier().nb_classes
    for code in languages:
        if code not in known:
            raise ValueError(f"no language {code!r}; give ISO 639-1 codes such as en, de, es, fr, ja, zh")


def foreign_language(text: str, languages: Sequence[str], confidence: float) -> str | None:
    """The code of the language `text` is in where that is surely none of `languages`, else None.

    `confidence` (0 to 1) is the probability the detector must give. No `languages` means no filter.
    Raises `ValueError` for an unknown code in `languages`.
    """
    check_languages(languages)
    if not languages or sum(char.isalpha() for char in text) < MIN_LETTERS:
        return None
    code, probability = _identifier().classify(text[:MAX_CHARS])
    if code in languages or code == NO_LANGUAGE or probability < confidence:
        return None
    return str(code)


def foreign(text: str, languages: Sequence[str], confidence: float) -> bool:
    """Whether `text` is surely in none of `languages`; see `foreign_language`."""
    return foreign_language(text, languages, confidence) is not None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
