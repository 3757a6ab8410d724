"""Names that come from a log, such as accounts and files, made fit to be looked at: they may be written to deceive."""

_MOST = 64
_LONGEST = 1_024
"""Of an input's name, which people copy."""


def shown(name: str, most: int = _MOST) -> str:
    r"""A name as it may be printed or put into a page.

    Args:
        name: Any text; what a caller of the model chose.
        most: The most characters that are shown of it.

    Returns:
        The name with each character that is not visible, or that changes how others are read (control, direction, line
        ends, half surrogates), spelt like \u202e, and its end cut off where it is too long. It is not escaped for HTML.
    """
    cut = name[:most]
    text = "".join(
        letter if letter.isprintable() else letter.encode("ascii", "backslashreplace").decode() for letter in cut
    )
    text = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    return text if len(name) <= most else f"{text}…"


def spelt(source: str) -> str:
    """An input's name as messages give it: whoever may put a file into a folder of logs chooses it."""
    return shown(source, _LONGEST)
