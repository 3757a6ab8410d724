"""Prompt text made safe for a terminal: nothing in it moves the cursor, changes colours or hides."""

import unicodedata

_PICTURES = 0x2400
"""Where Unicode has pictures of the control characters, in their order."""
_HIDING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    """A text with every character that a terminal would obey, or not show, replaced by one that says what it is.

    Args:
        text: Any text; an attacker may have written it.

    Returns:
        The text: line feeds stay, tabs become spaces, an escape becomes "␛", a right-to-left override "⟨202E⟩".
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def excerpt(text: str, most: int) -> str:
    """The beginning of a text on one line, safe for a terminal.

    Args:
        text: Any text.
        most: How many characters at most.

    Returns:
        The line; "…" ends it where something was left out.
    """
    line = visible(" ".join(text[: 8 * most].split()))
    return line if len(line) <= most and len(text) <= 8 * most else f"{line[: most - 1]}…"


def _shown(character: str) -> str:
    if character == "\n":
        return character
    if character == "\t":
        return "    "
    number = ord(character)
    if number < 0x20:
        return chr(_PICTURES + number)
    if number == 0x7F:
        return "␡"
    return f"⟨{number:04X}⟩" if unicodedata.category(character) in _HIDING else character
