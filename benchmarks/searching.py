"""Compares kinds of nearest-neighbour search at one size: recall@10, milliseconds a query, bytes a row, seconds to build.

The rows are made from the embeddings of the seed corpus in the bundle: each is a random convex mixture of one of them with
three of its sixteen nearest, and noise with the corpus's own covariance, as much of it as makes the cosine of a query to its
nearest row come out as in the corpus when there are as many rows as there. The queries are made in the same way and are no
rows. What the service uses (HNSW32,SQfp16) lies in large pages, as it does there. Everything runs on one thread, and the
times are its processor's. What a graph compares does not depend on the machine.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.graph import settle

Vectors = NDArray[np.float32]
_faiss: Any = faiss  # its types know neither these indexes nor how they are searched
K = 10
QUERIES = 500
WIDTHS = (64, 96, 112, 128, 192, 256, 384)
_AT_ONCE = 50_000
_BUNDLE = Path("var/bundles/current/examples.npy")
_NEAR = 16
_MIXED = 3
_STEPS = 7


def main() -> None:
    """Make rows, and measure every variant that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--corpus", type=Path, default=_BUNDLE, help="(n, d) float32 unit rows")
    parser.add_argument("--only", default="", help="only variants whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    rows, queries, noise = made(np.load(given.corpus), given.rows, QUERIES, given.seed)
    cosines, truth = nearest(rows, queries, K)
    quarters = " ".join(f"{value:.2f}" for value in np.quantile(cosines[:, 0], [0.25, 0.5, 0.75]))
    print(f"{given.rows:,} rows, noise {noise:.2f}: cosine to the nearest {quarters} (quartiles)", flush=True)
    print("variant                setting        recall@10  p50 ms  p99 ms compared  bytes  build s")
    for name in variants(given.rows):
        if given.only in name:
            _measure(name, rows, queries, truth)


def variants(rows: int) -> list[str]:
    """The names, by which FAISS's factory makes them, of what is compared."""
    lists = int(4 * rows**0.5)
    flat = ["Flat", "SQ8", "SQfp16"]
    inverted = [f"IVF{lists},{code}" for code in flat]
    return [*flat, *inverted, "HNSW16,SQ8", "HNSW32,SQ8", "HNSW16,SQfp16", "HNSW32,SQfp16", "HNSW16,Flat"]


def made(corpus: Vectors, rows: int, queries: int, seed: int) -> tuple[Vectors, Vectors, float]:
    """Rows like a corpus's, and queries that are none of them.

    Args:
        corpus: (n, d) float32 unit rows.
        rows: How many rows.
        queries: How many queries.
        seed: Of all chance.

    Returns:
        (rows, d) and (queries, d) float32 unit rows, and the length of the noise.
    """
    chance = np.random.default_rng(seed)
    near = nearest(corpus, corpus, 1 + _NEAR)[1][:, 1:]
    spread = np.linalg.cholesky(np.cov(corpus.T) + 1e-9 * np.eye(corpus.shape[1])).astype(np.float32)
    spread /= np.float32(np.sqrt((spread**2).sum()))
    held_out = chance.permutation(len(corpus))
    wanted = _to_nearest(corpus[held_out[QUERIES:]], corpus[held_out[:QUERIES]])
    low, high = 0.0, 2.0
    for step in range(_STEPS):  # the more noise, the farther the nearest
        noise = (low + high) / 2
        trial = _drawn(corpus, near, spread, noise, len(corpus), np.random.default_rng([seed, step]))
        low, high = (noise, high) if _to_nearest(trial[QUERIES:], trial[:QUERIES]) > wanted else (low, noise)
    return (
        _drawn(corpus, near, spread, noise, rows, chance),
        _drawn(corpus, near, spread, noise, queries, chance),
        noise,
    )


def _to_nearest(rows: Vectors, queries: Vectors) -> float:
    return float(np.median(nearest(rows, queries, 1)[0]))


def _drawn(
    corpus: Vectors, near: NDArray[np.int64], spread: Vectors, noise: float, count: int, chance: np.random.Generator
) -> Vectors:
    drawn = np.empty((count, corpus.shape[1]), np.float32)
    for start in range(0, count, _AT_ONCE):
        some = slice(start, min(start + _AT_ONCE, count))
        size = some.stop - some.start
        anchors = chance.integers(0, len(corpus), size)
        others = near[anchors[:, None], chance.integers(0, _NEAR, (size, _MIXED))]
        shares = chance.dirichlet([2.0, *[0.5] * _MIXED], size).astype(np.float32)
        mixed = shares[:, :1] * corpus[anchors]
        for number in range(_MIXED):
            mixed += shares[:, number + 1 : number + 2] * corpus[others[:, number]]
        mixed += noise * (chance.standard_normal(mixed.shape, np.float32) @ spread.T)
        drawn[some] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return drawn


def nearest(rows: Vectors, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """The cosines and numbers of the k rows nearest to each query, by comparing with all."""
    best: list[tuple[Vectors, NDArray[np.int64]]] = []
    for start in range(0, len(rows), _AT_ONCE):
        cosines = queries @ rows[start : start + _AT_ONCE].T
        found = np.argpartition(-cosines, min(k, cosines.shape[1]) - 1, axis=1)[:, :k]
        best.append((np.take_along_axis(cosines, found, axis=1), found + start))
    cosines = np.concatenate([part for part, _ in best], axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    numbers = np.concatenate([part for _, part in best], axis=1)
    return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Which share of the true neighbours was found; both are (q, k) numbers of rows."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def _measure(name: str, rows: Vectors, queries: Vectors, truth: NDArray[np.int64]) -> None:
    index: Any = faiss.index_factory(rows.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    began = time.thread_time()
    if not index.is_trained:
        index.train(rows[:: max(1, len(rows) // 50_000)])
    if "HNSW" in name:
        index.hnsw.efConstruction = 200
    for start in range(0, len(rows), _AT_ONCE):
        index.add(rows[start : start + _AT_ONCE])
    if "HNSW32,SQfp16" in name:
        settle(index)
    built = time.thread_time() - began
    print_variants(name, index, queries, truth, built=built)


def print_variants(
    name: str,
    index: Any,
    queries: Vectors,
    truth: NDArray[np.int64],
    widths: Sequence[int] = WIDTHS,
    built: float = 0.0,
) -> None:
    """Print a line for each setting of an index: recall@10, time, rows compared, bytes a row.

    Args:
        name: The index's, for FAISS's factory.
        index: FAISS's own, filled.
        queries: (q, d) float32 unit rows.
        truth: (q, k) numbers of the rows that are nearest.
        widths: Of the searches of a graph.
        built: Seconds that it took to build.
    """
    size = len(faiss.serialize_index(index)) / index.ntotal
    for label, parameters in _settings(name, widths):
        seconds, found = [], []
        _faiss.cvar.hnsw_stats.reset()
        for query in queries:
            began = time.thread_time()
            found.append(index.search(query[None, :], K, params=parameters)[1][0])
            seconds.append(time.thread_time() - began)
        middle, high = 1_000 * np.quantile(seconds, [0.5, 0.99])
        reached, compared = recall(np.stack(found), truth), _faiss.cvar.hnsw_stats.ndis // len(queries) or index.ntotal
        times = f"{middle:>7.3f} {high:>7.3f} {compared if 'IVF' not in name else 0:>8,}"
        print(f"{name:<22} {label:<14} {reached:>9.4f} {times} {size:>6.0f} {built:>8.1f}", flush=True)


def _settings(name: str, widths: Sequence[int]) -> Iterator[tuple[str, Any]]:
    if "HNSW" in name:
        for width in widths:
            yield f"efSearch {width}", _faiss.SearchParametersHNSW(efSearch=width)
    elif "IVF" in name:
        for lists in (8, 16, 32, 64, 128):
            yield f"nprobe {lists}", _faiss.SearchParametersIVF(nprobe=lists)
    else:
        yield "", None


if __name__ == "__main__":
    main()
