"""How a text is built, whatever it is about: counted for explanations; the head does not read it (decision 0009)."""

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_CHARS = 4_000
_COUNTED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("numbered lines", re.compile(r"^[ \t]*(?:\d{1,4}[.):]|[a-z][.)]|[ivx]{1,4}[.)])", re.MULTILINE)),
    ("bulleted lines", re.compile(r"^[ \t]*[-*•]\s", re.MULTILINE)),
    ("headed fields", re.compile(r"^[ \t#>*]*[A-Za-z][\w /-]{1,28}:", re.MULTILINE)),
    ("section marks", re.compile(r"^(?:#{1,6} |={3,}|-{3,}|\*{3,}|<\w+>|\[\w[\w ]*\])", re.MULTILINE)),
    (
        "placeholders",
        re.compile(r"\{\{?[A-Za-z_][\w ]{0,30}\}?\}|<[A-Za-z_][\w ]{0,30}>|\[[A-Za-z_][\w ]{0,30}\]|\b_{3,}\b|\.{3}"),
    ),
    (
        "identifiers",
        re.compile(
            r"\b(?:id|item|case|record|row|sample|seed|batch|no)[ _#:.-]{0,3}\d+|\b[A-Z]{1,5}-\d{2,}\b", re.IGNORECASE
        ),
    ),
    ("JSON marks", re.compile(r'"\w+"\s*:|\bjsonl?\b', re.IGNORECASE)),
    ("quantities", re.compile(r"\b(?:[2-9]|[1-9]\d{1,4})\b")),
    ("questions", re.compile("[?\uff1f\u00bf]")),
    (
        "code marks",
        re.compile(r"```|^\s*(?:def|class|import|return|for|if|SELECT|function|public)\b|[;{]\s*$", re.MULTILINE),
    ),
    ("first person", re.compile(r"\b(?:I|I'm|I've|my|me|we|our|us)\b|我|mi\b", re.IGNORECASE)),
    (
        "only-demands",
        re.compile(
            r"\b(?:only|nothing else|no (?:comments?|explanation|preamble|prose)|exactly|must|never|do not|don't)\b",
            re.IGNORECASE,
        ),
    ),
)
NAMES: tuple[str, ...] = ("length", "lines", *(name for name, _ in _COUNTED))
"""What each feature counts, in order."""


def structure(texts: Sequence[str]) -> NDArray[np.float32]:
    """Describe how texts are built.

    Args:
        texts: Canonical texts; the first 4,000 characters of each are read.

    Returns:
        (n, len(NAMES)) float32: ln(1 + characters), ln(1 + lines), then ln(1 + count) of each mark.
    """
    return np.array([_row(text) for text in texts], np.float32).reshape(len(texts), len(NAMES))


def _row(text: str) -> list[float]:
    read = text[:_MOST_CHARS]
    counts = (sum(1 for _ in pattern.finditer(read)) for _, pattern in _COUNTED)
    return [math.log1p(len(text)), math.log1p(read.count("\n")), *map(math.log1p, counts)]
