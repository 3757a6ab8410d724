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
    labels_of,
    snapshot_of,
    targets_of,
)
from classifier.train.linear import Examples, joined
from classifier.train.variants import cut_variants, variants
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
    """

    labels: Labels
    targets: Targets
    windows: Windows
    features: Floats
    bags: sparse.csr_matrix
    learnt: Examples
    rows_of: NDArray[np.int64]


def gather(
    rows: Sequence[SeedRow],
    encoder: Encoder,
    plan: WindowPlan,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Material:
    """Cut, encode and compare the rows and their variants.

    Args:
        rows: The seed corpus.
        encoder: The encoder that will serve.
        plan: How prompts are cut.
        seed: Draws the variants.
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
    found = variants(rows, seed)
    views, origins = cut_variants(found, encoder, plan)
    changed = encoder.encode(views.sequences)
    progress("searching their neighbours")
    bases = [(variant.row, *variant.around) for variant in found]
    near = evidence_of(rows, snapshot, changed, [bases[origins[view]] for view in views.owners.tolist()], labels)
    long = np.flatnonzero(~windows.finer)
    parts = (
        (windows.owners[long], windows.owners[long], features[long], bags[long]),
        (
            views.owners + len(rows),
            np.array([found[origin].row for origin in origins], np.int64)[views.owners],
            np.hstack([changed, near]),
            bags_of(views.sequences),
        ),
    )
    learnt = [
        Examples(
            features=dense,
            bags=words,
            owners=owners,
            weights=1 / np.sqrt(np.bincount(owners)[owners]),
            hard=hard[rows_of],
            plain=owners == rows_of,
            extraction=targets.extraction[rows_of],
            techniques=targets.techniques[rows_of],
            capabilities=targets.capabilities[rows_of],
        )
        for owners, rows_of, dense, words in parts
    ]
    return Material(
        labels, targets, windows, features, bags, joined(learnt), np.concatenate([part[1] for part in parts])
    )
