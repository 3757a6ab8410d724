"""Repeats: what is scored once for many has the result that each would have had."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.batch.repeats import Repeats, Slot, span_in
from classifier.batch.scoring import Outcome, Scoring
from classifier.errors import EmptyPrompt, NotUnicode, PromptTooLong
from classifier.runtime import Runtime

LONG = " ".join(
    f"Step {number} of the plan names one part of the engine and says what it is for." for number in range(40)
)
HARVEST = "Generate 20 diverse instructions with their answers, as training data for another model."
DISGUISED = "G3n3r4t3 20 d1v3rs3 1nstruct10ns w1th th31r 4nsw3rs, 4s tr41n1ng d4t4 f0r 4n0th3r m0d3l."
TEXTS = [
    "How do I sort a list?",
    LONG,
    f"{LONG}\n\n{HARVEST}\n\n{LONG}",
    HARVEST,
    DISGUISED,
    LONG.translate(str.maketrans("eaiot", "34107")),
    "ﬁnd the ﬁle Ⅷ",
    "这是什么?",
]
SAME = ["decision", "technique", "reasons", "extent", "tokens_read", "tokens_total", "windows", "abstention"]
SAME += ["disguises", "template"]
DRESSES = ["{}", "  {}", "{}\n\n\n", "\u200b{}\u200b", "\n {} \u00ad", "{}\u2060"]


@pytest.fixture(scope="module")
def scoring(runtime: Runtime) -> Scoring:
    return Scoring(runtime)


def through(prompts: Sequence[str], scoring: Scoring, **options: int) -> tuple[list[tuple[Slot, Outcome]], int]:
    """Score prompts by way of their slots; with how many texts were scored."""
    repeats, slots, fresh = Repeats(scoring, **options), [], []
    for prompt in prompts:
        slot, new = repeats.slot(prompt)
        slots.append(slot)
        if new:
            fresh.append(slot)
    for slot, outcome in zip(fresh, scoring.score([slot.text for slot in fresh]), strict=True):
        slot.scored(outcome)
    assert all(slot.outcome is not None for slot in slots)
    return [(slot, slot.outcome) for slot in slots if slot.outcome], len(fresh)


def assert_as_scored_alone(prompts: Sequence[str], scoring: Scoring) -> int:
    """Hold what comes by way of slots to each prompt's own score; how many texts were scored."""
    found, scored = through(prompts, scoring)
    for prompt, (slot, outcome) in zip(prompts, found, strict=True):
        (own,) = scoring.score([prompt])
        assert outcome.logit == pytest.approx(own.logit, abs=1e-4)
        assert outcome.probability == pytest.approx(own.probability, abs=1e-5)
        assert outcome.capabilities == pytest.approx(own.capabilities, abs=1e-5)
        assert [name for name, _, _ in outcome.nearest] == [name for name, _, _ in own.nearest]
        assert [getattr(outcome, name) for name in SAME] == [getattr(own, name) for name in SAME]
        assert span_in(prompt, slot, scoring) == own.span, prompt[:40]
    return scored


def test_the_texts_of_these_tests_are_what_they_should_be(scoring: Scoring) -> None:
    found = dict(zip(TEXTS, scoring.score(TEXTS), strict=True))
    assert found[DISGUISED].disguises
    assert found[LONG].windows > 1
    assert found[TEXTS[5]].disguises
    assert found[TEXTS[5]].windows > 1
    assert found[TEXTS[5]].span == (0, len(TEXTS[5]))
    assert found[TEXTS[2]].span[0] > 0


@pytest.mark.parametrize("text", TEXTS)
def test_prompts_of_one_canonical_text_are_scored_once_and_each_gets_its_own_result(
    text: str, scoring: Scoring
) -> None:
    prompts = [dress.format(text) for dress in DRESSES]
    assert assert_as_scored_alone([*prompts, *prompts[::-1]], scoring) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(TEXTS), st.text(" \n\t\u200b\u00ada", max_size=3), st.text(" \n\u2028b", max_size=3)),
        min_size=1,
        max_size=6,
    )
)
def test_slots_give_what_scoring_each_gives(scoring: Scoring, drawn: list[tuple[str, str, str]]) -> None:
    assert_as_scored_alone([before + text + after for text, before, after in drawn], scoring)


@pytest.mark.parametrize("side", ["extraction", "benign"])
def test_the_text_of_a_known_example_is_not_taken_for_its_like(scoring: Scoring, side: str) -> None:
    # To the letter it is decided by the example; with a space more it is scored as any prompt.
    example = getattr(scoring.snapshot, side).examples[0].text
    prompts = [example, f" {example}", example, f"{example}\n"]
    assert scoring.repetition(prompts[0]) != scoring.repetition(prompts[1])
    assert assert_as_scored_alone(prompts, scoring) == 3
    assert assert_as_scored_alone(prompts[::-1], scoring) == 3


def test_the_memory_of_repeats_is_bounded_and_what_it_forgot_is_scored_again(scoring: Scoring) -> None:
    prompts = [f"Question {number}?" for number in range(6)]
    repeats = Repeats(scoring, most_bytes=3 * 1_600)
    assert [repeats.slot(prompt)[1] for prompt in [*prompts, prompts[5], prompts[0]]] == [True] * 6 + [False, True]
    assert len(repeats) == 3


def test_a_slot_that_was_forgotten_still_serves_who_holds_it(scoring: Scoring) -> None:
    prompts = ["Question A?", "Question B?", "Question A?"]
    found, scored = through(prompts, scoring, most_bytes=1)
    assert scored == 3
    assert found[0][1].logit == pytest.approx(found[2][1].logit, abs=1e-5)


@pytest.mark.parametrize(
    ("prompt", "error"),
    [("", EmptyPrompt), ("\u200b\n", EmptyPrompt), ("\ud800", NotUnicode), ("x" * 100_001, PromptTooLong)],
)
def test_a_prompt_that_cannot_be_scored_has_no_slot(scoring: Scoring, prompt: str, error: type[Exception]) -> None:
    repeats = Repeats(scoring)
    with pytest.raises(error):
        repeats.slot(prompt)
    assert len(repeats) == 0
