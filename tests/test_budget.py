"""Thresholds from benign traffic: what a sample can show, and which threshold it gives."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from classifier.budget import LEAST_BUDGET, MOST_BUDGET, choose, interval, parse_budget, rows_needed
from classifier.errors import DataRejected

BUDGETS = st.floats(LEAST_BUDGET, MOST_BUDGET)
COARSE = st.floats(0.05, MOST_BUDGET)
PROBABILITIES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 0.999, 1.0]), min_size=60, max_size=150)


def allowed(budget: float, total: int) -> int:
    """How many rows may exceed: the budget as it is written, times the rows, rounded down."""
    return math.floor(Fraction(str(budget)) * total)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("0.1%", 0.001),
        ("0.001", 0.001),
        ("1 %", 0.01),
        (" .5% ", 0.005),
        ("20%", 0.2),
        ("0.2", 0.2),
        ("0.001%", 0.00001),
        ("1e-05", 0.00001),
        ("0.29 %", 0.0029),
    ],
)
def test_a_budget_is_read_as_it_is_written(text: str, share: float) -> None:
    assert parse_budget(text) == share


@pytest.mark.parametrize(
    "text", ["", "%", "much", "0,1%", "-1%", "1%%", "1 per mille", "nan", "1_0%", "\u0660.\u0661", "0.1\n%x"]
)
def test_what_is_no_share_is_refused_in_one_line_with_the_right_form(text: str) -> None:
    with pytest.raises(DataRejected, match=r"^the budget '.*' is no share: write it like 0\.1% or 0\.001$") as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("0", "0%"), ("0.0009%", "0.0009%"), ("20.1%", "20.1%"), ("1", "100%"), ("9e99", "9e+101%")]
)
def test_a_budget_out_of_bounds_is_refused_with_the_bounds(text: str, said: str) -> None:
    with pytest.raises(DataRejected, match=r"out of bounds: take one from 0\.001% to 20%$") as caught:
        parse_budget(text)
    assert str(caught.value).startswith(f"a budget of {said} ")


@given(budget=BUDGETS)
def test_a_budget_that_python_prints_is_read_back(budget: float) -> None:
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("budget", "rows"),
    [(0.2, 14), (0.1, 29), (0.05, 59), (0.01, 299), (0.005, 598), (0.001, 2_995), (0.0001, 29_956), (0.00001, 299_572)],
)
def test_the_rows_that_a_budget_needs_are_the_textbooks(budget: float, rows: int) -> None:
    assert rows_needed(budget) == rows


@given(budget=BUDGETS, confidence=st.floats(0.5, 0.999))
def test_the_rows_needed_are_the_fewest_whose_bound_is_within_the_budget(budget: float, confidence: float) -> None:
    rows = rows_needed(budget, confidence)
    bound = -math.expm1(math.log1p(-confidence) / rows)
    assert bound <= budget
    assert rows == 1 or -math.expm1(math.log1p(-confidence) / (rows - 1)) > budget


@pytest.mark.parametrize(
    ("exceeding", "total", "low", "high"),
    [
        # scipy.stats.beta.ppf(0.025, k, n - k + 1) and isf(0.025, k + 1, n - k), scipy 1.17.1.
        (0, 1, 0.0, 0.975),
        (1, 1, 0.025, 1.0),
        (0, 10, 0.0, 0.3084971078188),
        (1, 10, 0.002528578544462, 0.4450161170282),
        (5, 10, 0.1870860284474, 0.8129139715526),
        (10, 10, 0.6915028921812, 1.0),
        (10, 100, 0.04900468922149, 0.17622259774),
        (0, 2_995, 0.0, 0.001230921077902),
        (2, 2_995, 8.088144496328e-05, 0.002410146506806),
        (3, 3_000, 0.0002062715371623, 0.002919616465253),
        (50, 100_000, 0.0003711317017835, 0.0006591351958694),
        (1, 1_000_000, 2.531780766379e-08, 5.571630655167e-06),
        (1_000, 1_000_000, 0.0009390012079501, 0.001063918107315),
        (0, 10_000_000, 0.0, 3.688878773722e-07),
        (1, 10_000_000, 2.531780795224e-09, 5.571642116991e-07),
        (100, 10_000_000, 8.136406299795e-06, 1.216266622723e-05),
        (10_000, 10_000_000, 0.0009805047623092, 0.001019785066511),
        (5_000_000, 10_000_000, 0.4996900525214, 0.5003099474786),
        (9_999_999, 10_000_000, 0.9999994428358, 0.9999999974682),
    ],
)
def test_an_interval_is_the_one_that_clopper_and_pearson_give(
    exceeding: int, total: int, low: float, high: float
) -> None:
    assert interval(exceeding, total) == pytest.approx((low, high), rel=1e-7)


@hypothesis_settings(max_examples=50, deadline=None)
@given(data=st.data(), total=st.integers(1, 200), confidence=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_at_the_ends_of_an_interval_each_tail_has_half_of_what_is_left(
    data: st.DataObject, total: int, confidence: float
) -> None:
    exceeding = data.draw(st.integers(0, total))
    low, high = interval(exceeding, total, confidence)

    def chance(counts: range, p: float) -> float:
        return math.fsum(math.comb(total, j) * p**j * (1 - p) ** (total - j) for j in counts)

    half = pytest.approx(0.5 * (1 - confidence), rel=1e-8)
    assert 0.0 <= low <= exceeding / total <= high <= 1.0
    assert low == 0.0 if exceeding == 0 else chance(range(exceeding, total + 1), low) == half
    assert high == 1.0 if exceeding == total else chance(range(exceeding + 1), high) == half


@given(total=st.integers(1, 10_000_000), data=st.data())
@hypothesis_settings(max_examples=20, deadline=None)
def test_the_interval_of_what_exceeds_mirrors_the_one_of_what_does_not(total: int, data: st.DataObject) -> None:
    exceeding = data.draw(st.integers(0, total))
    low, high = interval(exceeding, total)
    others_low, others_high = interval(total - exceeding, total)
    assert (low, high) == pytest.approx((1 - others_high, 1 - others_low), abs=1e-10)


@pytest.mark.parametrize(("exceeding", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_out_of_order_have_no_interval(exceeding: int, total: int) -> None:
    with pytest.raises(ValueError, match="0 <= exceeding <= total"):
        interval(exceeding, total)


def test_the_threshold_stands_midway_between_the_last_row_within_the_budget_and_the_next() -> None:
    cutoff = choose(np.arange(100) / 128, 0.05)
    assert cutoff.threshold == 94.5 / 128
    assert (cutoff.exceeding, cutoff.total, cutoff.rate) == (5, 100, 0.05)
    assert (cutoff.low, cutoff.high) == interval(5, 100)


@hypothesis_settings(max_examples=50, deadline=None)
@given(probabilities=PROBABILITIES, budget=COARSE)
def test_at_most_the_budgets_rows_lie_at_or_over_the_threshold(probabilities: list[float], budget: float) -> None:
    most = allowed(budget, len(probabilities))
    assume(probabilities.count(1.0) <= most)
    cutoff = choose(probabilities, budget)
    exceeding = sum(probability >= cutoff.threshold for probability in probabilities)
    assert (cutoff.exceeding, cutoff.total) == (exceeding, len(probabilities))
    assert exceeding <= most
    assert 0.0 < cutoff.threshold <= 1.0


@hypothesis_settings(max_examples=50, deadline=None)
@given(probabilities=PROBABILITIES, budget=COARSE)
def test_a_threshold_at_the_next_lower_row_would_exceed_the_budget(probabilities: list[float], budget: float) -> None:
    most = allowed(budget, len(probabilities))
    assume(probabilities.count(1.0) <= most)
    cutoff = choose(probabilities, budget)
    lower = max(probability for probability in probabilities if probability < cutoff.threshold)
    assert sum(probability >= lower for probability in probabilities) > most


@hypothesis_settings(max_examples=50, deadline=None)
@given(probabilities=PROBABILITIES, budgets=st.tuples(COARSE, COARSE))
def test_a_larger_budget_never_gives_a_higher_threshold(
    probabilities: list[float], budgets: tuple[float, float]
) -> None:
    small, large = sorted(budgets)
    assume(probabilities.count(1.0) <= allowed(small, len(probabilities)))
    assert choose(probabilities, large).threshold <= choose(probabilities, small).threshold


@given(seed=st.integers(0, 2**32 - 1), budget=st.floats(0.0005, MOST_BUDGET), extra=st.integers(0, 5_000))
@hypothesis_settings(max_examples=25, deadline=None)
def test_without_ties_a_sample_uses_its_whole_budget(seed: int, budget: float, extra: int) -> None:
    probabilities = np.random.default_rng(seed).random(rows_needed(budget) + extra)
    assume(len(np.unique(probabilities)) == len(probabilities))
    cutoff = choose(probabilities, budget)
    assert cutoff.exceeding == allowed(budget, len(probabilities))
    assert cutoff.exceeding == int((probabilities >= cutoff.threshold).sum())


def test_a_budget_that_no_float_holds_costs_no_row() -> None:
    assert math.floor(0.145 * 200) == 28  # the plain product of floats is a little under 29
    assert choose(np.arange(200) / 256, 0.145).exceeding == 29


def test_rows_of_equal_probability_fall_together_where_the_budget_does_not_hold_them_all() -> None:
    cutoff = choose([0.1] * 90 + [0.5] * 6 + [0.9] * 4, 0.05)
    assert (cutoff.threshold, cutoff.exceeding) == (0.7, 4)


def test_rows_that_all_tie_below_one_leave_a_threshold_between_them_and_one() -> None:
    cutoff = choose([0.5] * 100, 0.05)
    assert (cutoff.threshold, cutoff.exceeding, cutoff.low) == (0.75, 0, 0.0)


@pytest.mark.parametrize("below", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_between_neighbouring_floats_the_threshold_is_the_upper_one(below: float) -> None:
    above = math.nextafter(below, 2.0)
    cutoff = choose([below] * 95 + [above] * 5, 0.05)
    assert (cutoff.threshold, cutoff.exceeding) == (above, 5)


def test_a_threshold_may_be_one_but_never_over_it() -> None:
    cutoff = choose([math.nextafter(1.0, 0.0)] * 100, 0.05)
    assert (cutoff.threshold, cutoff.exceeding) == (1.0, 0)


def test_more_rows_at_one_than_the_budget_holds_are_refused_by_their_number() -> None:
    assert choose([0.0] * 95 + [1.0] * 5, 0.05).exceeding == 5
    with pytest.raises(DataRejected, match=r"^6 of 100 benign rows have the probability 1\.0 and only 5 may exceed"):
        choose([0.0] * 94 + [1.0] * 6, 0.05)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -0.1, 1.1])
def test_what_is_no_probability_is_refused(odd: float) -> None:
    with pytest.raises(DataRejected, match="no probability"):
        choose([0.5] * 99 + [odd], 0.05)


@pytest.mark.parametrize("budget", [0.2, 0.1, 0.01, 0.001])
def test_a_sample_of_just_the_rows_needed_is_enough_and_one_row_fewer_is_not(budget: float) -> None:
    rows = rows_needed(budget)
    assert choose(np.linspace(0, 1, rows), budget).total == rows
    with pytest.raises(DataRejected):
        choose(np.linspace(0, 1, rows - 1), budget)


def test_a_refusal_says_the_rows_there_are_the_rows_needed_and_the_least_budget() -> None:
    with pytest.raises(DataRejected) as caught:
        choose([0.5] * 1_200, 0.001)
    assert str(caught.value) == (
        "a budget of 0.1% needs 2,995 benign rows and there are 1,200 scored benign rows: "
        "give more, or take a budget of 0.25% or more"
    )


@hypothesis_settings(max_examples=50, deadline=None)
@given(rows=st.integers(14, 2_000))
def test_the_least_budget_that_a_refusal_names_is_supported(rows: int) -> None:
    with pytest.raises(DataRejected) as caught:
        choose(np.linspace(0, 1, rows), LEAST_BUDGET)
    named = re.search(r"take a budget of (\S+) or more$", str(caught.value))
    assert named is not None
    assume(named[1] not in ("21%", "20%"))
    assert choose(np.linspace(0, 1, rows), parse_budget(named[1])).total == rows


@pytest.mark.parametrize("rows", [0, 1, 13])
def test_fewer_rows_than_the_largest_budget_needs_support_none(rows: int) -> None:
    with pytest.raises(DataRejected, match=rf"there are {rows} scored benign rows, too few for any budget: give more$"):
        choose([0.5] * rows, MOST_BUDGET)
