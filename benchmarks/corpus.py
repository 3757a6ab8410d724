"""Prints the seed corpus's counts and its near-duplicate rate, as they stand in docs/corpus.md.

Run:  .venv/bin/python benchmarks/corpus.py
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from classifier.bundle import open_bundle
from classifier.config import Settings
from classifier.corpus import SeedRow, load_corpus
from index.example import Label

NEAR = 0.95


def main() -> None:
    """Print every table."""
    rows = load_corpus()
    bundle = open_bundle(Settings().bundle, threads=2)
    cosines = bundle.vectors @ bundle.vectors.T
    np.fill_diagonal(cosines, -1.0)
    near = float((cosines.max(axis=1) > NEAR).mean())
    domains = {row.domain for row in rows}
    hard = sum(row.kind.startswith("hard_") for row in rows)
    print(f"{len(rows)} rows, {len(domains)} domains, {hard} hard negatives, {near:.2%} with a cosine over {NEAR}\n")
    _table("label", rows, lambda row: [row.example.label.value])
    _table("technique", rows, lambda row: [row.example.technique] if row.example.technique else [])
    _table("capability", rows, lambda row: list(row.example.capabilities))
    _table("language", rows, lambda row: [row.example.language])
    lengths = [len(found.ids) for found in bundle.model.encoder.tokenise([row.example.text for row in rows])]
    print("| percentile of tokens | 5 | 25 | 50 | 75 | 95 | 100 |\n|---|---|---|---|---|---|---|")
    for label in Label:
        own = [n for n, row in zip(lengths, rows, strict=True) if row.example.label == label]
        print(f"| {label} | " + " | ".join(f"{np.percentile(own, p):.0f}" for p in (5, 25, 50, 75, 95, 100)) + " |")


def _table(name: str, rows: list[SeedRow], values: Callable[[SeedRow], list[str]]) -> None:
    found = Counter((value, row.example.label) for row in rows for value in values(row))
    print(f"| {name} | extraction | benign |\n|---|---|---|")
    for value in sorted({value for value, _ in found}):
        print(f"| {value} | {found[value, Label.EXTRACTION]} | {found[value, Label.BENIGN]} |")
    print()


if __name__ == "__main__":
    main()
