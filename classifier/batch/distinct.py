"""How many different names there are, in bounded memory."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

EXACT = 32_768
"""Up to so many the number is exact; above, it is estimated with a standard error of 0.6 %."""
_RANGE = 2.0**64
_WAITING = 8_192


class Distinct:
    """Counts different names by the smallest of their hashes (k minimum values)."""

    def __init__(self, exact: int = EXACT) -> None:
        """Begin empty.

        Args:
            exact: Up to so many names the count is exact.
        """
        self._most = exact
        self._smallest: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._waiting: list[int] = []
        self.is_exact = True

    def add(self, names: Iterable[str]) -> None:
        """Take names, in any order, any number of times."""
        for name in names:
            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            self._waiting.append(int.from_bytes(digest))
        if len(self._waiting) > _WAITING:
            self._merge()

    @property
    def count(self) -> int:
        """How many different names were taken."""
        self._merge()
        if self.is_exact:
            return len(self._smallest)
        return round((self._most - 1) * _RANGE / (float(self._smallest[-1]) + 1.0))

    def _merge(self) -> None:
        found = np.union1d(self._smallest, np.array(self._waiting, np.uint64))
        self.is_exact &= len(found) <= self._most
        self._smallest, self._waiting = found[: self._most].copy(), []
