"""What training learns from: the windows of every seed row and of its variants, encoded, with their neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from classifier.corpus import SeedRow
from classifier.encoder import Encoder
from classifier.scorer import Labels
from classifier.train.features import (
    Floats,
    Targets,
    Windows,
    bags_of,
    cut_windows,
    evidence_of,
    folds_of,
    labels_of,
    snapshot_of,
    targets_of,
)
from classifier.train.linear import Examples
from classifier.train.variants import Variant, cut_variants, variants
from classifier.windows import WindowPlan


@dataclass(frozen=True, slots=True)
class Material:
    """The seed corpus, ready to be learnt from and scored.

    Attributes:
        labels: Techniques and capabilities.
        targets: What the rows are.
        windows: The windows of the rows, on both scales.
        features: (w, d + e) float32 of those windows.
        bags: (w, buckets) sparse: their words.
        learnt: What a head is fitted on: the rows' windows of the first scale, then those of the variants.
        rows_of: (learnt,) of each window there the number of its row.
        standing: (learnt, rows) sparse bool: which rows' text may stand in it.
        folds: (rows,) the fold of each row.
    """

    labels: Labels
    targets: Targets
    windows: Windows
    features: Floats
    bags: sparse.csr_matrix
    learnt: Examples
    rows_of: NDArray[np.int64]
    standing: sparse.csr_matrix
    folds: NDArray[np.int64]

    def without(self, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The numbers of the learnt windows in which no text of the given rows stands."""
        return np.flatnonzero(self.standing @ rows.astype(np.int32) == 0)


def gather(
    rows: Sequence[SeedRow],
    encoder: Encoder,
    plan: WindowPlan,
    *,
    seed: int = 0,
    changed: Callable[[Sequence[SeedRow], NDArray[np.int64], int], list[Variant]] = variants,
    progress: Callable[[str], None] = lambda _: None,
) -> Material:
    """Cut, encode and compare the rows and their variants.

    Args:
        rows: The seed corpus.
        encoder: The encoder that will serve.
        plan: How prompts are cut.
        seed: Draws the variants.
        changed: Makes the variants of rows, given their folds and the seed.
        progress: Told what is being done.

    Returns:
        The material.
    """
    labels = labels_of(rows)
    targets, hard = targets_of(rows, labels), np.array([row.kind.startswith("hard_") for row in rows])
    progress("encoding the seed corpus")
    windows = cut_windows([row.example.text for row in rows], encoder, plan)
    embeddings = encoder.encode(windows.sequences)
    snapshot = snapshot_of(rows, windows, embeddings)
    progress("searching neighbours")
    near = evidence_of(rows, snapshot, embeddings, [(owner,) for owner in windows.owners.tolist()], labels)
    features, bags = np.hstack([embeddings, near]), bags_of(windows.sequences)
    progress("encoding variants: rows among other text and in disguise")
    folds = folds_of(rows, seed)
    found = changed(rows, folds, seed)
    views, origins = cut_variants(found, encoder, plan)
    embedded = encoder.encode(views.sequences)
    progress("searching their neighbours")
    bases = [(variant.row, *variant.around) for variant in found]
    near = evidence_of(rows, snapshot, embedded, [bases[origin] for origin in origins[views.owners].tolist()], labels)
    long = np.flatnonzero(~windows.finer)
    owners = np.concatenate([windows.owners[long], len(rows) + views.owners])
    rows_of = np.concatenate(
        [windows.owners[long], np.array([variant.row for variant in found], np.int64)[origins[views.owners]]]
    )
    standing = _standing(
        [
            *((owner,) for owner in windows.owners[long].tolist()),
            *(bases[origin] for origin in origins[views.owners].tolist()),
        ],
        len(rows),
    )
    # A variant of which two views are learnt counts as one; a benign one is as hard as any row that stands in it.
    views_of = np.concatenate([np.ones(len(rows), np.int64), np.bincount(origins)[origins]])
    learnt = Examples(
        features=np.vstack([features[long], np.hstack([embedded, near])]),
        bags=sparse.vstack([bags[long], bags_of(views.sequences)]).tocsr(),
        owners=owners,
        weights=1 / np.sqrt(np.bincount(owners)[owners]) / views_of[owners],
        hard=~targets.extraction[rows_of] & (standing @ hard.astype(np.int32) > 0),
        plain=owners < len(rows),
        extraction=targets.extraction[rows_of],
        techniques=targets.techniques[rows_of],
        capabilities=targets.capabilities[rows_of],
    )
    return Material(labels, targets, windows, features, bags, learnt, rows_of, standing, folds)


def _standing(bases: Sequence[Sequence[int]], rows: int) -> sparse.csr_matrix:
    """(windows, rows) bool: which rows' text may stand in each window."""
    ends = np.append(0, np.cumsum([len(numbers) for numbers in bases]))
    columns = np.array([number for numbers in bases for number in numbers], np.int64)
    found = sparse.csr_matrix((np.ones(len(columns), np.int32), columns, ends), shape=(len(bases), rows))
    found.sum_duplicates()
    return found
