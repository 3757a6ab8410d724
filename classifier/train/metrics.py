"""Ranking figures with bootstrap intervals drawn by template, so that a template's many rows count as one witness."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]
Weights = NDArray[np.float64]
Figure = Callable[["Curve"], float]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % bootstrap interval; nan where the rows do not determine it."""

    value: float
    low: float
    high: float


NOT_KNOWN = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Curve:
    """A weighted ROC curve, from the strictest threshold to the mildest.

    Attributes:
        false_positives: Share of the negatives' weight at or over each threshold, beginning with 0.
        true_positives: Share of the positives' weight, likewise.
        precision: Positives' share of the weight at or over each threshold but the first.
    """

    false_positives: Scores
    true_positives: Scores
    precision: Scores


class Ranking:
    """Rows in the order of their scores, for curves under many weightings."""

    def __init__(self, scores: Scores, truth: Truth) -> None:
        """Sort once.

        Args:
            scores: (n,) higher is more likely positive.
            truth: (n,) what is positive.
        """
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._truth = truth[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)

    def curve(self, weights: Weights) -> Curve:
        """The curve under (n,) weights; rows of equal score stand or fall together."""
        ordered = weights[self._order]
        positives = np.cumsum(ordered * self._truth)[self._ends]
        negatives = np.cumsum(ordered * ~self._truth)[self._ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            return Curve(
                np.append(0.0, negatives / negatives[-1]),
                np.append(0.0, positives / positives[-1]),
                positives / (positives + negatives),
            )


def auroc(curve: Curve) -> float:
    """Area under the ROC curve, in [0, 1]."""
    return float(np.trapezoid(curve.true_positives, curve.false_positives))


def average_precision(curve: Curve) -> float:
    """Area under the precision-recall steps, in [0, 1]; nan where there is no positive."""
    if np.isnan(curve.true_positives[-1]):
        return float("nan")
    return float(np.nansum(np.diff(curve.true_positives) * curve.precision))


def recall_at(rate: float) -> Figure:
    """The recall at the mildest threshold whose false-positive rate does not exceed the given one."""

    def figure(curve: Curve) -> float:
        if np.isnan(curve.false_positives[-1]):
            return float("nan")
        allowed = np.flatnonzero(curve.false_positives <= rate)
        return float(curve.true_positives[allowed[-1]])

    return figure


def bootstrap(
    scores: Scores,
    truth: Truth,
    clusters: Sequence[Hashable],
    figures: Sequence[Figure],
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> list[Interval]:
    """Figures with 95 % percentile intervals over resampled clusters.

    Args:
        scores: (n,) higher is more likely positive.
        truth: (n,) what is positive.
        clusters: For each row its cluster, drawn as a whole.
        figures: What to compute of each curve.
        draws: How many resamples.
        seed: Of the resampling.

    Returns:
        An interval for each figure.
    """
    if truth.all() or not truth.any():
        return [NOT_KNOWN for _ in figures]
    ranking = Ranking(scores, truth)
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    numbers = np.array([names[name] for name in clusters])
    values = [figure(ranking.curve(np.ones(len(scores)))) for figure in figures]
    random = np.random.default_rng(seed)
    drawn = np.empty((draws, len(figures)))
    for row in drawn:
        counts = np.bincount(random.integers(0, len(names), len(names)), minlength=len(names))
        curve = ranking.curve(counts[numbers].astype(np.float64))
        row[:] = [figure(curve) for figure in figures]
    return [
        Interval(value, *map(float, np.nanpercentile(drawn[:, column], [2.5, 97.5])))
        for column, value in enumerate(values)
    ]


def cluster_means(values: Scores, clusters: Sequence[Hashable], *, draws: int = 1_000, seed: int = 0) -> list[Interval]:
    """Means of columns with 95 % percentile intervals over resampled clusters.

    Args:
        values: (n, columns).
        clusters: For each row its cluster, drawn as a whole.
        draws: How many resamples.
        seed: Of the resampling.

    Returns:
        An interval for each column.
    """
    if not len(values):
        return [NOT_KNOWN] * values.shape[1]
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    numbers = np.array([names[name] for name in clusters])
    sizes = np.bincount(numbers)
    sums = np.stack([np.bincount(numbers, weights=column) for column in values.T], axis=1)
    random = np.random.default_rng(seed)
    drawn = np.empty((draws, values.shape[1]))
    for row in drawn:
        chosen = random.integers(0, len(names), len(names))
        row[:] = sums[chosen].sum(axis=0) / sizes[chosen].sum()
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    means = values.mean(axis=0)
    return [Interval(*map(float, found)) for found in zip(means, low, high, strict=True)]


def expected_calibration_error(probability: NDArray[np.floating], truth: Truth, bins: int = 15) -> float:
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
