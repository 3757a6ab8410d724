"""Canonical text: what is scored, whatever invisible characters the prompt was dressed in."""

import re
import unicodedata
from functools import cache

from classifier.errors import EmptyPrompt, NotUnicode, PromptTooLong

CANONICAL_VERSION = 1
"""Counts the forms of this canonical text; embeddings of different versions are not mixed."""

# Format characters (zero-width, bidi, tags, soft hyphens), variation selectors, and controls that are no white space.
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LINES = re.compile("\r\n|[\r\x0b\x0c\u0085\u2028\u2029]")
_MOST_MARKS = 30
"""Combining marks in a row that are kept, as in Unicode's stream-safe form; NFKC sorts a run in quadratic time."""
_MOST_SEARCHED = 16_384
_LAST_MARK = 0x1F000
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINE_FROM = re.compile("\n[ \n]")
_BLANK_LINES = re.compile(r"\n[\s]*\n\s*")


def canonical(text: str, max_chars: int) -> str:
    """The canonical form: NFKC, without invisible characters, runs of white space folded.

    Args:
        text: A prompt.
        max_chars: The most characters that are read.

    Returns:
        Text that is its own canonical form, not empty.

    Raises:
        PromptTooLong: When the prompt has more than max_chars characters.
        NotUnicode: When the prompt holds an unpaired surrogate.
        EmptyPrompt: When nothing is left.
    """
    if len(text) > max_chars:
        raise PromptTooLong(f"the prompt has {len(text)} characters, at most {max_chars} are read: shorten or split it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotUnicode("the prompt holds an unpaired surrogate: send valid Unicode text") from None
    folded = fold(text)
    if not folded:
        raise EmptyPrompt("the prompt is empty: send text with at least one visible character")
    if len(folded) > max_chars:
        raise PromptTooLong(
            f"the prompt has {len(folded)} characters in canonical form, at most {max_chars} are read: shorten or split it"
        )
    return folded


def fold(text: str) -> str:
    """The canonical form of any text, even an empty one."""
    if text.isascii() and text.replace("\n", " ").isprintable():  # has neither invisible characters nor other spaces
        if "  " in text:
            text = _BLANKS.sub(" ", text)
        return (_BLANK_LINES.sub("\n\n", text) if _BLANK_LINE_FROM.search(text) else text).strip()
    text = _LINES.sub("\n", text)
    plain = text.isascii()
    if not plain:
        text = _mark_runs().sub(r"\1", text)
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    if not plain:
        # Removing a character may bring two together that NFKC composes, and join runs of marks.
        text = unicodedata.normalize("NFKC", _mark_runs().sub(r"\1", text))
    return _BLANK_LINES.sub("\n\n", _BLANKS.sub(" ", text)).strip()


def source_span(text: str, first: int, last: int, total: int) -> tuple[int, int]:
    """Where in the original text a span of its canonical form stands.

    Args:
        text: The original text.
        first: The span's first code point in fold(text).
        last: The code point after the span's last.
        total: The length of fold(text).

    Returns:
        The span in the original text. In a text of over 16,384 characters it is estimated from the lengths, because
        the exact search folds the text some thirty times.
    """
    if len(text) > _MOST_SEARCHED:
        return first * len(text) // total, -(-last * len(text) // total)
    # The end of a prefix that holds the first character, less that character.
    return source_offset(text, first + 1) - 1, source_offset(text, last)


@cache
def _mark_runs() -> re.Pattern[str]:
    """Matches runs of combining marks over the limit; the group is what is kept."""
    marks = "".join(map(re.escape, filter(unicodedata.combining, map(chr, range(_LAST_MARK)))))
    return re.compile(f"([{marks}]{{{_MOST_MARKS}}})[{marks}]+")


def source_offset(text: str, offset: int) -> int:
    """Where in the original text an offset of its canonical form stands.

    Args:
        text: The original text.
        offset: A code point offset into fold(text).

    Returns:
        The smallest length of a prefix of the text whose canonical form reaches the offset; exact but for a
        position inside a run that the canonical form composes or folds.
    """
    low, high = 0, len(text)
    while low < high:
        middle = (low + high) // 2
        if len(fold(text[:middle])) < offset:
            low = middle + 1
        else:
            high = middle
    return low
