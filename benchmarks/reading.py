"""Times the reading of logs alone: rows a second of one core, and what share of a scorer's time that is.

python benchmarks/reading.py FILE...
"""

import sys
import time

from classifier.batch.inputs import Source, find
from classifier.batch.reading import detect, read
from classifier.batch.record import Record

RUNS = 3
SCORED_A_SECOND = 900
"""Prompts a second of the scorer on 2 cores at its best, docs/performance.md: the strictest to compare with."""


def seconds(source: Source) -> tuple[int, int, float]:
    """Rows, records among them, and the least processor seconds of several runs, detection included."""
    best = float("inf")
    for _ in range(RUNS):
        rows = records = 0
        begun = time.process_time()
        for one, _ in read(source, detect(source)):
            rows += 1
            records += isinstance(one, Record)
        best = min(best, time.process_time() - begun)
    return rows, records, best


def main() -> None:
    """Print a line for each file."""
    for source in find(sys.argv[1:]):
        rows, records, spent = seconds(source)
        share = spent / rows / (2 / SCORED_A_SECOND)
        print(
            f"{source.name}: {rows} rows, {records} records, {rows / spent:,.0f} rows/s of a core, {share:.2%} of scoring"
        )


if __name__ == "__main__":
    main()
