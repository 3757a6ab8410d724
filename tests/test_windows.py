"""Windows: order, lengths, budget, cover, and what is read of a prompt over the budget."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.windows import Window, WindowPlan, covered, cut, cut_finer


@st.composite
def plans(draw: st.DrawFn) -> WindowPlan:
    length = draw(st.integers(1, 30))
    return WindowPlan(length, draw(st.integers(0, length - 1)), length + draw(st.integers(0, 200)))


def tokens_held(windows: list[Window]) -> set[int]:
    return {token for window in windows for token in range(window.start, window.end)}


def windows_needed(tokens: int, plan: WindowPlan) -> int:
    """How many windows hold every token: one, and one more for every step that begins after it."""
    step = plan.length - plan.overlap
    return 1 + max(0, -(-(tokens - plan.length) // step))


@settings(max_examples=300)
@given(st.integers(0, 500), plans())
def test_windows_are_in_order_and_inside_the_prompt(tokens: int, plan: WindowPlan) -> None:
    windows = cut(tokens, plan)
    assert windows
    assert all(0 <= window.start <= window.end <= tokens for window in windows)
    assert all(one.start < other.start and one.end < other.end for one, other in pairwise(windows))


@settings(max_examples=300)
@given(st.integers(0, 500), plans())
def test_every_window_is_full_unless_the_prompt_is_shorter_than_one(tokens: int, plan: WindowPlan) -> None:
    assert {window.end - window.start for window in cut(tokens, plan)} == {min(tokens, plan.length)}


@settings(max_examples=300)
@given(st.integers(0, 500), plans())
def test_no_prompt_costs_more_than_the_budget(tokens: int, plan: WindowPlan) -> None:
    assert sum(window.end - window.start for window in cut(tokens, plan)) <= plan.budget


@settings(max_examples=300)
@given(st.integers(0, 500), plans())
def test_every_token_is_read_when_the_windows_fit_the_budget(tokens: int, plan: WindowPlan) -> None:
    needed = windows_needed(tokens, plan)
    windows = cut(tokens, plan)
    if needed * plan.length <= plan.budget:
        assert len(windows) == needed
        assert tokens_held(windows) == set(range(tokens))
    else:
        assert len(windows) == plan.budget // plan.length


@settings(max_examples=300)
@given(st.integers(0, 500), plans())
def test_neighbouring_windows_of_a_prompt_within_the_budget_share_the_overlap(tokens: int, plan: WindowPlan) -> None:
    windows = cut(tokens, plan)
    if windows_needed(tokens, plan) * plan.length <= plan.budget:
        shared = [one.end - other.start for one, other in pairwise(windows)]
        assert all(count == plan.overlap for count in shared[:-1])
        assert all(count >= plan.overlap for count in shared[-1:])  # the last window is drawn back


@settings(max_examples=300)
@given(st.integers(1, 2_000), plans())
def test_a_prompt_over_the_budget_loses_only_windows_of_its_middle(tokens: int, plan: WindowPlan) -> None:
    windows = cut(tokens, plan)
    unbounded = cut(tokens, WindowPlan(plan.length, plan.overlap, 10**9))
    kept = min(len(unbounded), plan.budget // plan.length)
    head = kept if kept == len(unbounded) else (kept + 1) // 2
    assert windows[:head] == unbounded[:head]
    assert windows[head:] == unbounded[len(unbounded) - (kept - head) :]


@settings(max_examples=300)
@given(st.integers(1, 2_000), plans())
def test_both_ends_are_read_whenever_the_budget_holds_two_windows(tokens: int, plan: WindowPlan) -> None:
    windows = cut(tokens, plan)
    assert windows[0].start == 0
    assert windows[-1].end == tokens or plan.budget < 2 * plan.length


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8))
def test_covered_counts_each_token_of_any_windows_once(ranges: list[tuple[int, int]]) -> None:
    windows = [Window(start, start + length) for start, length in sorted(ranges)]
    assert covered(windows) == len(tokens_held(windows))


@settings(max_examples=300)
@given(st.integers(0, 500), plans())
def test_covered_counts_each_token_of_a_cut_prompt_once(tokens: int, plan: WindowPlan) -> None:
    windows = cut(tokens, plan)
    assert covered(windows) == len(tokens_held(windows))


def test_the_windows_of_a_short_and_of_a_long_prompt_are_known() -> None:
    plan = WindowPlan(length=10, overlap=4, budget=40)
    assert cut(0, plan) == [Window(0, 0)]
    assert cut(10, plan) == [Window(0, 10)]
    assert cut(11, plan) == [Window(0, 10), Window(1, 11)]
    assert cut(22, plan) == [Window(0, 10), Window(6, 16), Window(12, 22)]
    assert cut(100, plan) == [Window(0, 10), Window(6, 16), Window(84, 94), Window(90, 100)]
    assert covered(cut(100, plan)) == 32


def test_an_odd_number_of_windows_gives_the_beginning_one_more_than_the_end() -> None:
    plan = WindowPlan(length=10, overlap=0, budget=30)
    assert cut(100, plan) == [Window(0, 10), Window(10, 20), Window(90, 100)]


def test_a_budget_of_one_window_reads_the_beginning() -> None:
    assert cut(100, WindowPlan(length=10, overlap=4, budget=19)) == [Window(0, 10)]


def test_the_default_plan_reads_8000_tokens_whole_on_both_scales() -> None:
    windows, finer = cut(100_000, WindowPlan()), cut_finer(100_000, WindowPlan())
    assert (len(windows), len(finer)) == (50, 100)
    assert {window.end - window.start for window in windows} == {254}
    assert {window.end - window.start for window in finer} == {126}
    assert covered(cut(8_000, WindowPlan())) == covered(cut_finer(8_000, WindowPlan())) == 8_000


def test_a_prompt_that_fits_a_finer_window_is_encoded_once() -> None:
    assert cut_finer(126, WindowPlan()) == []
    assert cut_finer(127, WindowPlan()) == [Window(0, 126), Window(1, 127)]


@given(st.integers(1, 300), st.data())
def test_every_plan_has_a_finer_one_that_makes_progress(length: int, data: st.DataObject) -> None:
    plan = WindowPlan(length, data.draw(st.integers(0, length - 1)), length + data.draw(st.integers(0, 300)))
    assert plan.finer.length <= max(1, plan.length // 2)


@pytest.mark.parametrize(
    ("length", "overlap", "budget"),
    [(10, 10, 100), (10, 11, 100), (10, -1, 100), (0, 0, 100), (-5, -6, 100), (10, 2, 9), (10, 2, 0)],
)
def test_a_plan_that_cannot_make_progress_is_refused(length: int, overlap: int, budget: int) -> None:
    with pytest.raises(ValueError, match="0 <= overlap < length <= budget"):
        WindowPlan(length, overlap, budget)
