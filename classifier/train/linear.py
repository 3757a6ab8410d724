"""The linear head over embedding, neighbour evidence and words."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
TELLING = 1.0
"""A window of a harvest prompt whose logit lies further under the prompt's highest is not learnt as harvesting."""
_LEAST_WINDOWS = 2
"""A term that one window alone holds tells nothing of others."""
HARD_WEIGHT = 0.2
"""What a hard negative counts: they are 44 % of the benign rows, but not of anybody's traffic (decision 0008)."""


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
    capability_words: float = 40.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Windows with what is known of them.

    Attributes:
        features: (w, d + e) float32: unit embedding, then neighbour evidence.
        bags: (w, buckets) sparse: words.
        owners: (w,) the number of each window's text.
        weights: (w,) what each window counts.
        hard: (w,) whether a window is of a hard negative.
        plain: (w,) whether a window is of a row as it is written, not of a variant.
        extraction: (w,) bool.
        techniques: (w,) int64, -1 for benign windows.
        capabilities: (w, capabilities) bool.
    """

    features: Floats
    bags: sparse.csr_matrix
    owners: NDArray[np.int64]
    weights: NDArray[np.float64]
    hard: Bools
    plain: Bools
    extraction: Bools
    techniques: NDArray[np.int64]
    capabilities: Bools

    def chosen(self, windows: NDArray[np.integer]) -> "Examples":
        """Some of the windows."""
        return Examples(*(getattr(self, field.name)[windows] for field in fields(self)))

    @property
    def extraction_weights(self) -> NDArray[np.float64]:
        """(w,) what each window counts for extraction: of a hard negative less."""
        return self.weights * np.where(self.hard, HARD_WEIGHT, 1.0)


@dataclass(frozen=True, slots=True)
class Scaling:
    """How features are brought to one scale before they are held back alike.

    Attributes:
        centre: (d + e,) float32; 0 for the embedding.
        spread: (d + e,) float32.
        rarity: (buckets,) float32, the inverse document frequency of each bucket.
    """

    centre: Floats
    spread: Floats
    rarity: Floats


def scaling_of(examples: Examples, scales: Scales, dimensions: int) -> Scaling:
    """The scaling that windows of rows as they are written set.

    Args:
        examples: Windows.
        scales: How strongly each kind of feature may speak.
        dimensions: How many of the features are the embedding's.

    Returns:
        The scaling.
    """
    plain = np.flatnonzero(examples.plain)
    dense = examples.features[plain]
    centre, spread = dense.mean(axis=0), dense.std(axis=0) + 1e-6
    centre[:dimensions], spread[:dimensions] = 0.0, 1.0 / scales.embedding
    spread[dimensions:] /= scales.evidence
    return Scaling(centre, spread, _rarity(examples.bags[plain]))


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
    """Fit every label: extraction and techniques on the telling windows, capabilities on rows as they are written.

    Args:
        examples: Windows.
        scales: How strongly each kind of feature may speak.
        dimensions: How many of the features are the embedding's.

    Returns:
        The head.
    """
    scaling = scaling_of(examples, scales, dimensions)
    telling = telling_windows(examples, scales, scaling)
    plain = examples.chosen(np.flatnonzero(examples.plain))
    harvest = telling.chosen(np.flatnonzero(telling.extraction))
    tasks = [
        _extraction(telling, scales),
        _Task(harvest, harvest.techniques, harvest.weights, scales.words),
        *(_Task(plain, target, plain.weights, scales.capability_words) for target in plain.capabilities.T),
    ]
    return _solved(tasks, scales, scaling)


def telling_windows(examples: Examples, scales: Scales, scaling: Scaling) -> Examples:
    """The windows without those that show nothing of their prompt's harvest, by a first fit on all of them.

    Args:
        examples: Windows.
        scales: How strongly each kind of feature may speak.
        scaling: Of the features.

    Returns:
        The others.
    """
    first = _solved([_extraction(examples, scales)], scales, scaling)
    scores = first.logits(examples.features, examples.bags)[:, 0]
    highest = np.full(int(examples.owners.max()) + 1, -np.inf, np.float32)
    np.maximum.at(highest, examples.owners, scores)
    kept = ~examples.extraction | (scores >= highest[examples.owners] - TELLING)
    return examples.chosen(np.flatnonzero(kept))


@dataclass(frozen=True, slots=True)
class _Task:
    """One label, or labels that exclude each other."""

    examples: Examples
    target: NDArray[np.generic]
    weights: NDArray[np.float64]
    words: float


def _extraction(examples: Examples, scales: Scales) -> _Task:
    return _Task(examples, examples.extraction, examples.extraction_weights, scales.words)


def _solved(tasks: Sequence[_Task], scales: Scales, scaling: Scaling) -> Linear:
    weights: list[NDArray[np.float64]] = []
    lexical: list[NDArray[np.float64]] = []
    offsets: list[float] = []
    known = np.flatnonzero(scaling.rarity)
    for task in tasks:
        dense = sparse.csr_matrix((task.examples.features - scaling.centre) / scaling.spread)
        words = _normalised(task.examples.bags, scaling.rarity)[:, known]
        inputs = sparse.hstack([dense, words * task.words]).tocsr()
        model = LogisticRegression(C=scales.regularisation, class_weight="balanced", max_iter=5_000)
        model.fit(inputs, task.target, sample_weight=task.weights)
        weights.extend(model.coef_[:, : dense.shape[1]])
        held = np.zeros((len(model.coef_), len(scaling.rarity)))
        held[:, known] = model.coef_[:, dense.shape[1] :] * task.words
        lexical.extend(held)
        offsets.extend(model.intercept_)
    found = np.array(weights).T / scaling.spread[:, None]
    bias = np.array(offsets) - scaling.centre @ found
    halves, rarity = np.array(lexical, np.float16).T, scaling.rarity.astype(np.float16)
    return Linear(found.astype(np.float32), halves, rarity, bias.astype(np.float32))


def _rarity(bags: sparse.csr_matrix) -> Floats:
    """The smoothed inverse document frequency of each bucket; 0 of one that fewer than two windows hold."""
    held = np.asarray((bags > 0).sum(axis=0)).ravel()
    found = np.where(held < _LEAST_WINDOWS, 0.0, np.log((1 + bags.shape[0]) / (1 + held)) + 1)
    return np.asarray(found, np.float16).astype(np.float32)


def _normalised(bags: sparse.csr_matrix, rarity: Floats) -> sparse.csr_matrix:
    """Weighted by rarity, every row of unit length."""
    return normalize(bags.multiply(rarity).tocsr())
