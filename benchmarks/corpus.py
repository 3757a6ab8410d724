"""Prints the seed corpus's counts and its near-duplicate rate, as they stand in docs/corpus.md.

Run:  .venv/bin/python benchmarks/corpus.py [--against prompts.jsonl.gz]

With a file of other prompts it also names the rows that share eight words in a row (twelve Chinese signs; a shorter text
whole) with one of them, so that what is measured with does not creep into what is trained on.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from classifier.bundle import open_bundle
from classifier.config import Settings
from classifier.corpus import SeedRow, load_corpus
from classifier.text import fold
from classifier.train.labelled import read_evaluation
from index.example import Label

NEAR = 0.95
WORDS = 8
SIGNS = 12


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--against", type=Path, help="prompts, as `stillwatch evaluate` reads them")
    given = parser.parse_args()
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
    if given.against:
        others = {run for row in read_evaluation(given.against) for run in _runs(row.text)}
        shared = [row for row in rows if not others.isdisjoint(_runs(row.example.text))]
        print(
            f"\n{len(shared)} rows share {WORDS} words or {SIGNS} Chinese signs in a row with a prompt of {given.against.name}:"
        )
        print("\n".join(f"{row.example.id} {row.domain}" for row in shared))


def _runs(text: str) -> set[str]:
    """Every run of eight words or, in scripts without spaces, of twelve characters; of a shorter text all of it."""
    plain = fold(text).lower()
    words, signs = re.findall(r"\w+", plain), re.sub(r"[^\u3040-\u30ff\u3400-\u9fff]", "", plain)
    found = {" ".join(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1))}
    return found | {signs[start : start + SIGNS] for start in range(len(signs) - SIGNS + 1)}


def _table(name: str, rows: list[SeedRow], values: Callable[[SeedRow], list[str]]) -> None:
    found = Counter((value, row.example.label) for row in rows for value in values(row))
    print(f"| {name} | extraction | benign |\n|---|---|---|")
    for value in sorted({value for value, _ in found}):
        print(f"| {value} | {found[value, Label.EXTRACTION]} | {found[value, Label.BENIGN]} |")
    print()


if __name__ == "__main__":
    main()
