"""Memory that only grows, shared by snapshots: each sees its own first entries, and appending copies nothing old."""

import threading
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

D = TypeVar("D", bound=np.generic)
_LEAST = 256
_AT_ONCE = 16_384
_GROWTH = 4
"""A full room is left for one that is larger by a quarter, so that an entry is copied four times at most, on average."""


class _Room(Generic[D]):
    """An array of which the first entries are taken."""

    def __init__(self, array: NDArray[D], taken: int) -> None:
        self.array = array
        self.taken = taken
        self.lock = threading.Lock()


class Grown(Generic[D]):
    """An immutable array that can be extended cheaply; safe to read while another is made of it."""

    def __init__(self, values: NDArray[D]) -> None:
        """Hold values, which nobody may change from now on."""
        self._room = _Room(values, len(values))
        self.view = _read_only(values)

    def extended(self, values: NDArray[D] | Sequence[Any]) -> "Grown[D]":
        """A new array that holds these values after its own.

        Args:
            values: (n, ...) of the same width; copied.

        Returns:
            The array. It shares this one's memory, unless that was extended before.

        Raises:
            ValueError: When the values are of another width.
        """
        if isinstance(values, np.ndarray) and values.shape[1:] != self.view.shape[1:]:
            raise ValueError(f"widths {self.view.shape[1:]} and {values.shape[1:]} must match exactly")
        size, wanted = len(self.view), len(self.view) + len(values)
        room = self._room
        with room.lock:
            mine = room.taken == size and wanted <= len(room.array)
            if mine:
                room.taken = wanted
        if not mine:
            array = np.empty((max(_LEAST, wanted + wanted // _GROWTH), *self.view.shape[1:]), self.view.dtype)
            array[:size] = self.view
            room = _Room(array, wanted)
        for start in range(0, len(values), _AT_ONCE):  # Python's own objects keep all other threads waiting meanwhile
            some = values[start : start + _AT_ONCE]
            room.array[size + start : size + start + len(some)] = some
        grown: Grown[D] = object.__new__(Grown)
        grown._room, grown.view = room, _read_only(room.array[:wanted])
        return grown

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.view)

    def __reduce__(self) -> tuple[type["Grown[D]"], tuple[NDArray[D]]]:
        """Its own entries alone travel to another process."""
        return Grown, (self.view.copy(),)


def _read_only(values: NDArray[D]) -> NDArray[D]:
    view = values.view()
    view.flags.writeable = False
    return view
