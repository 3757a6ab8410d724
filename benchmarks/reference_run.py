"""The plain reference over a log, as a user would write it: pandas reads JSON Lines and writes Parquet.

It works in a process of its own, so that neither side's threads and limits touch the other's.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from turns import Spent

from classifier.corpus import load_corpus

if TYPE_CHECKING:
    from reference import Reference


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """The reference's process, ready.

    Attributes:
        pool: Holds the process.
        threads: Of torch and FAISS.
    """

    pool: ProcessPoolExecutor
    threads: int

    def rescore(self, log: Path, output: Path, rows: int) -> Spent:
        """Score the first rows of a log.

        Args:
            log: JSON Lines with a "prompt".
            output: The Parquet file to write.
            rows: How many rows are read.

        Returns:
            What it took, from reading to the written file.
        """
        return self.pool.submit(_rescore, log, output, rows, self.threads).result()


@contextmanager
def reference_run(threads: int) -> Iterator[ReferenceRun]:
    """Start the reference's process; it has fitted its classifier on the seed corpus when it is given out.

    Args:
        threads: Of torch and FAISS.

    Yields:
        The process.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_prepare, threads).result()
        yield ReferenceRun(pool, threads)


@cache
def _reference(threads: int) -> "Reference":
    from reference import Reference  # torch

    return Reference(load_corpus(), threads)


def _prepare(threads: int) -> None:
    _reference(threads).score(["the first call is slower than the others"])


def _rescore(log: Path, output: Path, rows: int, threads: int) -> Spent:
    import pandas as pd

    reference = _reference(threads)
    wall, processor = time.perf_counter(), time.process_time()
    table = pd.read_json(log, lines=True, nrows=rows)
    scores = reference.score(table.pop("prompt").tolist())
    for name, column in zip(reference.names, scores, strict=True):
        table[name] = column[:, 1]
    table.to_parquet(output, compression="zstd", index=False)
    if len(table) != rows:
        raise ValueError(f"the reference read {len(table)} rows, not {rows}")
    return Spent(time.perf_counter() - wall, time.process_time() - processor)
