"""Counts over time in bins whose width follows the span of what is counted; a few wild clocks do not stretch it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
MINUTE = 60 * 10**6
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_SHOWN_WIDTHS = (MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY)
_MOST_SHOWN = 100
_MOST_HELD = 20_000
_TAIL = 0.001


@dataclass(frozen=True, slots=True)
class Bins:
    """Counts in bins that follow each other.

    Attributes:
        start: When the first bin begins, in microseconds since 1970 UTC.
        width: Of each bin, in microseconds.
        counts: (bins, measures).
        outside: How many rows lie far before or after them.
    """

    start: int
    width: int
    counts: Counts
    outside: int


class Timeline:
    """Counts in minutes, in hours when there are too many of those, and so on: memory is bounded for any times."""

    def __init__(self, measures: int) -> None:
        """Begin empty.

        Args:
            measures: How many things are counted.
        """
        self._measures = measures
        self._width = MINUTE
        self._held: dict[int, Counts] = {}
        self._rows: dict[int, int] = {}

    def add(self, times: NDArray[np.int64], measures: NDArray[np.bool_]) -> None:
        """Count rows.

        Args:
            times: (n,) microseconds since 1970 UTC.
            measures: (n, measures) which of them each row counts for.
        """
        bins, of_row = np.unique(times // self._width, return_inverse=True)
        sums = np.stack([np.bincount(of_row[column], minlength=len(bins)) for column in measures.T])
        rows = np.bincount(of_row, minlength=len(bins))
        for place, own, number in zip(bins.tolist(), sums.T, rows.tolist(), strict=True):
            self._count(place, own, number)
        while len(self._held) > _MOST_HELD:
            self._coarsen()

    def _count(self, place: int, sums: Counts, rows: int) -> None:
        if place in self._held:
            self._held[place] += sums
            self._rows[place] += rows
        else:
            self._held[place], self._rows[place] = sums.astype(np.int64), rows

    def _coarsen(self) -> None:
        factor = {MINUTE: 60, HOUR: 24}.get(self._width, 8)
        held, rows = self._held, self._rows
        self._held, self._rows, self._width = {}, {}, self._width * factor
        for place, sums in held.items():
            self._count(place // factor, sums, rows[place])

    def bins(self) -> Bins | None:
        """The counts to show.

        Returns:
            At most 100 bins; None when nothing was counted.
        """
        if not self._held:
            return None
        places = np.array(sorted(self._held), np.int64)
        rows = np.array([self._rows[place] for place in places.tolist()])
        first, last = self._window(places, rows)
        span = (last - first + 1) * self._width
        width = next(
            (one for one in _SHOWN_WIDTHS if one >= self._width and span <= (_MOST_SHOWN - 1) * one), self._width
        )
        while span > (_MOST_SHOWN - 1) * width:
            width *= 2
        factor = width // self._width
        begin = first // factor
        counts = np.zeros((last // factor - begin + 1, self._measures), np.int64)
        inside = places[(places >= first) & (places <= last)]
        for place in inside.tolist():
            counts[place // factor - begin] += self._held[place]
        return Bins(begin * width, width, counts, int(rows.sum() - sum(self._rows[place] for place in inside.tolist())))

    def _window(self, places: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[int, int]:
        """The first and last place; without the outermost rows where those would more than double the span."""
        share = np.cumsum(rows) / rows.sum()
        low, high = np.searchsorted(share, [_TAIL, 1.0 - _TAIL])
        first, last = int(places[low]), int(places[min(high, len(places) - 1)])
        whole = int(places[0]), int(places[-1])
        return whole if whole[1] - whole[0] <= 2 * (last - first) + DAY // self._width else (first, last)
