"""Figures as Markdown: tables, intervals, shares and points."""

import math
from collections.abc import Iterable, Sequence

from classifier.train.metrics import Interval

UNKNOWN = "–"  # noqa: RUF001  # an en dash, as tables of figures have it


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A table; what stands in the cells cannot break it.

    Args:
        heads: The columns' names.
        rows: Cells, as many in each row.
        left: How many of the first columns hold words; the others hold figures and stand right.

    Returns:
        The lines.
    """
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * left}{'---:|' * (len(heads) - left)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])


def cell(text: str) -> str:
    """Text that stands in one cell."""
    return " ".join(text.replace("|", "\\|").split()) or UNKNOWN


def code(text: str) -> str:
    """A name as code."""
    return f"`{text.replace('`', chr(39))}`"


def number(value: float) -> str:
    """A figure in [0, 1] with three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else UNKNOWN


def interval(found: Interval) -> str:
    """A figure in [0, 1] with its interval."""
    return _with_range(number(found.value), number(found.low), number(found.high))


def percent(value: float) -> str:
    """A share; small ones with a decimal more."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2%}".replace("%", " %") if 0 < abs(value) < 0.01 else f"{value:.1%}".replace("%", " %")


def percents(found: Interval) -> str:
    """A share with its interval."""
    if not math.isfinite(found.value):
        return UNKNOWN
    places = 2 if found.value < 0.01 and found.high < 0.1 else 1
    return _with_range(
        f"{found.value:.{places}%}".replace("%", " %"),
        f"{100 * found.low:.{places}f}" if math.isfinite(found.low) else UNKNOWN,
        f"{100 * found.high:.{places}f}" if math.isfinite(found.high) else UNKNOWN,
    )


def points(found: Interval) -> str:
    """A difference of shares in percentage points, with its interval."""
    if not math.isfinite(found.value):
        return UNKNOWN
    # Adding 0.0 makes -0.0 a plain zero.
    value, low, high = (round(100 * part, 1) + 0.0 for part in (found.value, found.low, found.high))
    return _with_range(f"{value:.1f}", f"{low:.1f}", f"{high:.1f}")


def _with_range(value: str, low: str, high: str) -> str:
    return UNKNOWN if value == UNKNOWN else f"{value} [{low}, {high}]"
