"""Which language a prompt is in, so that the scorer can say that it cannot judge one that it never learnt."""

import re
from collections.abc import Sequence

from classifier.identifier import Identify, packaged

SUPPORTED = ("en", "es", "zh")
"""The languages of the seed corpus."""
CONFIDENCE = 0.95
"""Below this a guess is not acted upon; on the seed corpus 1 row in 500 is taken for a language that it is not in."""
LEAST_LETTERS = 24
_SAMPLE = 400
_PLAIN_SHARE = 0.2
_PLAIN = frozenset(
    [
        "the",
        "a",
        "an",
        "and",
        "or",
        "of",
        "to",
        "in",
        "is",
        "are",
        "be",
        "it",
        "that",
        "this",
        "for",
        "with",
        "on",
        "as",
        "by",
        "at",
        "from",
        "not",
        "you",
        "your",
        "me",
        "my",
        "we",
        "i",
        "what",
        "how",
        "why",
        "if",
        "can",
        "do",
        "does",
        "will",
        "should",
        "have",
        "has",
        "all",
        "each",
        "one",
        "two",
        "any",
        "no",
        "which",
        "who",
        "when",
        "then",
        "than",
        "but",
        "so",
        "write",
        "give",
        "make",
        "use",
        "el",
        "la",
        "los",
        "las",
        "de",
        "del",
        "que",
        "y",
        "en",
        "un",
        "una",
        "es",
        "son",
        "por",
        "para",
        "con",
        "no",
        "se",
        "su",
        "lo",
        "como",
        "más",
        "qué",
        "cómo",
        "mi",
        "tu",
        "si",
    ]  # a list of quoted words is harder to read
)
_WORD = re.compile(r"[^\W\d_]+")


def unsupported(text: str, identify: Identify | None = None, supported: Sequence[str] = SUPPORTED) -> str | None:
    """The language of a text, when it is surely none of the supported ones.

    Args:
        text: Canonical text; its beginning, middle and end are looked at.
        identify: The bundle's identifier; None takes py3langid's own.
        supported: Language codes.

    Returns:
        The code of a language, or None: supported, too short to tell, or not certain.
    """
    sample = _sampled(text)
    words = _WORD.findall(sample)
    if sum(map(len, words)) < LEAST_LETTERS and sample.isascii():
        return None
    # Most prompts are plain English or Spanish, and their commonest words say so for a hundredth of the cost.
    if sum(map(_PLAIN.__contains__, map(str.lower, words))) >= _PLAIN_SHARE * len(words):
        return None
    language, confidence = (identify or packaged())(sample)
    return language if confidence >= CONFIDENCE and language not in (*supported, "und") else None


def _sampled(text: str) -> str:
    if len(text) <= _SAMPLE:
        return text
    third = _SAMPLE // 3
    middle = len(text) // 2
    return f"{text[:third]} {text[middle : middle + third]} {text[-third:]}"
