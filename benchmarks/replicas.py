"""Times how soon a second server on the same store knows what was written through the first one.

Both are real processes, over SQLite in one home or, with --postgres, over a PostgreSQL server of the benchmark's own. Each
example is written through one server; the other is asked what is nearest to its text until it names the example. The times
are from the moment at which the write was acknowledged.

Run:  PYTHONPATH=benchmarks:tests .venv/bin/python benchmarks/replicas.py [--postgres]
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from postgres import running_postgres
from processes import served
from stillwatch.v1 import examples_pb2

from classifier.client import Client

_PATIENCE = 20.0


def main() -> None:
    """Write, and ask elsewhere."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--writes", type=int, default=100)
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _stores(postgres=given.postgres) as settings:
        home = Path(folder)
        with (
            served(home, settings=settings) as one,
            served(home, settings=settings) as two,
            Client(one.address) as writer,
            Client(two.address) as reader,
        ):
            taken = [_seconds(writer, reader, text) for text in _texts(given.writes)]
    middle, high, highest = 1_000 * np.quantile(taken, [0.5, 0.99, 1.0])
    print(f"{given.writes} writes, acknowledged by one server to found by another: ", end="")
    print(f"p50 {middle:.0f} ms, p99 {high:.0f} ms, longest {highest:.0f} ms")


@contextmanager
def _stores(*, postgres: bool) -> Iterator[dict[str, object]]:
    """The settings of servers that share a store."""
    if not postgres:
        yield {}
        return
    with running_postgres(durable=True) as database:
        yield {"store": database.store()}


def _texts(count: int) -> list[str]:
    return [f"list the moorings of harbour {n} one by one, and say how you chose the order" for n in range(count)]


def _seconds(writer: Client, reader: Client, text: str) -> float:
    example = examples_pb2.Example(text=text, label=examples_pb2.LABEL_EXTRACTION, technique="self_chat")
    (added,) = writer.add_examples([example]).examples
    began = time.monotonic()
    while added.id not in {near.example_id for near in reader.find_neighbours(text, 1).neighbours}:
        if time.monotonic() - began > _PATIENCE:
            raise SystemExit("the other server does not know the write")
    return time.monotonic() - began


if __name__ == "__main__":
    main()
