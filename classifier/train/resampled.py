"""Figures of several labels, of two scorers and of calibration, resampled by template as in metrics.bootstrap."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from classifier.train.metrics import NOT_KNOWN, Figure, Interval, Ranking, Scores, Truth, Weights

Weighted = Callable[[Weights], Sequence[float]]
"""Figures of one scorer under (n,) weights of the rows."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A figure of two scorers on the same rows, and the difference: the first one's less the second one's."""

    first: Interval
    second: Interval
    difference: Interval


def bootstrap_pair(
    first: Weighted, second: Weighted, clusters: Sequence[Hashable], *, draws: int = 1_000, seed: int = 0
) -> list[Pair]:
    """Figures of two scorers and their differences, each draw's of the same rows.

    Args:
        first: The figures of one scorer.
        second: The same figures of the other.
        clusters: For each row its cluster, drawn as a whole.
        draws: How many resamples.
        seed: Of the resampling.

    Returns:
        A pair for each figure.
    """
    numbers, count = _numbered(clusters)
    random = np.random.default_rng(seed)
    drawn = []
    for row in range(1 + draws):
        weights = np.ones(len(numbers))
        if row:
            weights = np.bincount(random.integers(0, count, count), minlength=count)[numbers].astype(np.float64)
        drawn.append([first(weights), second(weights)])
    values = np.array(drawn, np.float64)
    sides, apart = values.transpose(1, 2, 0), (values[:, 0] - values[:, 1]).T
    return [Pair(*map(_interval, found)) for found in zip(sides[0], sides[1], apart, strict=True)]


def bootstrap_labels(
    scores: Scores,
    truth: Truth,
    clusters: Sequence[Hashable],
    figures: Sequence[Figure],
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> tuple[list[Interval], list[list[Interval]]]:
    """Figures of each label, and their means over labels, each draw's over the same rows.

    Args:
        scores: (n, labels) higher is more likely positive.
        truth: (n, labels) what is positive.
        clusters: For each row its cluster, drawn as a whole.
        figures: What to compute of each curve.
        draws: How many resamples.
        seed: Of the resampling.

    Returns:
        For each figure the interval of its mean over the labels that have both classes, and for each label the
        intervals of its figures.
    """
    labels, wanted = scores.shape[1], len(figures)
    known = [i for i in range(labels) if truth[:, i].any() and not truth[:, i].all()]
    if not known:
        return [NOT_KNOWN] * wanted, [[NOT_KNOWN] * wanted for _ in range(labels)]
    numbers, count = _numbered(clusters)
    rankings = [Ranking(scores[:, i], truth[:, i]) for i in known]
    random = np.random.default_rng(seed)
    drawn = np.empty((1 + draws, len(known), wanted))
    for row in range(1 + draws):
        weights = np.ones(len(scores))
        if row:
            weights = np.bincount(random.integers(0, count, count), minlength=count)[numbers].astype(np.float64)
        for column, ranking in enumerate(rankings):
            curve = ranking.curve(weights)
            drawn[row, column] = [figure(curve) for figure in figures]
    each = [[NOT_KNOWN] * wanted for _ in range(labels)]
    for column, label in enumerate(known):
        each[label] = [_interval(drawn[:, column, figure]) for figure in range(wanted)]
    # A draw that leaves one label without positives says nothing of the mean.
    return [_interval(drawn[:, :, figure].mean(axis=1)) for figure in range(wanted)], each


def bootstrap_calibration(
    probability: Scores,
    truth: Truth,
    clusters: Sequence[Hashable],
    *,
    bins: int = 15,
    draws: int = 1_000,
    seed: int = 0,
) -> Interval:
    """The expected calibration error of fit.expected_calibration_error, with its 95 % percentile interval.

    The error of few rows is biased upwards, and that of a resample still more so: the value may lie at the interval's
    lower end, or under it.

    Args:
        probability: (n,) in [0, 1].
        truth: (n,) what was so.
        clusters: For each row its cluster, drawn as a whole.
        bins: How many bins of equal width.
        draws: How many resamples.
        seed: Of the resampling.

    Returns:
        The error in [0, 1].
    """
    if not len(probability):
        return NOT_KNOWN
    numbers, count = _numbered(clusters)
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = np.bincount(numbers * bins + which, weights=probability - truth, minlength=count * bins)
    gaps = gaps.reshape(count, bins)
    sizes = np.bincount(numbers)
    random = np.random.default_rng(seed)
    errors = [float(np.abs(gaps.sum(axis=0)).sum() / len(probability))]
    for _ in range(draws):
        times = np.bincount(random.integers(0, count, count), minlength=count)
        errors.append(float(np.abs(times @ gaps).sum() / (times @ sizes)))
    return _interval(np.array(errors))


def _numbered(clusters: Sequence[Hashable]) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], int]:
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    return np.array([names[name] for name in clusters], np.int64), len(names)


def _interval(values: Scores) -> Interval:
    """The first value with the percentiles of the others."""
    if np.isnan(values[1:]).all():
        return Interval(float(values[0]), float("nan"), float("nan"))
    return Interval(float(values[0]), *map(float, np.nanpercentile(values[1:], [2.5, 97.5])))
