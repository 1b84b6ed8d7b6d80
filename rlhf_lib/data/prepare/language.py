"""Which texts are in a language that is not wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any

MIN_LETTERS = 10  # below this the detector guesses: "No." and "Teeth." are answers, not Romanian
MIN_WORDS = 6  # "Rio de Janeiro" and "Les Misérables" are answers to English questions
LETTER = re.compile(r"[^\W\d_]")
WORD = re.compile(r"\w+")
LATIN_END = "\u0250"  # other scripts may write without spaces
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


def foreign_language(text: str, languages: Sequence[str], confidence: float, min_words: int = 0) -> str | None:
    """The code of the language `text` is in where that is surely none of `languages`, else None.

    `confidence` (0 to 1) is the probability the detector must give. A text of fewer than `min_words` words in Latin
    letters is of any language. No `languages` means no filter. Raises `ValueError` for an unknown code in `languages`.
    """
    check_languages(languages)
    if not languages:
        return None
    text = text[:MAX_CHARS]
    letters = LETTER.findall(text)
    if len(letters) < MIN_LETTERS:
        return None
    if max(letters) < LATIN_END and len(list(islice(WORD.finditer(text), min_words))) < min_words:
        return None
    code, probability = _identifier().classify(text)
    if code in languages or code == NO_LANGUAGE or probability < confidence:
        return None
    return str(code)


def foreign_response(text: str, languages: Sequence[str], confidence: float) -> str | None:
    """As `foreign_language`, for an answer: a short one follows its prompt, whose language is known to be wanted."""
    return foreign_language(text, languages, confidence, MIN_WORDS)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
