"""One index of many rows: a graph of most of them, and the latest ones, which are searched exactly."""

from collections.abc import Iterator

import numpy as np

from index.graph import Graph, Pause
from index.grown import Grown
from index.search import Hits, Positions, VectorIndex, Vectors

_ROWS_AT_ONCE = 4_096


class Layers:
    """Rows at positions that never change: a removed one leaves a hole. Immutable; small when there is no graph.

    Attributes:
        tail: The rows that are in no graph, in the order of their positions, without holes.
        graph: The others; None when there are none.
    """

    def __init__(
        self, tail: VectorIndex, places: Grown[np.int64], alive: Grown[np.bool_], graph: Graph | None, gone: int
    ) -> None:
        """Hold the parts; `of` makes them."""
        self.tail = tail
        self.graph = graph
        self._places = places
        self._alive = alive
        self._gone = gone

    @classmethod
    def of(cls, tail: VectorIndex, graph: Graph | None = None, span: int = 0) -> "Layers":
        """An index of a graph's rows, if any, below the position `span`, and these rows from it on."""
        places = np.arange(span, span + tail.size)
        alive = np.zeros(span + tail.size, bool)
        alive[places] = True
        if graph is not None:
            alive[graph.places.view] = True
        return cls(tail, Grown(places), Grown(alive), graph, 0)

    @property
    def size(self) -> int:
        """How many rows can be found."""
        return self.tail.size + (self.graph.size - self._gone if self.graph else 0)

    @property
    def span(self) -> int:
        """The position that the next row takes."""
        return len(self._alive)

    @property
    def holes(self) -> int:
        """How many positions are empty."""
        return self.span - self.size

    @property
    def gone(self) -> int:
        """How many of the graph's rows are removed."""
        return self._gone

    def left_in(self, later: "Layers") -> Positions:
        """The positions of the rows that are here, and no more in an index that came of this one."""
        return np.flatnonzero(self._alive.view & ~later._alive.view[: self.span])  # noqa: SLF001  # of its own kind

    @property
    def tail_positions(self) -> Positions:
        """The positions of the tail's rows, ascending."""
        return self._places.view

    def search(self, queries: Vectors, k: int) -> Hits:
        """Find the k rows with the highest cosine for each query: exactly in the tail, very nearly in the graph."""
        near = self.tail.search(queries, k)
        if self.tail.size:
            near = Hits(near.cosines, np.where(near.positions >= 0, self._places.view[near.positions], -1))
        if self.graph is None:
            return near
        far = self.graph.search(queries, k, self._alive.view, self._gone)
        if not self.tail.size:
            return far
        cosines = np.concatenate([far.cosines, near.cosines], axis=1)
        positions = np.concatenate([far.positions, near.positions], axis=1)
        # What is no hit has the cosine of an opposite row, which must come before it.
        order = np.lexsort((positions < 0, -cosines), axis=1)[:, :k]
        return Hits(np.take_along_axis(cosines, order, axis=1), np.take_along_axis(positions, order, axis=1))

    def extended(self, rows: Vectors) -> "Layers":
        """A new index that holds these (n, d) float32 unit rows too, at the positions from `span` on."""
        tail = self.tail.extended(rows)
        places = self._places.extended(np.arange(self.span, self.span + len(rows)))
        return Layers(tail, places, self._alive.extended(np.ones(len(rows), bool)), self.graph, self._gone)

    def without(self, positions: Positions) -> "Layers":
        """A new index that lacks the rows at these positions, each of which is there; the others keep theirs."""
        if not len(positions):
            return self
        alive = self._alive.view.copy()
        alive[positions] = False
        places = self._places.view
        leaving = np.flatnonzero(~alive[places])
        tail = self.tail.without(leaving) if len(leaving) else self.tail
        kept = Grown(np.delete(places, leaving)) if len(leaving) else self._places
        gone = self._gone + len(positions) - len(leaving)
        return Layers(tail, kept, Grown(alive), self.graph, gone)

    def merged(self, pause: Pause) -> "Layers":
        """The same rows at the same positions, with the tail's in the graph, which must be there; takes long."""
        assert self.graph is not None
        graph = self.graph.extended(self.tail.rows, self._places.view, pause)
        none = np.arange(self.tail.size)
        return Layers(self.tail.without(none), Grown(self._places.view[:0]), self._alive, graph, self._gone)

    def compacted(self, pause: Pause) -> "Layers":
        """The same rows, all in a new graph, at the positions 0, 1, 2, ... in the same order; takes long."""
        width = self.tail.rows.shape[1]
        graph = Graph.build(width, self._parts(), np.arange(self.size), pause)
        return Layers.of(self.tail.without(np.arange(self.tail.size)), graph, self.size)

    def closed_up(self) -> "Layers":
        """The same rows at the positions 0, 1, 2, ... in the same order, without a graph."""
        tail = self.tail.without(np.arange(self.tail.size)) if self.graph else self.tail
        return Layers.of(tail.extended(np.concatenate(list(self._parts()))) if self.graph else tail)

    def _parts(self) -> Iterator[Vectors]:
        """The rows that can be found, in the order of their positions, part by part."""
        if self.graph is not None:
            for start in range(0, self.graph.size, _ROWS_AT_ONCE):
                count = min(_ROWS_AT_ONCE, self.graph.size - start)
                counts = self._alive.view[self.graph.places.view[start : start + count]]
                yield self.graph.rows(start, count)[counts]
        yield self.tail.rows
