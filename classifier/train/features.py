"""The seed corpus as the head sees it: one row for each window, with evidence that leaves the row's own kin out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from classifier import evidence, lexical
from classifier.corpus import SeedRow
from classifier.encoder import Encoder
from classifier.scorer import Labels
from classifier.text import fold
from classifier.windows import WindowPlan, cut
from index.example import Label
from index.live import Side, Snapshot
from index.search import FaissIndex

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of all rows.

    Attributes:
        embeddings: (w, d) float32 unit rows.
        owners: (w,) for each window the number of its row, ascending.
        first: (rows,) for each row the number of its first window.
        bags: (w, buckets) sparse: the words of each window.
    """

    embeddings: Floats
    owners: NDArray[np.int64]
    first: NDArray[np.int64]
    bags: sparse.csr_matrix


def labels_of(rows: Sequence[SeedRow]) -> Labels:
    """The techniques and capabilities that the rows carry, in alphabetical order."""
    techniques = {row.example.technique for row in rows if row.example.technique}
    capabilities = {name for row in rows for name in row.example.capabilities}
    return Labels(tuple(sorted(techniques)), tuple(sorted(capabilities)))


def encode_windows(texts: Sequence[str], encoder: Encoder, plan: WindowPlan) -> Windows:
    """Encode every window of every text.

    Args:
        texts: The rows' texts.
        encoder: What encodes.
        plan: How texts are cut.

    Returns:
        The windows.
    """
    sequences, owners = [], []
    for row, tokens in enumerate(encoder.tokenise([fold(text) for text in texts])):
        for window in cut(len(tokens.ids), plan):
            sequences.append(tokens.ids[window.start : window.end])
            owners.append(row)
    numbers = np.array(owners, np.int64)
    first = np.searchsorted(numbers, np.arange(len(texts)))
    return Windows(encoder.encode(sequences), numbers, first, _bags(sequences))


def _bags(sequences: Sequence[Sequence[int]]) -> sparse.csr_matrix:
    found = [lexical.terms(sequence) for sequence in sequences]
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in found)])
    buckets, values = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
    return sparse.csr_matrix((values, buckets, ends), shape=(len(sequences), lexical.BUCKETS))


def snapshot_of(rows: Sequence[SeedRow], windows: Windows) -> Snapshot:
    """The rows as the index holds them: by their first window.

    Args:
        rows: Seed rows.
        windows: Their windows.

    Returns:
        A snapshot at revision 0.
    """
    sides = []
    for label in (Label.EXTRACTION, Label.BENIGN):
        held = [number for number, row in enumerate(rows) if row.example.label == label]
        vectors = windows.embeddings[windows.first[held]]
        sides.append(Side(tuple(rows[number].example for number in held), FaissIndex(vectors)))
    return Snapshot(0, sides[0], sides[1])


def training_features(rows: Sequence[SeedRow], windows: Windows, labels: Labels) -> Floats:
    """Embedding and evidence of every window, as if no example of the row's own domain were known.

    The row itself is always left out; its domain is, too, because a new campaign's topic is a new one.

    Args:
        rows: Seed rows.
        windows: Their windows.
        labels: Techniques and capabilities.

    Returns:
        (w, features) float32.
    """
    kin: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        kin[row.domain].add(row.example.id)
    left_out = [frozenset(kin[rows[owner].domain]) for owner in windows.owners]
    found = evidence.search_leaving_out(snapshot_of(rows, windows), windows.embeddings, left_out)
    return np.hstack([windows.embeddings, evidence.features(found, labels.techniques, labels.capabilities)])
