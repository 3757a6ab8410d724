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
_AT_ONCE = 512


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
    known = np.array([vectors[row.example.id] for row in seeds], np.float32).reshape(len(seeds), -1)
    domains = _domains([row.domain for row in seeds], known, others, np.array([vectors[e.id] for e in others]))
    return seeds + [SeedRow(example, domain, KIND) for example, domain in zip(others, domains, strict=True)]


def _domains(seeds: Sequence[str], known: Floats, others: Sequence[Example], rows: Floats) -> list[str]:
    """The domain of each of the others."""
    first = np.arange(len(others))
    nearest, closeness = np.full(len(others), -1), np.full(len(others), -1.0)
    for start in range(0, len(others), _AT_ONCE):
        block = rows[start : start + _AT_ONCE]
        if len(seeds):
            cosines = block @ known.T
            nearest[start : start + len(block)] = cosines.argmax(axis=1)
            closeness[start : start + len(block)] = cosines.max(axis=1)
        for one, other in np.argwhere(block @ rows.T >= PRECEDENT_FROM).tolist():
            low, high = sorted((_root(first, start + one), _root(first, other)))
            first[high] = low
    roots = [_root(first, number) for number in range(len(others))]
    names: dict[int, tuple[float, str]] = {}
    for number, root in enumerate(roots):
        held = names.get(root, (PRECEDENT_FROM, f"{KIND} {others[root].content_hash[:20]}"))
        if closeness[number] >= held[0]:
            held = (float(closeness[number]), seeds[nearest[number]])
        names[root] = held
    return [names[root][1] for root in roots]


def _root(first: NDArray[np.int64], number: int) -> int:
    while first[number] != number:
        first[number] = first[first[number]]
        number = int(first[number])
    return number
