"""How far scores moved between two runs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
_BINS = 10_000
_QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Moves:
    """How far extraction probabilities moved, of requests that both runs judged.

    Attributes:
        judged: How many they are.
        unmoved: How many have the same probability to the bit.
        up: How many are more likely extraction now.
        down: How many are less likely.
        mean: The mean size of a move.
        largest: The largest size.
        quantiles: Of the size, by their share; to 0.0001, rounded up.
    """

    judged: int
    unmoved: int
    up: int
    down: int
    mean: float
    largest: float
    quantiles: dict[str, float]


class MoveCounter:
    """Adds moves up in bounded memory."""

    def __init__(self) -> None:
        """Begin with none."""
        self._sizes = np.zeros(_BINS + 1, np.int64)
        self._unmoved = self._up = self._down = 0
        self._sum = self._largest = 0.0

    def add(self, before: Probabilities, after: Probabilities) -> None:
        """Take the (n,) probabilities of the same requests in both runs."""
        moves = after - before
        sizes = np.abs(moves)
        self._sizes += np.bincount(np.ceil(sizes * _BINS).astype(np.int64), minlength=_BINS + 1)
        self._unmoved += int((moves == 0).sum())
        self._up += int((moves > 0).sum())
        self._down += int((moves < 0).sum())
        self._sum += float(sizes.sum())
        self._largest = max(self._largest, float(sizes.max(initial=0.0)))

    @property
    def moves(self) -> Moves:
        """The sums so far."""
        judged = int(self._sizes.sum())
        reached = np.cumsum(self._sizes)
        places = [int(np.searchsorted(reached, share * judged)) for share in _QUANTILES]
        quantiles = {f"{share:g}": place / _BINS for share, place in zip(_QUANTILES, places, strict=True)}
        mean = self._sum / judged if judged else 0.0
        return Moves(judged, self._unmoved, self._up, self._down, mean, self._largest, quantiles if judged else {})
