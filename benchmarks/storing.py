"""How long the example store takes to add one example, and to open and read many, on SQLite and on PostgreSQL.

Run:  PYTHONPATH=benchmarks:tests .venv/bin/python benchmarks/storing.py

Every add is one synced transaction with a request id, by one writer. The server of PostgreSQL is a fresh one on this
machine, over a socket, with its own defaults. Opening is `open_store`, reading is `since(0)`, as every start does it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from postgres import running_postgres

from index.change import Act
from index.example import Example, Label
from index.store import open_store

_AT_ONCE = 5_000
_READS = 5


def examples(start: int, end: int) -> list[Example]:
    """Examples of some 220 characters."""
    words = "some words of a prompt, " * 9
    return [Example(f"Prompt {number}: {words}", Label.BENIGN, source="benchmark") for number in range(start, end)]


def milliseconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return 1_000 * (time.perf_counter() - began)


def measure(name: str, address: str, sizes: list[int], adds: int) -> None:
    """Fill a store, and measure at every size.

    Args:
        name: The store's.
        address: Where it is.
        sizes: Numbers of examples, in rising order.
        adds: How many single adds are measured at each.
    """
    filled = 0
    for size in sizes:
        with closing(open_store(address)) as store:
            for start in range(filled, size, _AT_ONCE):
                store.add(examples(start, min(start + _AT_ONCE, size)), Act("benchmark"))
        filled = size + adds
        opened, read = [], []
        for _ in range(_READS):
            began = time.perf_counter()
            with closing(open_store(address)) as store:
                opened.append(1_000 * (time.perf_counter() - began))
                read.append(milliseconds(lambda: store.since(0)))  # called at once
        with closing(open_store(address)) as store:
            new = examples(size, filled)
            took = [
                milliseconds(lambda: store.add([example], Act("benchmark", request_id=f"{example.id}")))  # noqa: B023
                for example in new
            ]
        p50, p99 = np.percentile(took, [50, 99])
        print(
            f"{name}, {size:,} examples: open {np.median(opened):.1f} ms, since(0) {np.median(read):,.0f} ms; "
            f"add of one p50 {p50:.2f} ms, p99 {p99:.2f} ms ({adds} adds)",
            flush=True,
        )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--adds", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", str(Path(folder) / "examples.sqlite"), sorted(given.sizes), given.adds)
    with running_postgres(durable=True) as server:
        measure("PostgreSQL", server.store(), sorted(given.sizes), given.adds)


if __name__ == "__main__":
    main()
