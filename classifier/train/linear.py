"""The linear head over embedding, neighbour evidence and words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
TELLING = 1.0
"""A window of a harvest prompt whose logit lies further under the prompt's highest is not learnt as harvesting."""


@dataclass(frozen=True, slots=True)
class Scales:
    """How strongly each kind of feature may speak, and how strongly all are held back.

    Attributes:
        regularisation: The inverse strength of the penalty.
        embedding: Of the unit embedding.
        evidence: Of the neighbour evidence, standardised.
        words: Of the unit bags of words, for extraction and techniques.
        capability_words: The same for capabilities.
    """

    regularisation: float = 0.03
    embedding: float = 8.0
    evidence: float = 0.5
    words: float = 15.0
    capability_words: float = 25.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Windows with what is known of them.

    Attributes:
        features: (w, d + e) float32: unit embedding, then neighbour evidence.
        bags: (w, buckets) sparse: words.
        owners: (w,) the number of each window's row.
        weights: (w,) what each window counts.
        extraction: (w,) bool.
        techniques: (w,) int64, -1 for benign windows.
        capabilities: (w, capabilities) bool.
    """

    features: Floats
    bags: sparse.csr_matrix
    owners: NDArray[np.int64]
    weights: NDArray[np.float64]
    extraction: Bools
    techniques: NDArray[np.int64]
    capabilities: Bools

    def chosen(self, windows: NDArray[np.integer]) -> "Examples":
        """Some of the windows."""
        return Examples(
            self.features[windows],
            self.bags[windows],
            self.owners[windows],
            self.weights[windows],
            self.extraction[windows],
            self.techniques[windows],
            self.capabilities[windows],
        )


@dataclass(frozen=True, slots=True)
class Linear:
    """Features and words to logits.

    Attributes:
        weights: (features, labels) float32.
        lexical: (buckets, labels) float16, so that the head stays small.
        rarity: (buckets,) float16, the inverse document frequency of each bucket.
        bias: (labels,) float32.
    """

    weights: Floats
    lexical: NDArray[np.float16]
    rarity: NDArray[np.float16]
    bias: Floats

    def logits(self, features: Floats, bags: sparse.csr_matrix) -> Floats:
        """(n, labels) float32 logits of (n, features) and (n, buckets)."""
        words = _normalised(bags, self.rarity.astype(np.float32)) @ self.lexical.astype(np.float32)
        return np.asarray(features @ self.weights + words + self.bias, np.float32)


def fit_linear(examples: Examples, scales: Scales, dimensions: int) -> Linear:
    """Fit every label, twice: first on all windows, then without those that show nothing of their prompt's harvest.

    Args:
        examples: Windows.
        scales: How strongly each kind of feature may speak.
        dimensions: How many of the features are the embedding's.

    Returns:
        The head.
    """
    first = _fit(examples, scales, dimensions, only_extraction=True)
    scores = first.logits(examples.features, examples.bags)[:, 0]
    highest = np.full(int(examples.owners.max()) + 1, -np.inf, np.float32)
    np.maximum.at(highest, examples.owners, scores)
    kept = ~examples.extraction | (scores >= highest[examples.owners] - TELLING)
    return _fit(examples.chosen(np.flatnonzero(kept)), scales, dimensions)


def _fit(examples: Examples, scales: Scales, dimensions: int, *, only_extraction: bool = False) -> Linear:
    """Fit the labels; the features' scaling is folded into the weights."""
    dense = examples.features
    centre, spread = dense.mean(axis=0), dense.std(axis=0) + 1e-6
    centre[:dimensions], spread[:dimensions] = 0.0, 1.0 / scales.embedding
    spread[dimensions:] /= scales.evidence
    rarity = _rarity(examples.bags)
    words = _normalised(examples.bags, rarity)
    scaled = sparse.csr_matrix((dense - centre) / spread)
    weights, lexical, offsets = [], [], []

    def solve(target: NDArray[np.generic], among: Bools, scale: float) -> None:
        inputs = sparse.hstack([scaled[among], words[among] * scale]).tocsr()
        model = LogisticRegression(C=scales.regularisation, class_weight="balanced", max_iter=5_000)
        model.fit(inputs, target[among], sample_weight=examples.weights[among])
        weights.extend(model.coef_[:, : dense.shape[1]])
        lexical.extend(model.coef_[:, dense.shape[1] :] * scale)
        offsets.extend(model.intercept_)

    everything = np.ones(len(dense), bool)
    solve(examples.extraction, everything, scales.words)
    if not only_extraction:
        solve(examples.techniques, examples.extraction, scales.words)
        for column in range(examples.capabilities.shape[1]):
            solve(examples.capabilities[:, column], everything, scales.capability_words)
    found = np.array(weights).T / spread[:, None]
    bias = np.array(offsets) - centre @ found
    halves = np.array(lexical, np.float16).T
    return Linear(found.astype(np.float32), halves, rarity.astype(np.float16), bias.astype(np.float32))


def _rarity(bags: sparse.csr_matrix) -> Floats:
    """The smoothed inverse document frequency of each bucket."""
    held = np.asarray((bags > 0).sum(axis=0)).ravel()
    return np.asarray(np.log((1 + bags.shape[0]) / (1 + held)) + 1, np.float16).astype(np.float32)


def _normalised(bags: sparse.csr_matrix, rarity: Floats) -> sparse.csr_matrix:
    """Weighted by rarity, every row of unit length."""
    return normalize(bags.multiply(rarity).tocsr())
