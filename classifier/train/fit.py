"""Fits the head on the seed corpus: regularised linear models, calibrated on cross-validated scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import normalize

from classifier.corpus import SeedRow
from classifier.encoder import Encoder
from classifier.evidence import width as evidence_width
from classifier.scorer import Labels, aggregate
from classifier.train.features import Floats, Windows, encode_windows, labels_of, training_features
from classifier.windows import WindowPlan
from index.example import Label

FOLDS = 5
REGULARISATION = 0.03
EMBEDDING_SCALE = 8.0
EVIDENCE_SCALE = 0.5
LEXICAL_SCALE = 15.0
CAPABILITY_LEXICAL_SCALE = 25.0
FLAG_FPR = 0.005
REVIEW_FPR = 0.02

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A linear head with all that was learnt about it.

    Attributes:
        linear: The weights.
        labels: Techniques and capabilities.
        calibration: (1 + capabilities, 2) slope and offset: extraction first.
        review: The extraction probability from which a prompt is reviewed.
        flag: The extraction probability from which a prompt is flagged.
        report: Cross-validated figures by name.
    """

    linear: "Linear"
    labels: Labels
    calibration: NDArray[np.float64]
    review: float
    flag: float
    report: dict[str, float]


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


@dataclass(frozen=True, slots=True)
class _Design:
    """Features of every window with the targets of its row."""

    features: Floats
    bags: sparse.csr_matrix
    owners: NDArray[np.int64]
    weights: NDArray[np.float64]
    domains: NDArray[np.str_]
    extraction: Bools
    techniques: NDArray[np.int64]
    capabilities: Bools


def fit_head(
    rows: Sequence[SeedRow],
    encoder: Encoder,
    plan: WindowPlan,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> FittedHead:
    """Fit, cross-validate over held-out domains and calibrate.

    Args:
        rows: The seed corpus.
        encoder: The encoder that will serve.
        plan: How prompts are cut.
        seed: Shuffles the folds.
        progress: Told what is being done.

    Returns:
        The head.
    """
    labels = labels_of(rows)
    progress("encoding the seed corpus")
    windows = encode_windows([row.example.text for row in rows], encoder, plan)
    progress("searching neighbours")
    design = _design(rows, windows, labels)
    progress("cross-validating over held-out domains")
    held_out = _cross_validate(design, labels, seed)
    calibration = np.array(
        [_platt(held_out[:, column], target) for column, target in _targets(design, labels)], np.float64
    )
    progress("fitting on every row")
    linear = _fit(design, np.arange(len(design.owners)), labels)
    slope, offset = calibration[0]
    probability = 1 / (1 + np.exp(-(slope * held_out[:, 0] + offset)))
    benign = probability[~design.extraction]
    flag = float(np.quantile(benign, 1 - FLAG_FPR))
    review = float(min(np.quantile(benign, 1 - REVIEW_FPR), flag))
    report = _report(held_out, probability, design, labels)
    return FittedHead(linear, labels, calibration, review, flag, report)


def _design(rows: Sequence[SeedRow], windows: Windows, labels: Labels) -> _Design:
    counts = np.bincount(windows.owners)
    names = list(labels.techniques)
    return _Design(
        features=training_features(rows, windows, labels),
        bags=windows.bags,
        owners=windows.owners,
        weights=1.0 / np.sqrt(counts[windows.owners]),
        domains=np.array([row.domain for row in rows]),
        extraction=np.array([row.example.label == Label.EXTRACTION for row in rows]),
        techniques=np.array([names.index(row.example.technique) if row.example.technique else -1 for row in rows]),
        capabilities=np.array([[name in row.example.capabilities for name in labels.capabilities] for row in rows]),
    )


def _fit(design: _Design, chosen: NDArray[np.int64], labels: Labels) -> Linear:
    """Fit every label on the chosen windows; the features' scaling is folded into the weights."""
    features, owners, importance = design.features[chosen], design.owners[chosen], design.weights[chosen]
    width = features.shape[1] - evidence_width(len(labels.techniques), len(labels.capabilities))
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    centre[:width], spread[:width] = 0.0, 1.0 / EMBEDDING_SCALE
    spread[width:] /= EVIDENCE_SCALE
    rarity = _rarity(design.bags[chosen])
    words = _normalised(design.bags[chosen], rarity)
    scaled = sparse.csr_matrix((features - centre) / spread)
    dense, lexical, offsets = [], [], []

    def solve(target: NDArray[np.generic], among: Bools, scale: float) -> None:
        inputs = sparse.hstack([scaled[among], words[among] * scale]).tocsr()
        model = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=5_000)
        model.fit(inputs, target[among], sample_weight=importance[among])
        dense.extend(model.coef_[:, : features.shape[1]])
        lexical.extend(model.coef_[:, features.shape[1] :] * scale)
        offsets.extend(model.intercept_)

    everything, harvest = np.ones(len(owners), bool), design.extraction[owners]
    solve(harvest, everything, LEXICAL_SCALE)
    solve(design.techniques[owners], harvest, LEXICAL_SCALE)
    for column in range(len(labels.capabilities)):
        solve(design.capabilities[owners, column], everything, CAPABILITY_LEXICAL_SCALE)
    weights = np.array(dense).T / spread[:, None]
    bias = np.array(offsets) - centre @ weights
    halves = np.array(lexical, np.float16).T
    return Linear(weights.astype(np.float32), halves, rarity.astype(np.float16), bias.astype(np.float32))


def _rarity(bags: sparse.csr_matrix) -> Floats:
    """The smoothed inverse document frequency of each bucket."""
    held = np.asarray((bags > 0).sum(axis=0)).ravel()
    return np.asarray(np.log((1 + bags.shape[0]) / (1 + held)) + 1, np.float16).astype(np.float32)


def _normalised(bags: sparse.csr_matrix, rarity: Floats) -> sparse.csr_matrix:
    """Weighted by rarity, every row of unit length."""
    return normalize(bags.multiply(rarity).tocsr())


def _cross_validate(design: _Design, labels: Labels, seed: int) -> Floats:
    """(rows, labels) aggregated logits, each from a head that saw no row of the same domain."""
    rows = len(design.domains)
    logits = np.zeros((rows, 1 + len(labels.techniques) + len(labels.capabilities)), np.float32)
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(np.zeros(rows), groups=design.domains):
        linear = _fit(design, np.flatnonzero(np.isin(design.owners, train)), labels)
        for row in test:
            own = slice(*np.searchsorted(design.owners, [row, row + 1]))
            logits[row] = aggregate(linear.logits(design.features[own], design.bags[own]))
    return logits


def _targets(design: _Design, labels: Labels) -> list[tuple[int, Bools]]:
    first = 1 + len(labels.techniques)
    capabilities = [(first + i, design.capabilities[:, i]) for i in range(len(labels.capabilities))]
    return [(0, design.extraction), *capabilities]


def _platt(logits: Floats, target: Bools) -> tuple[float, float]:
    model = LogisticRegression(C=1e6).fit(logits[:, None], target)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _report(held_out: Floats, probability: Floats, design: _Design, labels: Labels) -> dict[str, float]:
    truth = design.extraction
    report = {
        "rows": float(len(truth)),
        "extraction_auroc": float(roc_auc_score(truth, held_out[:, 0])),
        "extraction_recall_at_1pct_fpr": float((held_out[truth, 0] > np.quantile(held_out[~truth, 0], 0.99)).mean()),
        "extraction_ece_15_bins": expected_calibration_error(probability, truth),
    }
    guesses = held_out[truth, 1 : 1 + len(labels.techniques)].argmax(axis=1)
    report["technique_accuracy"] = float((guesses == design.techniques[truth]).mean())
    for name, (column, target) in zip(labels.capabilities, _targets(design, labels)[1:], strict=True):
        report[f"{name}_auroc"] = float(roc_auc_score(target, held_out[:, column]))
        report[f"{name}_ap"] = float(average_precision_score(target, held_out[:, column]))
    return {name: round(value, 4) for name, value in report.items()}


def expected_calibration_error(probability: NDArray[np.floating], truth: Bools, bins: int = 15) -> float:
    """The mean distance of confidence and frequency over bins of equal width, weighted by their rows.

    Args:
        probability: (n,) in [0, 1].
        truth: (n,) what was so.
        bins: How many bins.

    Returns:
        The error in [0, 1].
    """
    which = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = which == number
        if inside.any():
            error += inside.mean() * abs(float(probability[inside].mean()) - float(truth[inside].mean()))
    return float(error)
