"""What a prompt will cost, guessed from its characters: the queue is bounded before anything is tokenised."""

import re

from classifier.windows import WindowPlan

WINDOW_TOKENS = 24
"""What a window costs beside its tokens: the search, the head, its share of the canonical text. From the times in
docs/performance.md: with it a millisecond holds the same cost at 16 and at 256 tokens."""
_MARKS = bytes(code for code in range(33, 127) if not chr(code).isalnum())
_DIGITS = b"0123456789"
_LOOKED_AT = 2_000
_CHARS_A_TOKEN = 16
_SIGNS = ("&#", "%2", "\\u", "**", "</")
_LONG_WORD = re.compile(r"[!-~]{40}")
_LEET = re.compile(r"[a-z][013457@$][a-z]")
_MIXED = re.compile(
    r"[A-Za-z][\u0370-\u058f]|[\u0370-\u058f][A-Za-z]|[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff]"
)


def tokens_of(text: str) -> int:
    """Guess how many tokens a text has.

    Args:
        text: A prompt as it was sent.

    Returns:
        At least 1. On the seed corpus nine of ten guesses are between 0.8 and 1.25 times the tokens.
    """
    if text.isascii():
        raw, beyond = text.encode(), 0
    else:
        raw = text.encode("utf-8", "surrogatepass")
        beyond = len(raw) - len(text)
    marks = len(raw) - len(raw.translate(None, _MARKS))
    digits = len(raw) - len(raw.translate(None, _DIGITS))
    guess = 0.2 * len(text) + 0.4 * beyond + 0.85 * marks + 0.5 * digits
    return max(1, round(guess), raw.count(b" "))


def cost_of(text: str, plan: WindowPlan) -> int:
    """Guess how much the encoder will read for a prompt: both scales of windows, and two views where it looks disguised.

    Args:
        text: A prompt as it was sent.
        plan: How prompts are cut.

    Returns:
        Window tokens, at least 1.
    """
    tokens = tokens_of(text[: _CHARS_A_TOKEN * plan.budget])  # what comes after it is over the budget
    cost = _scale(tokens, plan)
    if tokens > plan.finer.length:
        cost += _scale(tokens, plan.finer)
    return 2 * cost if looks_disguised(text) else cost


def looks_disguised(text: str) -> bool:
    """Guess from its first 2,000 characters whether a text will get a second view.

    Args:
        text: A prompt as it was sent.

    Returns:
        True for most of the disguises that are undone, and for one ordinary prompt in ten.
    """
    head = text[:_LOOKED_AT]
    return (
        _LONG_WORD.search(head) is not None  # encoded, or letters with marks between; Chinese has no spaces
        or head.count(" ") > 0.3 * len(head)  # letters with spaces between
        or any(sign in head for sign in _SIGNS)
        or _LEET.search(head) is not None
        or (not head.isascii() and _MIXED.search(head) is not None)
    )


def _scale(tokens: int, plan: WindowPlan) -> int:
    """The tokens of the windows that cut returns, and what each costs beside them."""
    if tokens <= plan.length:
        return tokens + WINDOW_TOKENS
    windows = 1 - (plan.length - tokens) // (plan.length - plan.overlap)
    return min(windows, plan.budget // plan.length) * (plan.length + WINDOW_TOKENS)
