"""Nearest-neighbour search: one protocol, an exact numpy oracle, a FAISS index, and matrix products for batches."""

from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from index.grown import Grown

Vectors = NDArray[np.float32]
Positions = NDArray[np.int64]
_BLOCK = 16
_BATCH_FROM = 4
_QUERIES_AT_ONCE = 128
_COSINES_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest rows of each query.

    Attributes:
        cosines: (q, k) float32 cosines in [-1, 1], highest first; -1 where the index holds fewer than k rows.
        positions: (q, k) int64 row numbers of the index; -1 where the index holds fewer than k rows.
    """

    cosines: NDArray[np.float32]
    positions: Positions


class VectorIndex(Protocol):
    """An immutable index over unit rows: readers need no lock, a writer makes the next one."""

    @property
    def size(self) -> int:
        """How many rows the index holds."""

    def search(self, queries: Vectors, k: int) -> Hits:
        """Find the k rows with the highest cosine for each query, (q, d) float32 unit rows."""

    @property
    def rows(self) -> Vectors:
        """(n, d) float32, to be read, and only as long as this index is held."""

    def extended(self, rows: Vectors) -> "VectorIndex":
        """A new index that holds these (n, d) float32 unit rows after its own."""

    def without(self, positions: Positions) -> "VectorIndex":
        """A new index that lacks the rows at these positions; those behind them close up."""


def checked(rows: Vectors) -> Vectors:
    """(n, d) float32 rows whose numbers stand side by side; ValueError for what is no matrix."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(f"vectors must be (n, d), not {rows.shape}")
    return rows


def padded(cosines: Vectors, positions: Positions, k: int) -> Hits:
    """Hits of width k, their cosines in [-1, 1]."""
    missing = k - cosines.shape[1]
    if missing > 0:
        cosines = np.pad(cosines, ((0, 0), (0, missing)), constant_values=-1.0)
        positions = np.pad(positions, ((0, 0), (0, missing)), constant_values=-1)
    return Hits(np.clip(cosines, -1.0, 1.0), positions)


class ExactIndex:
    """The oracle: every cosine by numpy. What another index finds is held against it."""

    def __init__(self, rows: Vectors) -> None:
        """Hold (n, d) float32 unit rows."""
        self._rows = checked(rows).copy()

    @property
    def size(self) -> int:
        """How many rows the index holds."""
        return len(self._rows)

    @property
    def rows(self) -> Vectors:
        """(n, d) float32, to be read."""
        return self._rows

    def search(self, queries: Vectors, k: int) -> Hits:
        """Find the k rows with the highest cosine; of equal cosines the earlier row comes first."""
        cosines = np.clip(checked(queries) @ self._rows.T, -1.0, 1.0)
        positions = np.argsort(-cosines, axis=1, kind="stable")[:, :k].astype(np.int64)
        return padded(np.take_along_axis(cosines, positions, axis=1), positions, k)

    def extended(self, rows: Vectors) -> "ExactIndex":
        """A new index that holds these rows too."""
        return ExactIndex(np.concatenate([self._rows, checked(rows)]))

    def without(self, positions: Positions) -> "ExactIndex":
        """A new index that lacks some rows."""
        return ExactIndex(np.delete(self._rows, positions, axis=0))


class FaissIndex:
    """Exact inner-product search by FAISS; always made from vectors, never read from a file."""

    def __init__(self, rows: Vectors) -> None:
        """Hold (n, d) float32 unit rows."""
        rows = checked(rows)
        self._index = faiss.IndexFlatIP(rows.shape[1])
        self._index.add(rows)

    @property
    def size(self) -> int:
        """How many rows the index holds."""
        return int(self._index.ntotal)

    @property
    def rows(self) -> Vectors:
        """(n, d) float32, FAISS's own memory: to be read, and only as long as this index is held."""
        count, width = self.size, int(self._index.d)
        if not count or not width:
            return np.zeros((count, width), np.float32)
        rows: Vectors = faiss.rev_swig_ptr(self._index.get_xb(), count * width).reshape(count, width)
        rows.flags.writeable = False
        return rows

    def search(self, queries: Vectors, k: int) -> Hits:
        """Find the k rows with the highest cosine for each query."""
        queries = checked(queries)
        if queries.shape[1] != self._index.d:
            raise ValueError(f"queries have {queries.shape[1]} dimensions, the index has {self._index.d}")
        k_found = min(k, self.size)
        if k_found == 0 or len(queries) == 0:
            empty = (len(queries), 0)
            return padded(np.zeros(empty, np.float32), np.zeros(empty, np.int64), k)
        # One thread: a second one would wait for a core on which the encoder's threads still spin after their run.
        faiss.omp_set_num_threads(1)
        cosines, positions = self._index.search(queries, k_found)
        return padded(cosines, positions, k)

    def extended(self, rows: Vectors) -> "FaissIndex":
        """A new index that holds these rows too."""
        return FaissIndex(np.concatenate([self.rows, checked(rows)]))

    def without(self, positions: Positions) -> "FaissIndex":
        """A new index that lacks some rows."""
        return FaissIndex(np.delete(self.rows, positions, axis=0))


class BatchIndex:
    """Exact search for few rows and for batches: one matrix product, then only the best blocks are sorted.

    FAISS compares query by query; on AVX-512 a matrix product of 32 queries with 10,000 rows costs a sixth of that. One
    query alone is bound by memory, and left to FAISS. An extended index shares its rows with the one that it came from.
    """

    def __init__(self, rows: Vectors | Grown[np.float32]) -> None:
        """Hold (n, d) float32 unit rows; an array is copied."""
        self._grown = rows if isinstance(rows, Grown) else Grown(checked(rows).copy())

    @property
    def size(self) -> int:
        """How many rows the index holds."""
        return len(self._grown)

    @property
    def rows(self) -> Vectors:
        """(n, d) float32, read-only."""
        return self._grown.view

    def search(self, queries: Vectors, k: int) -> Hits:
        """Find the k rows with the highest cosine for each query."""
        queries = checked(queries)
        if len(queries) < _BATCH_FROM or self.size < _BLOCK * 2 * k:
            return self._few(queries, k)
        size = max(1, min(_QUERIES_AT_ONCE, _COSINES_AT_ONCE // self.size))
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        found = [self._search(part, k) for part in parts]
        return Hits(
            np.concatenate([hits.cosines for hits in found]), np.concatenate([hits.positions for hits in found])
        )

    def extended(self, rows: Vectors) -> "BatchIndex":
        """A new index that holds these rows too."""
        return BatchIndex(self._grown.extended(checked(rows)))

    def without(self, positions: Positions) -> "BatchIndex":
        """A new index that lacks some rows."""
        return BatchIndex(Grown(np.delete(self.rows, positions, axis=0)))

    def _few(self, queries: Vectors, k: int) -> Hits:
        rows = self.rows
        if queries.shape[1] != rows.shape[1]:
            raise ValueError(f"queries have {queries.shape[1]} dimensions, the index has {rows.shape[1]}")
        k_found = min(k, self.size)
        if k_found == 0 or len(queries) == 0:
            empty = (len(queries), 0)
            return padded(np.zeros(empty, np.float32), np.zeros(empty, np.int64), k)
        faiss.omp_set_num_threads(1)  # see FaissIndex
        cosines, positions = faiss.knn(queries, rows, k_found, metric=faiss.METRIC_INNER_PRODUCT)
        return padded(cosines, positions, k)

    def _search(self, queries: Vectors, k: int) -> Hits:
        cosines = queries @ self.rows.T
        blocks = self.size // _BLOCK
        whole = blocks * _BLOCK
        # Block b holds the positions b, b + blocks, b + 2 blocks, ...: so the maxima are taken over whole columns.
        highest = cosines[:, :whole].reshape(len(queries), _BLOCK, blocks).max(axis=1)
        # The k highest cosines stand in the k blocks with the highest maxima, or behind the last block.
        best = np.argpartition(highest, blocks - k, axis=1)[:, blocks - k :]
        inside = (best[:, None, :] + blocks * np.arange(_BLOCK)[None, :, None]).reshape(len(queries), -1)
        behind = np.broadcast_to(np.arange(whole, self.size), (len(queries), self.size - whole))
        candidates = np.concatenate([inside, behind], axis=1)
        values = np.take_along_axis(cosines, candidates, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        return padded(
            np.take_along_axis(values, order, axis=1), np.take_along_axis(candidates, order, axis=1).astype(np.int64), k
        )
