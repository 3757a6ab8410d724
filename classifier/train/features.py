"""The seed corpus as training sees it: rows cut into windows, with evidence that leaves a row's own kin out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.model_selection import GroupKFold

from classifier import evidence, lexical
from classifier.corpus import SeedRow
from classifier.disguise import undisguise
from classifier.encoder import Encoder
from classifier.scorer import Labels
from classifier.text import fold
from classifier.windows import WindowPlan, cut, cut_finer
from index.example import Label
from index.live import Side, Snapshot
from index.search import FaissIndex

Floats = NDArray[np.float32]
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Targets:
    """What the rows are.

    Attributes:
        extraction: (rows,) bool.
        techniques: (rows,) int64, -1 for a benign row.
        capabilities: (rows, capabilities) bool.
    """

    extraction: NDArray[np.bool_]
    techniques: NDArray[np.int64]
    capabilities: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of all rows, before they are encoded.

    Attributes:
        sequences: Token ids of each window.
        owners: (w,) for each window the number of its row, ascending.
        first: (rows,) for each row the number of its first window.
        finer: (w,) whether a window is of the second scale; those stand after a row's others.
    """

    sequences: list[list[int]]
    owners: NDArray[np.int64]
    first: NDArray[np.int64]
    finer: NDArray[np.bool_]


def labels_of(rows: Sequence[SeedRow]) -> Labels:
    """The techniques and capabilities that the rows carry, in alphabetical order."""
    techniques = {row.example.technique for row in rows if row.example.technique}
    capabilities = {name for row in rows for name in row.example.capabilities}
    return Labels(tuple(sorted(techniques)), tuple(sorted(capabilities)))


def targets_of(rows: Sequence[SeedRow], labels: Labels) -> Targets:
    """What the rows are, as numbers."""
    names = list(labels.techniques)
    return Targets(
        extraction=np.array([row.example.label == Label.EXTRACTION for row in rows]),
        techniques=np.array([names.index(row.example.technique) if row.example.technique else -1 for row in rows]),
        capabilities=np.array([[name in row.example.capabilities for name in labels.capabilities] for row in rows]),
    )


def folds_of(rows: Sequence[SeedRow], seed: int) -> NDArray[np.int64]:
    """The fold of each row for cross-validation: a domain is never parted.

    Args:
        rows: The corpus.
        seed: Shuffles the domains.

    Returns:
        (rows,) int64 from 0 to FOLDS - 1.
    """
    domains = np.unique([row.domain for row in rows], return_inverse=True)[1]
    found = np.zeros(len(rows), np.int64)
    parts = GroupKFold(FOLDS, shuffle=True, random_state=seed).split(domains, groups=domains)
    for number, (_, part) in enumerate(parts):
        found[part] = number
    return found


def cut_windows(texts: Sequence[str], encoder: Encoder, plan: WindowPlan) -> Windows:
    """Tokenise texts and cut them on both scales, as the scorer does.

    Args:
        texts: Rows' texts, or views of prompts.
        encoder: Its tokenizer counts.
        plan: How texts are cut.

    Returns:
        The windows.
    """
    sequences, owners, finer = [], [], []
    for row, tokens in enumerate(encoder.tokenise([fold(text) for text in texts])):
        long, short = cut(len(tokens.ids), plan), cut_finer(len(tokens.ids), plan)
        sequences += [tokens.ids[window.start : window.end] for window in (*long, *short)]
        owners += [row] * (len(long) + len(short))
        finer += [False] * len(long) + [True] * len(short)
    numbers = np.array(owners, np.int64)
    return Windows(sequences, numbers, np.searchsorted(numbers, np.arange(len(texts))), np.array(finer, bool))


def views_of(texts: Sequence[str], encoder: Encoder) -> tuple[list[str], NDArray[np.int64]]:
    """The views of prompts, as the scorer reads them: the canonical form and, if there is one, the undisguised one.

    Args:
        texts: Prompts.
        encoder: Its words tell what is disguised.

    Returns:
        The views, and (views,) the number of each one's prompt.
    """
    views, prompts = [], []
    for number, text in enumerate(texts):
        undone = undisguise(form := fold(text), encoder.ranks)
        views += [form] if undone is None else [form, undone.text]
        prompts += [number] * (1 if undone is None else 2)
    return views, np.array(prompts, np.int64)


def bags_of(sequences: Sequence[Sequence[int]]) -> sparse.csr_matrix:
    """(n, buckets) float32 sparse: the terms of each window."""
    found = lexical.terms(sequences)
    held = found.counts > 0
    ends = np.append(0, np.cumsum(held.sum(axis=1)))
    return sparse.csr_matrix((found.counts[held], found.buckets[held], ends), shape=(len(sequences), lexical.BUCKETS))


def snapshot_of(
    rows: Sequence[SeedRow], windows: Windows, embeddings: Floats, known: NDArray[np.bool_] | None = None
) -> Snapshot:
    """The rows as the index holds them: by their first window.

    Args:
        rows: Seed rows.
        windows: Their windows.
        embeddings: (w, d) float32 unit rows.
        known: (rows,) which rows are indexed; None for all.

    Returns:
        A snapshot at revision 0.
    """
    sides = []
    for label in (Label.EXTRACTION, Label.BENIGN):
        held = [
            number for number, row in enumerate(rows) if row.example.label == label and (known is None or known[number])
        ]
        vectors = embeddings[windows.first[held]]
        sides.append(Side(tuple(rows[number].example for number in held), FaissIndex(vectors)))
    return Snapshot(0, sides[0], sides[1])


def evidence_of(
    rows: Sequence[SeedRow], snapshot: Snapshot, embeddings: Floats, bases: Sequence[Sequence[int]], labels: Labels
) -> Floats:
    """Neighbour evidence of windows, as if no example of their rows' own domains were known.

    A row itself is always left out; its domain is, too, because a new campaign's topic is a new one.

    Args:
        rows: Seed rows.
        snapshot: The rows as the index holds them.
        embeddings: (w, d) float32 unit rows.
        bases: For each window the numbers of the rows whose text may stand in it.
        labels: Techniques and capabilities.

    Returns:
        (w, features) float32.
    """
    kin: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        kin[row.domain].add(row.example.id)
    left_out = [frozenset[str]().union(*(kin[rows[number].domain] for number in numbers)) for numbers in bases]
    found = evidence.search_leaving_out(snapshot, embeddings, left_out)
    return evidence.features(found, labels.techniques, labels.capabilities)
