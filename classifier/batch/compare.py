"""Joins the rows of two runs over the same inputs, in bounded memory: both keep their inputs' order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.batch.manifest import RunManifest, manifest_of
from classifier.batch.parts import SCORES, Part, read_parts
from classifier.errors import RunRefused


@dataclass(frozen=True, slots=True)
class Run:
    """A run's output, opened.

    Attributes:
        folder: Where it lies.
        manifest: What it says of itself.
        parts: The finished parts of each input, in its order.
    """

    folder: Path
    manifest: RunManifest
    parts: Mapping[str, Sequence[Part]]


@dataclass(frozen=True, slots=True)
class Joined:
    """Rows of one input that follow each other.

    Attributes:
        source: The input's name.
        before: The first run's rows that the second one scored as well.
        after: The second run's rows of the same requests, in the same order.
        only_before: How many requests of this stretch only the first run scored.
        only_after: How many only the second one did.
    """

    source: str
    before: pa.Table
    after: pa.Table
    only_before: int
    only_after: int


def open_run(folder: Path) -> Run:
    """Open a run.

    Args:
        folder: A run's output.

    Returns:
        The run.

    Raises:
        RunRefused: When the folder holds no run, or a damaged one.
    """
    manifest = manifest_of(folder)
    parts: dict[str, list[Part]] = {}
    for part in sorted(read_parts(folder), key=lambda part: (part.source, part.number)):
        parts.setdefault(part.source, []).append(part)
    if not parts:
        raise RunRefused(f"{folder} holds no finished part: let its run end, or name another folder")
    return Run(folder, manifest, parts)


def join(before: Run, after: Run, columns: Sequence[str]) -> Iterator[Joined]:
    """Join two runs by file, row and item.

    Args:
        before: The first run.
        after: The second one.
        columns: Which columns are read besides row and item.

    Yields:
        Stretches of each input in its order, at least one; every request of either run is in exactly one.

    Raises:
        RunRefused: When a run's rows are not in their input's order.
    """
    for source in sorted({*before.parts, *after.parts}):
        sides = _Side(before, source, columns), _Side(after, source, columns)
        while all(side.fill() for side in sides):
            # Up to the row that both have read, whatever is missing on one side is missing for good.
            end = min(side.last for side in sides)
            yield _matched(source, *(side.until(end) for side in sides))
        left = [side.rest() for side in sides]
        empty = [side.empty for side in sides]
        yield Joined(source, *empty, *left)


class _Side:
    """One run's rows of one input, read as they are needed."""

    def __init__(self, run: Run, source: str, columns: Sequence[str]) -> None:
        self._run, self._parts = run, run.parts.get(source, ())
        self._columns = ["row", "item", *columns]
        self._groups = self._read()
        self._held: pa.Table | None = None
        self._keys: NDArray[np.int64] = np.empty((0, 2), np.int64)
        self._seen = (-1, -1)
        folder = run.folder / SCORES
        some = next(one for own in run.parts.values() for one in own)
        self.empty = pq.read_schema(folder / some.name).empty_table().select(self._columns)

    @property
    def last(self) -> tuple[int, int]:
        """Row and item of the last row that is held."""
        return int(self._keys[-1, 0]), int(self._keys[-1, 1])

    def fill(self) -> bool:
        """Hold rows, if there are any left."""
        while not len(self._keys):
            self._held = next(self._groups, None)
            if self._held is None:
                return False
            self._keys = np.stack([self._held[name].to_numpy().astype(np.int64) for name in ("row", "item")], axis=1)
            self._check_order()
        return True

    def until(self, end: tuple[int, int]) -> tuple[pa.Table, NDArray[np.int64]]:
        """Take the rows up to one, and their keys."""
        rows, items = self._keys.T
        count = int(((rows < end[0]) | ((rows == end[0]) & (items <= end[1]))).sum())
        assert self._held is not None
        taken, keys = self._held.slice(0, count), self._keys[:count]
        self._held, self._keys = self._held.slice(count), self._keys[count:]
        return taken, keys

    def rest(self) -> int:
        """Count the rows that are left."""
        return len(self._keys) + sum(len(table) for table in self._groups)

    def _read(self) -> Iterator[pa.Table]:
        for part in self._parts:
            with pq.ParquetFile(self._run.folder / SCORES / part.name) as file:
                for number in range(file.num_row_groups):
                    yield file.read_row_group(number, columns=self._columns)

    def _check_order(self) -> None:
        rows, items = np.vstack([np.array([self._seen]), self._keys]).T
        if not ((np.diff(rows) > 0) | ((np.diff(rows) == 0) & (np.diff(items) > 0))).all():
            raise RunRefused(f"{self._run.folder} has rows out of their input's order: run it again in another folder")
        if len(self._keys):
            self._seen = self.last


def _matched(
    source: str, before: tuple[pa.Table, NDArray[np.int64]], after: tuple[pa.Table, NDArray[np.int64]]
) -> Joined:
    keys = np.concatenate([before[1], after[1]])
    base = keys[:, 0].min()
    left, right = ((own[:, 0] - base) * 2**31 + own[:, 1] for _, own in (before, after))
    _, first, second = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    tables = before[0].take(pa.array(first)), after[0].take(pa.array(second))
    return Joined(source, *tables, len(left) - len(first), len(right) - len(second))
