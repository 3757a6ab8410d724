"""Examples of a store as training sees them: in a fixed order, each with a domain that cross-validation holds out."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from classifier.corpus import SeedRow
from classifier.evidence import PRECEDENT_FROM
from classifier.train.features import Floats
from index.example import Example

KIND = "example"
"""The shape of a prompt that an analyst added: nobody said which it is."""
_MOST_COSINES = 2**24


def training_rows(
    examples: Sequence[Example], vectors: Mapping[str, NDArray[np.float32]], corpus: Sequence[SeedRow]
) -> list[SeedRow]:
    """Give examples what the seed corpus knows of its own rows, and the others a domain by nearness.

    Examples that are near each other are one campaign and must be held out together. So those of a cosine of
    PRECEDENT_FROM or more are joined, over any number of steps; together they are of the domain of the seed row
    that is nearest to one of them, if it is so near, and else of one of their own.

    Args:
        examples: The active examples of a store at a revision, in any order.
        vectors: (d,) float32 unit rows of all of them, by example id.
        corpus: The seed corpus as it ships.

    Returns:
        Seed texts first, in the corpus's order, then the others by content hash. Labels are the store's. Of a store that
        holds just the seed corpus they are the corpus, row for row.
    """
    held = {example.id: example for example in examples}
    seeds = [SeedRow(held.pop(row.example.id), row.domain, row.kind) for row in corpus if row.example.id in held]
    others = sorted(held.values(), key=lambda example: example.content_hash)
    if not others:
        return seeds
    rows = np.array([vectors[example.id] for example in others])
    known = np.array([vectors[row.example.id] for row in seeds], np.float32).reshape(len(seeds), rows.shape[1])
    domains = _domains([row.domain for row in seeds], known, others, rows)
    return seeds + [SeedRow(example, domain, KIND) for example, domain in zip(others, domains, strict=True)]


def _domains(seeds: Sequence[str], known: Floats, others: Sequence[Example], rows: Floats) -> list[str]:
    """The domain of each of the others."""
    nearest, closeness = np.full(len(rows), -1), np.full(len(rows), -1.0)
    for block in _blocks(len(rows), len(known)):
        cosines = rows[block] @ known.T
        nearest[block], closeness[block] = cosines.argmax(axis=1), cosines.max(axis=1)
    groups = _joined(rows)
    names = {group: f"{KIND} {others[group].content_hash[:20]}" for group in groups.tolist()}
    for number in np.argsort(closeness, kind="stable").tolist():
        if closeness[number] >= PRECEDENT_FROM:
            names[int(groups[number])] = seeds[nearest[number]]
    return [names[group] for group in groups.tolist()]


def _joined(rows: Floats) -> NDArray[np.int64]:
    """(n,) for each row the lowest number of those that are joined with it."""
    groups = np.arange(len(rows))
    for block in _blocks(len(rows), len(rows)):
        for near in rows[block] @ rows.T >= PRECEDENT_FROM:
            held = groups[near]
            if held.size and (held != held[0]).any():
                groups[np.isin(groups, held)] = held.min()
    return groups


def _blocks(count: int, width: int) -> list[slice]:
    """Slices of so many rows that a block of cosines stays small; none where there is nothing to compare with."""
    size = max(1, _MOST_COSINES // max(1, width))
    return [slice(start, start + size) for start in range(0, count if width else 0, size)]
