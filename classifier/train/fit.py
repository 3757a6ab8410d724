"""Fits the head on the seed corpus: regularised linear models, calibrated on cross-validated scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold

from classifier.aggregate import aggregate
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
    targets_of,
)
from classifier.train.linear import Examples, Linear, Scales, fit_linear
from classifier.train.metrics import expected_calibration_error
from classifier.windows import WindowPlan

FOLDS = 5
FLAG_FPR = 0.005
REVIEW_FPR = 0.02
HARD_WEIGHT = 0.4
"""What a hard negative counts: they are 44 % of the benign rows, but not of anybody's traffic (decision 0008)."""
FAMILIAR = 0.0005
"""Share of the seed corpus that would itself be called unfamiliar."""
_SIMULATED = 20_000

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
        length_penalty: What each unit of ln(windows) takes from the extraction logit.
        least_cosine: How near an example must be for a prompt to be judged.
        report: Cross-validated figures by name.
    """

    linear: Linear
    labels: Labels
    calibration: NDArray[np.float64]
    review: float
    flag: float
    length_penalty: float
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
    labels, scales = labels_of(rows), scales or Scales()
    targets = targets_of(rows, labels)
    progress("encoding the seed corpus")
    windows = cut_windows([row.example.text for row in rows], encoder, plan)
    embeddings = encoder.encode(windows.sequences)
    progress("searching neighbours")
    evidence = evidence_of(rows, windows, embeddings, labels)
    hard = np.array([row.kind.startswith("hard_") for row in rows])
    examples = _examples(windows, np.hstack([embeddings, evidence]), targets, hard)
    progress("cross-validating over held-out domains")
    domains = np.array([row.domain for row in rows])[windows.owners]
    logits = cross_validate(examples, windows.finer, domains, scales, encoder.dimensions, seed)
    penalty = length_penalty(logits[~examples.extraction & ~windows.finer, 0], seed)
    held_out = _by_row(logits, windows, penalty)
    calibration = np.array(
        [_platt(held_out[:, column], target) for column, target in _columns(targets, labels)], np.float64
    )
    progress("fitting on every row")
    linear = fit_linear(examples.chosen(np.flatnonzero(~windows.finer)), scales, encoder.dimensions)
    slope, offset = calibration[0]
    probability = 1 / (1 + np.exp(-(slope * held_out[:, 0] + offset)))
    benign = probability[~targets.extraction]
    flag = float(np.quantile(benign, 1 - FLAG_FPR))
    nearest = np.full(len(rows), -1.0, np.float32)
    np.maximum.at(nearest, windows.owners, np.maximum(evidence[:, 0], evidence[:, 3]))
    return FittedHead(
        linear=linear,
        labels=labels,
        calibration=calibration,
        review=float(min(np.quantile(benign, 1 - REVIEW_FPR), flag)),
        flag=flag,
        length_penalty=penalty,
        least_cosine=float(np.quantile(nearest, FAMILIAR)),
        report=_report(held_out, probability, targets, labels),
    )


def _examples(windows: Windows, features: Floats, targets: Targets, hard: Bools) -> Examples:
    owners = windows.owners
    counts = np.bincount(owners[~windows.finer], minlength=len(hard))
    return Examples(
        features=features,
        bags=bags_of(windows.sequences),
        owners=owners,
        weights=np.where(hard, HARD_WEIGHT, 1.0)[owners] / np.sqrt(counts[owners]),
        extraction=targets.extraction[owners],
        techniques=targets.techniques[owners],
        capabilities=targets.capabilities[owners],
    )


def cross_validate(
    examples: Examples, finer: Bools, groups: NDArray[np.generic], scales: Scales, dimensions: int, seed: int
) -> Floats:
    """Score every window with a head that saw no window of the same group.

    Args:
        examples: Windows of both scales; the head is fitted on those of the first.
        finer: (w,) which are of the second.
        groups: (w,) what is held out together.
        scales: How strongly each kind of feature may speak.
        dimensions: How many of the features are the embedding's.
        seed: Shuffles the folds.

    Returns:
        (w, labels) float32 logits.
    """
    count = 1 + len(set(examples.techniques[examples.extraction].tolist())) + examples.capabilities.shape[1]
    logits = np.zeros((len(groups), count), np.float32)
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    parts = list(folds.split(np.zeros(len(groups)), groups=groups))
    heads = Parallel(n_jobs=-1)(
        delayed(fit_linear)(examples.chosen(train[~finer[train]]), scales, dimensions) for train, _ in parts
    )
    for (_, test), linear in zip(parts, heads, strict=True):
        logits[test] = linear.logits(examples.features[test], examples.bags[test])
    return logits


def _by_row(logits: Floats, windows: Windows, penalty: float) -> Floats:
    ends = np.append(windows.first[1:], len(logits))
    long = np.add.reduceat(~windows.finer, windows.first)
    return np.stack(
        [
            aggregate(logits[start:end], int(count), penalty)
            for start, end, count in zip(windows.first, ends, long, strict=True)
        ]
    )


def length_penalty(benign: Floats, seed: int) -> float:
    """How fast the highest of n benign windows rises with ln(n), where the flag threshold lies.

    The windows of one long text are alike, so that their highest rises more slowly than that of windows drawn by
    chance; half of the latter's slope is taken.

    Args:
        benign: (w,) extraction logits of benign windows.
        seed: Of the drawing.

    Returns:
        What each unit of ln(windows) is to take from the logit, at least 0.
    """
    random = np.random.default_rng(seed)
    lengths = 2 ** np.arange(7)
    highest = [np.quantile(random.choice(benign, (_SIMULATED, n)).max(axis=1), 1 - FLAG_FPR) for n in lengths]
    return max(0.0, 0.5 * float(np.polyfit(np.log(lengths), highest, 1)[0]))


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
