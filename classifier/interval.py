"""The interval of a share."""

import math

_NORMAL = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of Wilson for a share, which takes what is counted to be drawn independently.

    Args:
        hits: How many of them count.
        total: How many there are.

    Returns:
        Lower and upper limit, in [0, 1]; (0, 1) where there are none.
    """
    if not total:
        return 0.0, 1.0
    share, square = hits / total, _NORMAL * _NORMAL / total
    middle = (share + square / 2) / (1 + square)
    half = _NORMAL * math.sqrt(share * (1 - share) / total + square / total / 4) / (1 + square)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
