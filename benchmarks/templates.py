"""Measures the template fingerprint beside MinHash on labelled prompts: how pure and how complete its groups are.

The true groups are the templates that the prompts were rendered from (`template`); a source that was rendered without
naming templates has one, and every other prompt stands for itself. Needs the evaluate extra.
"""

import argparse
import gzip
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from sklearn.metrics import homogeneity_completeness_v_measure

from classifier.batch.template import frame, template
from classifier.text import fold

_RENDERED_FROM_ONE = {"s1-grading", "alpaca-gen", "codealpaca-gen", "magicoder-gen", "chinese-alpaca-gen", "classeval"}


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="prompts with source and template, .jsonl.gz")
    with gzip.open(parser.parse_args().file) as file:
        rows = [json.loads(line) for line in file]
    texts, groups = [fold(row["text"]) for row in rows], [_group(row) for row in rows]
    print("| fingerprint | homogeneity | completeness | V | pair precision | pair recall | µs a prompt |")
    print("|---|---|---|---|---|---|---|")
    _measure("this one: 8 words of the frame", template, texts, groups)
    for words in (6, 10):
        _measure(f"{words} words of the frame", _head(words), texts, groups)
    for words, shingle, tail in ((16, 3, 0), (24, 4, 0), (24, 4, 24)):
        name = f"MinHash, shingles of {shingle}, head {words}" + (f", tail {tail}" if tail else "")
        _measure(name, _minhash(words, shingle, tail), texts, groups)


def _group(row: dict[str, str]) -> str:
    if row.get("template"):
        return f"{row['source']}/{row['template']}"
    return row["source"] if row["source"] in _RENDERED_FROM_ONE else row["id"]


def _hash(words: Sequence[str]) -> str:
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8).hexdigest()


def _head(words: int) -> Callable[[str], str]:
    return lambda text: _hash(frame(text[:1_500])[:words])


def _minhash(words: int, shingle: int, tail: int) -> Callable[[str], str]:
    def key(text: str) -> str:
        found = frame(text if len(text) < 6_000 else f"{text[:3_000]}\n{text[-3_000:]}")
        ends = [found[:words], found[-tail:] if tail else []]
        return min(
            _hash(end[start : start + shingle]) for end in ends for start in range(max(1, len(end) - shingle + 1))
        )

    return key


def _measure(name: str, key: Callable[[str], str], texts: Sequence[str], groups: Sequence[str]) -> None:
    started = time.perf_counter()
    keys = [key(text) for text in texts]
    seconds = time.perf_counter() - started
    homogeneity, completeness, v = homogeneity_completeness_v_measure(groups, keys)
    both, true, found = (_pairs(values) for values in (zip(groups, keys, strict=True), groups, keys))
    print(
        f"| {name} | {homogeneity:.3f} | {completeness:.3f} | {v:.3f} | {both / found:.3f} | {both / true:.3f} "
        f"| {1e6 * seconds / len(texts):.0f} |"
    )


def _pairs(values: object) -> int:
    return sum(number * (number - 1) // 2 for number in Counter(values).values())  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
