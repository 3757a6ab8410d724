"""Times the index's search alone, while new examples are merged into the graph, and while the graph is built anew.

The index is the service's own (`index.layers`), over rows that are made as `searching` makes them. A search is of one query,
on the calling thread, in wall time; what is done beside it runs on a thread of the lowest priority, as in the service, so
that both share what cores there are. A rebuild is watched for --seconds, then ended. First come recall@10 and processor
time of the graph by how wide a search is.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from searching import QUERIES, K, made, nearest, print_variants, recall

from index.graph import Pause, rest
from index.layers import Layers
from index.search import BatchIndex, Vectors
from index.side import TAIL

_LOWEST_PRIORITY = 19
_WIDTHS = (96, 112, 128, 160, 192, 256, 384)


class _Ended(Exception):  # a message to the thread beside
    """Ends the work beside."""


def main() -> None:
    """Build an index, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--corpus", type=Path, default=Path("var/bundles/current/examples.npy"))
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the rebuild is watched")
    given = parser.parse_args()
    rows, queries, _ = made(np.load(given.corpus), given.rows + TAIL, QUERIES, 1)
    old, new = rows[: given.rows], rows[given.rows :]
    began = time.perf_counter()
    layers = Layers.of(BatchIndex(old)).compacted(rest)
    print(f"{given.rows:,} rows: the graph took {time.perf_counter() - began:.0f} s", flush=True)
    assert layers.graph is not None
    truth = nearest(old, queries, K)[1]
    print_variants("HNSW32,SQfp16", layers.graph.index, queries, truth, _WIDTHS)
    found = np.concatenate([layers.search(query[None], K).positions for query in queries])
    print(f"as the service searches: recall@10 {recall(found, truth):.4f}")
    _print("alone", _timed(layers, queries, lambda: False))
    tailed = layers.extended(new)
    _print(f"with {TAIL:,} new examples that are in no graph yet", _timed(tailed, queries, lambda: False))
    for name, work in (("merged", tailed.merged), ("built anew", tailed.compacted)):
        _print(f"while they are {name}", _beside(tailed, queries, work, given.seconds))


def _beside(layers: Layers, queries: Vectors, work: Callable[[Pause], Layers], seconds: float) -> list[float]:
    """Search until the work is done, or so many seconds."""
    ending = threading.Event()

    def pause() -> None:
        if ending.is_set():
            raise _Ended

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        began = time.perf_counter()
        try:
            work(pause)
        except _Ended:
            return
        print(f"that took {time.perf_counter() - began:.1f} s", flush=True)

    thread = threading.Thread(target=run)
    end = time.perf_counter() + seconds
    thread.start()
    try:
        return _timed(layers, queries, lambda: thread.is_alive() and time.perf_counter() < end)
    finally:
        ending.set()
        thread.join()


def _timed(layers: Layers, queries: Vectors, more: Callable[[], bool]) -> list[float]:
    """Seconds of each search: of every query once, and on and on while there is more."""
    taken: list[float] = []
    while len(taken) < len(queries) or more():
        began = time.perf_counter()
        layers.search(queries[len(taken) % len(queries)][None], K)
        taken.append(time.perf_counter() - began)
    return taken


def _print(what: str, taken: list[float]) -> None:
    middle, high, highest = 1_000 * np.quantile(taken, [0.5, 0.99, 1.0])
    print(f"{what}: p50 {middle:.2f} ms, p99 {high:.2f} ms, longest {highest:.1f} ms of {len(taken):,}", flush=True)


if __name__ == "__main__":
    main()
