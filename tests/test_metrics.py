"""Ranking figures against scikit-learn and brute force, their bootstrap intervals, and the calibration error."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from classifier.train.metrics import (
    Figure,
    Interval,
    Ranking,
    Scores,
    Truth,
    Weights,
    auroc,
    average_precision,
    bootstrap,
    expected_calibration_error,
    recall_at,
)

FIGURES: list[Figure] = [auroc, average_precision, recall_at(0.1)]
RATES = st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.25, 0.5, 0.75, 1.0])


class Rows(NamedTuple):
    """Scored rows with their weights."""

    scores: Scores
    truth: Truth
    weights: Weights


@st.composite
def weighted_rows(draw: st.DrawFn, weight: st.SearchStrategy[float] | None = None) -> Rows:
    """Rows with many ties, both classes, and weights that leave something of each class."""
    truth = [True, False, *draw(st.lists(st.booleans(), max_size=30))]
    scores = draw(st.lists(st.integers(-3, 3), min_size=len(truth), max_size=len(truth)))
    other = st.integers(0, 3).map(float) if weight is None else weight
    weights = [1.0, 2.0, *draw(st.lists(other, min_size=len(truth) - 2, max_size=len(truth) - 2))]
    order = draw(st.permutations(range(len(truth))))
    return Rows(np.array(scores, np.float64)[order] / 4, np.array(truth)[order], np.array(weights)[order])


def recall_by_brute_force(rows: Rows, rate: float) -> float:
    """Try every threshold; the rows at or over it are called positive."""
    best = 0.0
    for threshold in set(rows.scores):
        called = rows.scores >= threshold
        false_positives = rows.weights[called & ~rows.truth].sum() / rows.weights[~rows.truth].sum()
        if false_positives <= rate:
            best = max(best, rows.weights[called & rows.truth].sum() / rows.weights[rows.truth].sum())
    return best


def sample(seed: int, rows: int = 120, shift: float = 1.0) -> tuple[Scores, Truth]:
    """Rows whose classes overlap, a third of them positive."""
    random = np.random.default_rng(seed)
    truth = np.arange(rows) % 3 == 0
    return random.standard_normal(rows) + shift * truth, truth


def width(interval: Interval) -> float:
    return interval.high - interval.low


# Figures.


@settings(max_examples=150, deadline=None)
@given(weighted_rows() | weighted_rows(st.floats(0.01, 100)))
def test_auroc_equals_scikit_learns_with_ties_and_weights(rows: Rows) -> None:
    curve = Ranking(rows.scores, rows.truth).curve(rows.weights)
    assert auroc(curve) == pytest.approx(roc_auc_score(rows.truth, rows.scores, sample_weight=rows.weights), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(weighted_rows() | weighted_rows(st.floats(0.01, 100)))
def test_average_precision_equals_scikit_learns_with_ties_and_weights(rows: Rows) -> None:
    curve = Ranking(rows.scores, rows.truth).curve(rows.weights)
    expected = average_precision_score(rows.truth, rows.scores, sample_weight=rows.weights)
    assert average_precision(curve) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(weighted_rows(), RATES)
def test_recall_at_a_rate_equals_that_of_the_best_threshold(rows: Rows, rate: float) -> None:
    curve = Ranking(rows.scores, rows.truth).curve(rows.weights)
    assert recall_at(rate)(curve) == pytest.approx(recall_by_brute_force(rows, rate), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(weighted_rows())
def test_a_weight_counts_as_that_many_copies_of_the_row(rows: Rows) -> None:
    copies = rows.weights.astype(np.int64)
    ranking = Ranking(np.repeat(rows.scores, copies), np.repeat(rows.truth, copies))
    copied = ranking.curve(np.ones(copies.sum()))
    weighted = Ranking(rows.scores, rows.truth).curve(rows.weights)
    for figure in FIGURES:
        assert figure(weighted) == pytest.approx(figure(copied), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(weighted_rows(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows: Rows, random: Random) -> None:
    order = list(range(len(rows.scores)))
    random.shuffle(order)
    curve = Ranking(rows.scores, rows.truth).curve(rows.weights)
    shuffled = Ranking(rows.scores[order], rows.truth[order]).curve(rows.weights[order])
    for figure in FIGURES:
        assert figure(shuffled) == pytest.approx(figure(curve), abs=1e-12)


def test_the_curve_of_known_rows_is_known() -> None:
    scores, truth = np.array([0.9, 0.7, 0.7, 0.1]), np.array([True, True, False, False])
    curve = Ranking(scores, truth).curve(np.ones(4))
    assert curve.false_positives.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert curve.true_positives.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert curve.precision.tolist() == [1.0, pytest.approx(2 / 3), 0.5]
    assert auroc(curve) == 0.875
    assert average_precision(curve) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert [recall_at(rate)(curve) for rate in (0.0, 0.49, 0.5, 1.0)] == [0.5, 0.5, 1.0, 1.0]


def test_a_perfect_ranking_has_full_figures_and_a_reversed_one_the_least() -> None:
    scores, truth = np.arange(10.0), np.arange(10) >= 6
    best = Ranking(scores, truth).curve(np.ones(10))
    assert [figure(best) for figure in (auroc, average_precision, recall_at(0.0))] == [1.0, 1.0, 1.0]
    worst = Ranking(-scores, truth).curve(np.ones(10))
    assert (auroc(worst), recall_at(0.9)(worst)) == (0.0, 0.0)


def test_equal_scores_rank_nothing() -> None:
    truth = np.array([True, False, False, False])
    curve = Ranking(np.zeros(4), truth).curve(np.ones(4))
    assert (auroc(curve), average_precision(curve), recall_at(0.5)(curve)) == (0.5, 0.25, 0.0)


def test_no_recall_is_known_when_the_weights_leave_one_class() -> None:
    ranking = Ranking(np.array([0.9, 0.1]), np.array([True, False]))
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        curve = ranking.curve(np.array(weights))
        assert np.isnan(auroc(curve))
        assert np.isnan(recall_at(0.5)(curve))


# Bootstrap.


@pytest.mark.parametrize("seed", range(5))
def test_an_interval_holds_its_value_and_stays_in_the_unit_interval(seed: int) -> None:
    scores, truth = sample(seed)
    intervals = bootstrap(scores, truth, range(len(scores)), FIGURES, draws=200, seed=seed)
    for interval in intervals:
        assert 0.0 <= interval.low < interval.value < interval.high <= 1.0


def test_an_interval_is_made_of_the_middle_95_percent_of_the_draws() -> None:
    scores, truth = sample(0, rows=9)
    calls = iter(range(1_001))  # 0 is the value, 1 to 1000 are the draws
    (interval,) = bootstrap(scores, truth, range(9), [lambda _: float(next(calls))], draws=1_000)
    assert interval.value == 0.0
    assert (interval.low, interval.high) == pytest.approx((25.975, 975.025))


def test_the_value_is_that_of_the_rows_as_they_are() -> None:
    scores, truth = sample(0)
    curve = Ranking(scores, truth).curve(np.ones(len(scores)))
    intervals = bootstrap(scores, truth, [row // 3 for row in range(len(scores))], FIGURES, draws=20)
    assert [interval.value for interval in intervals] == [figure(curve) for figure in FIGURES]
    assert intervals[0].value == pytest.approx(roc_auc_score(truth, scores))


@pytest.mark.parametrize("label", [True, False])
def test_rows_of_a_single_class_determine_nothing(label: bool) -> None:  # noqa: FBT001  # pytest passes by name
    intervals = bootstrap(np.arange(4.0), np.full(4, label), range(4), FIGURES, draws=5)
    assert len(intervals) == len(FIGURES)
    for interval in intervals:
        assert np.isnan([interval.value, interval.low, interval.high]).all()


def test_no_rows_determine_nothing() -> None:
    (interval,) = bootstrap(np.zeros(0), np.zeros(0, bool), [], [auroc])
    assert np.isnan([interval.value, interval.low, interval.high]).all()


def test_copies_of_rows_narrow_a_row_bootstrap_but_not_a_clustered_one() -> None:
    scores, truth = sample(1, rows=60)
    copies = 20
    many, labels = np.repeat(scores, copies), np.repeat(truth, copies)
    templates = [int(row) for row in np.repeat(np.arange(len(scores)), copies)]
    single = bootstrap(scores, truth, range(len(scores)), FIGURES, draws=400)
    by_row = bootstrap(many, labels, range(len(many)), FIGURES, draws=400)
    by_template = bootstrap(many, labels, templates, FIGURES, draws=400)
    for alone, rows, clusters in zip(single, by_row, by_template, strict=True):
        assert clusters.value == pytest.approx(rows.value)
        assert width(clusters) > 2 * width(rows)
        # A copy is no new witness: the clusters say exactly what their single rows said.
        assert (clusters.low, clusters.high) == pytest.approx((alone.low, alone.high))


def test_one_cluster_is_always_drawn_whole() -> None:
    scores, truth = sample(2)
    for interval in bootstrap(scores, truth, ["all"] * len(scores), FIGURES, draws=20):
        assert interval.low == pytest.approx(interval.value)
        assert interval.high == pytest.approx(interval.value)


@pytest.mark.parametrize("clusters", [list(range(60)), [f"t{row % 20}" for row in range(60)]])
def test_the_same_seed_draws_the_same_interval_and_another_seed_another(clusters: Sequence[int | str]) -> None:
    scores, truth = sample(3, rows=60)
    first = bootstrap(scores, truth, clusters, FIGURES, draws=50, seed=7)
    assert bootstrap(scores, truth, clusters, FIGURES, draws=50, seed=7) == first
    assert bootstrap(scores, truth, clusters, FIGURES, draws=50, seed=8) != first


def test_draws_without_one_class_are_left_out_of_an_aurocs_interval() -> None:
    # One positive row of three: many draws hold none of it, or nothing else.
    scores, truth = np.array([0.9, 0.1, 0.2]), np.array([True, False, False])
    (interval,) = bootstrap(scores, truth, range(3), [auroc], draws=200)
    assert interval == Interval(1.0, 1.0, 1.0)


# Calibration error.


@pytest.mark.parametrize(
    ("probability", "truth", "bins", "error"),
    [
        ([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], 15, 0.0),
        ([1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1], 15, 1.0),
        ([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], 15, 0.1),
        ([0.2, 0.4], [1, 0], 2, 0.2),  # one bin: mean 0.3 against a frequency of 0.5
        ([0.2, 0.4], [1, 0], 5, 0.6),  # two bins: (0.8 + 0.4) / 2
        ([0.95, 1.0], [1, 0], 10, 0.475),  # a probability of 1 stands in the last bin
        ([0.1, 0.1, 0.1, 0.9], [0, 0, 0, 0], 2, 0.3),  # 3/4 * 0.1 + 1/4 * 0.9
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 15, 0.0),
        ([0.49, 0.51], [0, 1], 2, 0.49),  # on both sides of a bin's edge
        ([0.5, 0.51], [0, 1], 2, 0.005),  # an edge belongs to the upper bin
        ([0.7], [1], 15, 0.3),
    ],
)
def test_the_calibration_error_of_known_rows_is_known(
    probability: list[float], truth: list[int], bins: int, error: float
) -> None:
    found = expected_calibration_error(np.array(probability), np.array(truth, bool), bins)
    assert found == pytest.approx(error, abs=1e-12)


def test_the_calibration_error_has_15_bins_unless_told_otherwise() -> None:
    # 0.06 and 0.07 stand on both sides of 1/15.
    probability, truth = np.array([0.06, 0.07]), np.array([True, False])
    assert expected_calibration_error(probability, truth) == pytest.approx((0.94 + 0.07) / 2)
    assert expected_calibration_error(probability, truth, 14) == pytest.approx(0.5 - 0.065)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 20))
@example([(1.0, False)], 1)
def test_a_calibration_error_lies_between_the_overall_gap_and_the_mean_distance(
    rows: list[tuple[float, bool]], bins: int
) -> None:
    probability = np.array([value for value, _ in rows])
    truth = np.array([label for _, label in rows])
    error = expected_calibration_error(probability, truth, bins)
    assert abs(probability.mean() - truth.mean()) - 1e-9 <= error <= np.abs(probability - truth).mean() + 1e-9
