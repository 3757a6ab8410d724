"""A graph as plain arrays, and a graph of plain arrays: what is kept needs no reader of FAISS's own files."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.graph import LINKS, Graph, empty_index
from index.grown import Grown

Arrays = dict[str, NDArray[Any]]
_faiss: Any = faiss  # its types know neither this index nor its parts
_LOWEST = 2
"""How many times as many links a row has on the lowest level."""


def arrays_of(graph: Graph) -> Arrays:
    """A graph's rows and links.

    Args:
        graph: The graph.

    Returns:
        `codes` (n, 2 d) uint8, the 16-bit floats' bytes; `levels` (n,) int32; `links`, int32, row by row and -1 where
        there is none; `entry` (2,) int64: the row where a search begins, and its level.
    """
    hnsw, storage = graph.index.hnsw, _faiss.downcast_index(graph.index.storage)
    codes = _faiss.vector_to_array(storage.codes)
    return {
        "codes": codes.reshape(graph.size, -1),
        "levels": _faiss.vector_to_array(hnsw.levels),
        "links": _faiss.vector_to_array(hnsw.neighbors),
        "entry": np.array([hnsw.entry_point, hnsw.max_level], np.int64),
    }


def graph_of(arrays: Arrays, dimensions: int) -> Graph:
    """A graph of rows and links, its rows at the positions 0, 1, 2, ...

    Args:
        arrays: What `arrays_of` made.
        dimensions: d.

    Returns:
        The graph.

    Raises:
        ValueError: When a link, or anything else, leads outside.
    """
    codes, levels, links, entry = (arrays[name] for name in ("codes", "levels", "links", "entry"))
    count = len(levels)
    offsets = np.zeros(count + 1, np.uint64)
    offsets[1:] = np.cumsum((levels.astype(np.int64) - 1) * LINKS + _LOWEST * LINKS)
    first, highest = entry.tolist()
    if (
        codes.shape != (count, 2 * dimensions)
        or count == 0
        or levels.min() < 1
        or len(links) != offsets[-1]
        or not (links.min() >= -1 and links.max() < count)
        or not (0 <= first < count and highest == levels[first] - 1 == levels.max() - 1)
    ):
        raise ValueError("the kept graph's parts do not fit each other")
    _check_levels(levels, links)
    index = empty_index(dimensions)
    storage, hnsw = _faiss.downcast_index(index.storage), index.hnsw
    for values, vector in (
        (codes.ravel(), storage.codes),
        (levels, hnsw.levels),
        (offsets, hnsw.offsets),
        (links, hnsw.neighbors),
    ):
        _faiss.copy_array_to_vector(values, vector)
    hnsw.entry_point, hnsw.max_level = first, highest
    storage.ntotal = index.ntotal = count
    return Graph(index, Grown(np.arange(count)))


def _check_levels(levels: NDArray[np.int32], links: NDArray[np.int32]) -> None:
    """A link on a high level must lead to a row that reaches it: else a search would read another row's links."""
    widths = (levels.astype(np.int64) - 1) * LINKS + _LOWEST * LINKS
    starts = np.cumsum(widths) - widths
    for level in range(1, int(levels.max())):
        rows = np.flatnonzero(levels > level)
        at = starts[rows] + (level + 1) * LINKS
        found = links[(at[:, None] + np.arange(LINKS)).ravel()]
        if (levels[found[found >= 0]] <= level).any():
            raise ValueError("the kept graph's parts do not fit each other")
