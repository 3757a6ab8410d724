"""Fits the head on the seed corpus, and calibrates it on cross-validated scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from classifier.aggregate import Pooling, aggregate
from classifier.corpus import SeedRow
from classifier.encoder import Encoder
from classifier.errors import DataRejected
from classifier.scorer import Labels
from classifier.train.features import Floats, Targets, Windows
from classifier.train.linear import Examples, Linear, Scales, fit_linear
from classifier.train.material import Material, gather
from classifier.train.metrics import expected_calibration_error
from classifier.windows import WindowPlan

FLAG_FPR = 0.005
REVIEW_FPR = 0.02
FAMILIAR = 0.0005
"""Share of the seed corpus that would itself be called unfamiliar."""
BURIED = 0.15
"""How much higher than the others the finer windows of ordinary texts may score: what is buried shows in them alone."""

Bools = NDArray[np.bool_]


class Fitted(Protocol):
    """A head that gives logits."""

    def logits(self, features: Floats, bags: sparse.csr_matrix) -> Floats:
        """(n, labels) float32 logits of (n, features) and (n, buckets)."""


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head with all that was learnt about it.

    Attributes:
        linear: The weights.
        labels: Techniques and capabilities.
        calibration: (1 + capabilities, 2) slope and offset: extraction first.
        review: The extraction probability from which a prompt is reviewed.
        flag: The extraction probability from which a prompt is flagged.
        pooling: How windows' extraction logits become a prompt's.
        least_cosine: How near an example must be for a prompt to be judged.
        report: Cross-validated figures by name.
    """

    linear: Linear
    labels: Labels
    calibration: NDArray[np.float64]
    review: float
    flag: float
    pooling: Pooling
    least_cosine: float
    report: dict[str, float]


def fit_head(
    rows: Sequence[SeedRow],
    encoder: Encoder,
    plan: WindowPlan,
    *,
    scales: Scales | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> FittedHead:
    """Fit, cross-validate over held-out domains and calibrate.

    Args:
        rows: The seed corpus.
        encoder: The encoder that will serve.
        plan: How prompts are cut.
        scales: How strongly each kind of feature may speak.
        seed: Shuffles the folds.
        progress: Told what is being done.

    Returns:
        The head.
    """
    scales = scales or Scales()
    material = gather(rows, encoder, plan, seed=seed, progress=progress)
    labels, targets, windows = material.labels, material.targets, material.windows
    progress("cross-validating over held-out domains")
    fit = partial(fit_linear, scales=scales, dimensions=encoder.dimensions)
    logits = cross_validate(material, fit)
    benign = ~targets.extraction[windows.owners]
    pooling = Pooling(finer_offset=finer_offset(logits[benign, 0], windows.finer[benign], windows.owners[benign]))
    held_out = _by_row(logits, windows, pooling)
    calibration = np.array(
        [_platt(held_out[:, column], target) for column, target in _columns(targets, labels)], np.float64
    )
    progress("fitting on every row")
    linear = fit(material.learnt)
    slope, offset = calibration[0]
    probability = 1 / (1 + np.exp(-(slope * held_out[:, 0] + offset)))
    benign = probability[~targets.extraction]
    flag = float(np.quantile(benign, 1 - FLAG_FPR))
    nearest = np.full(len(rows), -1.0, np.float32)
    evidence = material.features[:, encoder.dimensions :]
    np.maximum.at(nearest, windows.owners, np.maximum(evidence[:, 0], evidence[:, 3]))
    return FittedHead(
        linear=linear,
        labels=labels,
        calibration=calibration,
        review=float(min(np.quantile(benign, 1 - REVIEW_FPR), flag)),
        flag=flag,
        pooling=pooling,
        least_cosine=float(np.quantile(nearest, FAMILIAR)),
        report=_report(held_out, probability, targets, labels),
    )


def cross_validate(material: Material, fit: Callable[[Examples], Fitted]) -> Floats:
    """Score every window of the rows with a head that saw no text of the row's fold, as a row or in a variant.

    Args:
        material: The windows.
        fit: Fits a head; must be picklable.

    Returns:
        (w, labels) float32 logits.

    Raises:
        DataRejected: When a technique or capability is known in one fold only, and so cannot be learnt without it.
    """
    targets, windows, folds = material.targets, material.windows, material.folds
    names = [*material.labels.techniques, *material.labels.capabilities]
    carried = [targets.techniques == number for number in range(len(material.labels.techniques))]
    for name, rows in zip(names, [*carried, *targets.capabilities.T], strict=True):
        if len(set(folds[rows].tolist())) < 2:
            raise DataRejected(f'"{name}" stands in rows of one fold only: add rows of other domains that carry it')
    logits = np.zeros((len(windows.owners), 1 + len(names)), np.float32)
    numbers = sorted(set(folds.tolist()))
    heads = Parallel(n_jobs=-1)(delayed(fit)(material.learnt.chosen(material.without(folds == n))) for n in numbers)
    for number, head in zip(numbers, heads, strict=True):
        test = np.flatnonzero(folds[windows.owners] == number)
        logits[test] = head.logits(material.features[test], material.bags[test])
    return logits


def _by_row(logits: Floats, windows: Windows, pooling: Pooling) -> Floats:
    ends = np.append(windows.first[1:], len(logits))
    long = np.add.reduceat(~windows.finer, windows.first)
    return np.stack(
        [
            aggregate(logits[start:end], int(count), pooling)
            for start, end, count in zip(windows.first, ends, long, strict=True)
        ]
    )


def finer_offset(benign: Floats, finer: Bools, owners: NDArray[np.int64]) -> float:
    """How much higher than allowed the finer windows of benign texts score than their others, near the top.

    Args:
        benign: (w,) extraction logits of benign windows.
        finer: (w,) which are of the second scale.
        owners: (w,) the number of each window's row.

    Returns:
        The difference of the two scales' 99 % quantiles, over rows that are cut on both, less what is allowed; 0.0
        where no row is.
    """
    both = np.isin(owners, owners[finer])
    if not both.any():
        return 0.0
    return float(np.quantile(benign[finer], 0.99) - np.quantile(benign[both & ~finer], 0.99)) - BURIED


def _columns(targets: Targets, labels: Labels) -> list[tuple[int, Bools]]:
    first = 1 + len(labels.techniques)
    capabilities = [(first + i, targets.capabilities[:, i]) for i in range(len(labels.capabilities))]
    return [(0, targets.extraction), *capabilities]


def _platt(logits: Floats, target: Bools) -> tuple[float, float]:
    model = LogisticRegression(C=1e6).fit(logits[:, None], target)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _report(held_out: Floats, probability: Floats, targets: Targets, labels: Labels) -> dict[str, float]:
    truth = targets.extraction
    benign = held_out[~truth, 0]
    report = {
        "rows": float(len(truth)),
        "extraction_auroc": float(roc_auc_score(truth, held_out[:, 0])),
        "extraction_recall_at_1pct_fpr": float((held_out[truth, 0] > np.quantile(benign, 0.99)).mean()),
        "extraction_recall_at_01pct_fpr": float((held_out[truth, 0] > np.quantile(benign, 0.999)).mean()),
        "extraction_ece_15_bins": expected_calibration_error(probability, truth),
    }
    guesses = held_out[truth, 1 : 1 + len(labels.techniques)].argmax(axis=1)
    report["technique_accuracy"] = float((guesses == targets.techniques[truth]).mean())
    for name, (column, target) in zip(labels.capabilities, _columns(targets, labels)[1:], strict=True):
        report[f"{name}_auroc"] = float(roc_auc_score(target, held_out[:, column]))
        report[f"{name}_ap"] = float(average_precision_score(target, held_out[:, column]))
    return {name: round(value, 4) for name, value in report.items()}
