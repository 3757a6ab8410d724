"""Calibration, thresholds, decisions and their reasons."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from classifier.evidence import PRECEDENT_FROM
from classifier.policy import Calibration, Judged, Thresholds, abstention, decide, reasons
from classifier.verdict import Abstention, Decision, Extent, Inspection, LabelScore, Reason
from index.example import Example, Label
from index.live import Match

THRESHOLDS = Thresholds(review=0.4, flag=0.8)
TECHNIQUES = (LabelScore("self_chat", 0.72), LabelScore("rubric_grading", 0.28))
FULL = Inspection(Extent.FULL, tokens_inspected=12, tokens_total=12, windows=1, strongest_window=(0, 60))
PARTIAL = Inspection(Extent.PARTIAL, tokens_inspected=2_000, tokens_total=9_000, windows=8, strongest_window=(0, 60))
EXTRACTION = Example("Secret harvest text", Label.EXTRACTION, technique="self_chat")
OTHER_EXTRACTION = Example("Another secret harvest text", Label.EXTRACTION, technique="rubric_grading")
BENIGN = Example("Secret everyday text", Label.BENIGN)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SLOPES = st.floats(0.01, 100)
OFFSETS = st.floats(-100, 100)
PROBABILITIES = st.floats(0, 1)


def codes(found: tuple[Reason, ...]) -> list[str]:
    return [reason.code for reason in found]


def reasons_for(
    probability: float,
    nearest: tuple[Match, ...] = (),
    inspected: Inspection = FULL,
    techniques: tuple[LabelScore, ...] = TECHNIQUES,
    thresholds: Thresholds = THRESHOLDS,
    **others: Any,
) -> tuple[Reason, ...]:
    given: dict[str, Any] = {"as_sent": probability, "disguises": (), "abstention": None} | others
    return reasons(
        Judged(probability=probability, techniques=techniques, nearest=nearest, inspected=inspected, **given),
        thresholds,
    )


# Calibration.


@settings(max_examples=300)
@given(FINITE, FINITE, FINITE)
@example(1.0, 0.0, 1e308)
@example(1.0, 0.0, -1e308)
@example(100.0, -100.0, -745.2)
@example(-1e300, 1e308, 1e308)
def test_a_probability_of_any_logit_is_in_the_unit_interval(slope: float, offset: float, logit: float) -> None:
    if math.isnan(slope * logit + offset):
        return  # infinite products of finite numbers that cancel out
    assert 0.0 <= Calibration(slope, offset).probability(logit) <= 1.0


@settings(max_examples=300)
@given(SLOPES, OFFSETS, FINITE, FINITE)
@example(1.0, 0.0, -1e-300, 1e-300)
@example(1.0, 0.0, -1e308, 1e308)
def test_a_higher_logit_never_has_a_lower_probability(slope: float, offset: float, one: float, other: float) -> None:
    scale = Calibration(slope, offset)
    low, high = sorted([one, other])
    # The exponential function of the C library is right to one unit in the last place.
    assert scale.probability(low) <= scale.probability(high) + 2**-52


def test_clearly_higher_logits_have_strictly_higher_probabilities() -> None:
    scale = Calibration(slope=0.7, offset=-0.2)
    probabilities = [scale.probability(logit / 4) for logit in range(-80, 81)]
    assert all(one < other for one, other in pairwise(probabilities))


def test_a_falling_slope_turns_the_order_round() -> None:
    scale = Calibration(slope=-1.0, offset=0.0)
    assert scale.probability(3.0) < 0.5 < scale.probability(-3.0)


@pytest.mark.parametrize(
    ("slope", "offset", "logit", "probability"),
    [(1.0, 0.0, 0.0, 0.5), (2.0, -1.0, 0.5, 0.5), (2.0, 1.0, 1.0, 0.9525741268), (2.0, 1.0, -2.0, 0.0474258732)],
)
def test_the_probability_is_the_logistic_function_of_the_scaled_logit(
    slope: float, offset: float, logit: float, probability: float
) -> None:
    assert Calibration(slope, offset).probability(logit) == pytest.approx(probability, abs=1e-9)


@settings(max_examples=100)
@given(st.floats(-700, 700))
def test_a_logit_and_its_opposite_share_the_probability(logit: float) -> None:
    scale = Calibration(1.0, 0.0)
    assert scale.probability(logit) + scale.probability(-logit) == pytest.approx(1.0, abs=1e-12)


def test_logits_beyond_all_measure_give_certainty() -> None:
    assert Calibration(1.0, 0.0).probability(1e308) == 1.0
    assert Calibration(1.0, 0.0).probability(-1e308) == 0.0
    assert Calibration(10.0, 0.0).probability(float("inf")) == 1.0
    assert Calibration(10.0, 0.0).probability(float("-inf")) == 0.0


# Thresholds.


@pytest.mark.parametrize(
    ("review", "flag"),
    [(0.8, 0.4), (-0.1, 0.5), (0.5, 1.1), (math.nan, 0.5), (0.5, math.nan), (0.5, math.inf), (-math.inf, 0.5)],
)
def test_thresholds_out_of_order_or_range_are_refused(review: float, flag: float) -> None:
    with pytest.raises(ValueError, match="0 <= review <= flag <= 1"):
        Thresholds(review, flag)


def test_a_probability_at_a_threshold_is_over_it() -> None:
    assert THRESHOLDS.decide(0.8) == Decision.FLAG
    assert THRESHOLDS.decide(math.nextafter(0.8, 0)) == Decision.REVIEW
    assert THRESHOLDS.decide(0.4) == Decision.REVIEW
    assert THRESHOLDS.decide(math.nextafter(0.4, 0)) == Decision.ALLOW


def test_the_ends_of_the_unit_interval_are_decided() -> None:
    assert THRESHOLDS.decide(0.0) == Decision.ALLOW
    assert THRESHOLDS.decide(1.0) == Decision.FLAG
    assert Thresholds(0.0, 0.0).decide(0.0) == Decision.FLAG
    assert Thresholds(0.0, 1.0).decide(0.0) == Decision.REVIEW
    assert Thresholds(1.0, 1.0).decide(1.0) == Decision.FLAG


@settings(max_examples=100)
@given(PROBABILITIES, PROBABILITIES)
def test_equal_thresholds_leave_nothing_to_review(probability: float, threshold: float) -> None:
    assert Thresholds(threshold, threshold).decide(probability) != Decision.REVIEW


@settings(max_examples=200)
@given(PROBABILITIES, PROBABILITIES, PROBABILITIES, PROBABILITIES)
def test_a_higher_probability_is_never_decided_more_mildly(
    one: float, other: float, review: float, flag: float
) -> None:
    thresholds = Thresholds(*sorted([review, flag]))
    severity = [Decision.ALLOW, Decision.REVIEW, Decision.FLAG]
    mild, severe = sorted([one, other])
    assert severity.index(thresholds.decide(mild)) <= severity.index(thresholds.decide(severe))


# Reasons.


def test_a_flagged_prompt_names_probability_threshold_and_technique() -> None:
    assert reasons_for(0.93) == (
        Reason(
            "PROBABILITY_OVER_FLAG_THRESHOLD",
            "extraction probability 0.930 is at or over the flag threshold 0.800",
        ),
        Reason("LIKELY_TECHNIQUE", "of the techniques, self_chat fits best (0.72)"),
    )


def test_a_prompt_for_review_names_the_review_threshold_and_the_technique() -> None:
    assert reasons_for(0.5) == (
        Reason(
            "PROBABILITY_OVER_REVIEW_THRESHOLD",
            "extraction probability 0.500 is at or over the review threshold 0.400",
        ),
        Reason("LIKELY_TECHNIQUE", "of the techniques, self_chat fits best (0.72)"),
    )


def test_an_allowed_prompt_names_no_technique() -> None:
    assert reasons_for(0.1) == (
        Reason(
            "PROBABILITY_UNDER_THRESHOLDS",
            "extraction probability 0.100 is under the review threshold 0.400",
        ),
    )


def test_a_head_without_techniques_names_none() -> None:
    assert codes(reasons_for(0.93, techniques=())) == ["PROBABILITY_OVER_FLAG_THRESHOLD"]


@settings(max_examples=100)
@given(PROBABILITIES, PROBABILITIES, PROBABILITIES)
def test_the_first_reason_agrees_with_the_decision(probability: float, review: float, flag: float) -> None:
    thresholds = Thresholds(*sorted([review, flag]))
    expected = {
        Decision.FLAG: "PROBABILITY_OVER_FLAG_THRESHOLD",
        Decision.REVIEW: "PROBABILITY_OVER_REVIEW_THRESHOLD",
        Decision.ALLOW: "PROBABILITY_UNDER_THRESHOLDS",
    }
    first = reasons_for(probability, thresholds=thresholds)[0]
    assert first.code == expected[thresholds.decide(probability)]


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.93])
def test_near_examples_of_both_labels_are_named_whatever_the_decision(probability: float) -> None:
    found = reasons_for(probability, (Match(EXTRACTION, 0.97), Match(BENIGN, 0.91)))
    assert Reason("NEAR_EXTRACTION_EXAMPLE", f"{EXTRACTION.id} is near (cosine 0.97)") in found
    assert Reason("NEAR_BENIGN_EXAMPLE", f"{BENIGN.id} is near (cosine 0.91)") in found


def test_only_the_nearest_example_of_a_label_is_named() -> None:
    found = reasons_for(0.1, (Match(EXTRACTION, 0.97), Match(OTHER_EXTRACTION, 0.96)))
    assert codes(found) == ["PROBABILITY_UNDER_THRESHOLDS", "NEAR_EXTRACTION_EXAMPLE"]
    assert EXTRACTION.id in found[1].text


def test_an_example_is_near_from_the_cosine_of_a_precedent_on() -> None:
    assert codes(reasons_for(0.1, (Match(BENIGN, PRECEDENT_FROM),)))[1:] == ["NEAR_BENIGN_EXAMPLE"]
    assert codes(reasons_for(0.1, (Match(BENIGN, math.nextafter(PRECEDENT_FROM, 0)),)))[1:] == []
    assert codes(reasons_for(0.1, (Match(EXTRACTION, 0.3), Match(BENIGN, -0.2))))[1:] == []


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.93])
def test_a_partly_inspected_prompt_says_how_much_was_read(probability: float) -> None:
    *others, last = reasons_for(probability, (), PARTIAL)
    assert last == Reason("PARTLY_INSPECTED", "2000 of 9000 tokens were read: the token budget ended")
    assert tuple(others) == reasons_for(probability)


def test_a_wholly_inspected_prompt_does_not_say_so() -> None:
    assert "PARTLY_INSPECTED" not in codes(reasons_for(0.93, (), replace(PARTIAL, extent=Extent.FULL)))


def test_reasons_hold_no_text_of_an_example() -> None:
    matches = (Match(EXTRACTION, 0.99), Match(BENIGN, 0.99))
    for reason in reasons_for(0.93, matches, PARTIAL):
        assert "ecret" not in reason.text
        assert reason.code == reason.code.upper()


# Disguises and abstention.


def test_a_disguise_that_hid_the_harvest_is_named_with_both_probabilities() -> None:
    found = reasons_for(0.93, as_sent=0.12, disguises=("base64", "leetspeak"))
    (reason,) = [reason for reason in found if reason.code == "DISGUISED_TEXT"]
    assert "base64, leetspeak" in reason.text
    assert "0.930" in reason.text
    assert "0.120" in reason.text


def test_a_disguise_that_changes_little_is_not_named() -> None:
    assert "DISGUISED_TEXT" not in codes(reasons_for(0.93, as_sent=0.8, disguises=("markup",)))


def test_what_cannot_be_judged_is_neither_allowed_nor_flagged_and_gives_its_one_reason() -> None:
    why = Abstention("UNSUPPORTED_LANGUAGE", "why")
    judged = Judged(0.99, 0.99, TECHNIQUES, (), FULL, (), why)
    assert decide(judged, THRESHOLDS) == Decision.ABSTAIN
    assert codes(reasons_for(0.99, abstention=why)) == ["UNSUPPORTED_LANGUAGE"]


def test_a_known_language_near_a_known_example_is_judged() -> None:
    assert abstention(None, 0.5, 0.3) is None
    assert abstention(None, float("nan"), 0.3) is None


def test_a_foreign_language_and_a_text_far_from_everything_are_not_judged() -> None:
    foreign, far = abstention("fi", 0.5, 0.3), abstention(None, 0.29, 0.3)
    assert foreign is not None
    assert foreign.code == "UNSUPPORTED_LANGUAGE"
    assert far is not None
    assert far.code == "UNFAMILIAR_TEXT"
