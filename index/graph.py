"""Approximate search among many rows: a graph of near neighbours (HNSW) over rows of 16-bit floats."""

from collections.abc import Callable, Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.grown import Grown
from index.memory import in_large_pages
from index.search import Hits, Positions, Vectors, checked, padded

LINKS = 32
"""Links of a row; twice as many on the lowest level."""
BUILD_WIDTH = 200
SEARCH_WIDTH = 112
"""How many of the nearest rows a search keeps in view."""
WIDE_FROM = 300_000
WIDE_WIDTH = 160
"""The same from so many rows on."""
_LINK_BYTES = 4
_ROWS_AT_ONCE = 512

_faiss: Any = faiss  # its types know neither this index nor how it is searched
Pause = Callable[[], None]


def rest() -> None:
    """No pause."""


def empty_index(dimensions: int) -> Any:
    """FAISS's own index, without rows."""
    index = _faiss.IndexHNSWSQ(dimensions, _faiss.ScalarQuantizer.QT_fp16, LINKS, _faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_WIDTH
    index.is_trained = True  # 16-bit floats learn nothing from rows
    return index


def settle(index: Any) -> None:
    """Put the rows and links of FAISS's own index, which is complete now, into large pages."""
    codes, links = _faiss.downcast_index(index.storage).codes, index.hnsw.neighbors
    in_large_pages(int(codes.data()), codes.size())
    in_large_pages(int(links.data()), links.size() * _LINK_BYTES)


class Graph:
    """An immutable graph of rows, each with the position that stands for it in the hits.

    A row that was removed stays as a way to others; the caller says which positions still count.
    """

    def __init__(self, index: Any, places: Grown[np.int64]) -> None:
        """Hold an index and the positions, ascending, of its rows; `build` makes both."""
        self.index = index
        self.places = places
        settle(index)

    @classmethod
    def build(cls, dimensions: int, rows: Iterable[Vectors], places: Positions, pause: Pause = rest) -> "Graph":
        """Build a graph on the calling thread alone.

        Args:
            dimensions: d.
            rows: (some, d) float32 unit rows, part by part.
            places: (n,) int64, ascending: their positions.
            pause: Called between parts of the work; what it raises ends it.

        Returns:
            The graph.
        """
        index = empty_index(dimensions)
        for some in rows:
            _add(index, some, pause)
        return cls(index, Grown(places))

    def extended(self, rows: Vectors, places: Positions, pause: Pause = rest) -> "Graph":
        """A new graph that holds these (n, d) rows too, at these higher positions; see `build`."""
        index = _faiss.clone_index(self.index)
        _add(index, rows, pause)
        return Graph(index, self.places.extended(places))

    @property
    def size(self) -> int:
        """How many rows it holds, with those that count no more."""
        return int(self.index.ntotal)

    def rows(self, first: int, count: int) -> Vectors:
        """(count, d) float32: rows by their order in the graph, as the 16-bit floats give them back."""
        rows: Vectors = self._storage.reconstruct_n(first, count)
        return rows

    def search(self, queries: Vectors, k: int, alive: NDArray[np.bool_], gone: int) -> Hits:
        """Find, very nearly, the k rows with the highest cosine that still count.

        Args:
            queries: (q, d) float32 unit rows.
            k: How many of each.
            alive: By position: whether it still counts.
            gone: How many rows of the graph do not.

        Returns:
            The hits, by position; cosines are off by the rounding of 16-bit floats, under 1e-4 at 384 dimensions.
        """
        queries = checked(queries)
        wanted = min(k, self.size - gone)
        if wanted <= 0 or len(queries) == 0:
            return padded(np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64), k)
        _faiss.omp_set_num_threads(1)  # see FaissIndex
        width = max(SEARCH_WIDTH, k) if self.size < WIDE_FROM else max(WIDE_WIDTH, k)
        cosines, places, found = self._walk(queries, wanted, width, alive, gone)
        # Where the nearest rows are nearly all gone, as after a source was revoked, the walk ends among them.
        for widened in (width * 8, None):
            poor = np.flatnonzero(found < wanted)
            if not len(poor):
                break
            again = queries[poor]
            other = self._walk(again, wanted, widened, alive, gone) if widened else self._all(again, wanted, alive)
            cosines[poor], places[poor], found[poor] = other
        return padded(cosines, places, k)

    @property
    def _storage(self) -> Any:
        return _faiss.downcast_index(self.index.storage)

    def _walk(
        self, queries: Vectors, wanted: int, width: int, alive: NDArray[np.bool_], gone: int
    ) -> tuple[Vectors, Positions, NDArray[np.int64]]:
        depth = wanted if not gone else min(max(width, wanted), wanted + gone)
        parameters = _faiss.SearchParametersHNSW(efSearch=max(width, depth))
        cosines, nodes = self.index.search(queries, depth, params=parameters)
        places = self.places.view[nodes]
        counts = (nodes >= 0) & alive[places]
        if not counts.all():
            order = np.argsort(~counts, axis=1, kind="stable")[:, :wanted]
            cosines, places = np.take_along_axis(cosines, order, axis=1), np.take_along_axis(places, order, axis=1)
        return cosines[:, :wanted], places[:, :wanted], np.minimum(counts.sum(axis=1), wanted)

    def _all(
        self, queries: Vectors, wanted: int, alive: NDArray[np.bool_]
    ) -> tuple[Vectors, Positions, NDArray[np.int64]]:
        bits = np.packbits(alive[self.places.view], bitorder="little")
        parameters = _faiss.SearchParameters(sel=_faiss.IDSelectorBitmap(bits))
        cosines, nodes = self._storage.search(queries, wanted, params=parameters)
        return cosines, self.places.view[nodes], np.full(len(queries), wanted)


def _add(index: Any, rows: Vectors, pause: Pause) -> None:
    _faiss.omp_set_num_threads(1)  # counts for this thread alone
    rows = checked(rows)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        pause()
        index.add(rows[start : start + _ROWS_AT_ONCE])
