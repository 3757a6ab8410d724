"""The queue's parts: what a prompt costs, how fast batches are, and the two lanes."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.bundle import Bundle
from classifier.corpus import load_corpus
from classifier.disguise import undisguise
from classifier.serve.cost import WINDOW_TOKENS, _scale, cost_of, looks_disguised, tokens_of
from classifier.serve.lanes import Lanes
from classifier.serve.pace import Pace
from classifier.text import fold
from classifier.train.evasions import EVASIONS
from classifier.windows import WindowPlan, cut

SEED = [row.example for row in load_corpus()]
UNDONE = ("homoglyphs", "leetspeak", "spaced_letters", "base64", "hex", "markdown", "html")


@dataclass(eq=False)
class Weight:
    cost: int


@given(st.integers(1, 40_000), st.integers(2, 254), st.integers(0, 100), st.integers(0, 20_000))
def test_a_scale_costs_what_its_windows_hold(tokens: int, length: int, overlap: int, more: int) -> None:
    plan = WindowPlan(length, min(overlap, length - 1), length + more)
    windows = cut(tokens, plan)
    held = sum(window.end - window.start for window in windows)
    assert _scale(tokens, plan) == held + WINDOW_TOKENS * len(windows)


def test_the_guess_of_the_tokens_is_near_the_tokenizers_count(bundle: Bundle) -> None:
    texts = [example.text for example in SEED[::7]]
    found = bundle.model.encoder.tokenise([fold(text) for text in texts])
    ratios = np.array([tokens_of(text) / len(its.ids) for text, its in zip(texts, found, strict=True)])
    assert np.percentile(ratios, 5) > 0.7
    assert np.percentile(ratios, 95) < 1.5


@pytest.mark.parametrize(
    "text", ["a b c " * 300, "!?" * 400, "\u6c34\u706b" * 300, "1, 2, 3, " * 100, "{'a': [1]}" * 60]
)
def test_texts_of_many_tokens_are_not_taken_for_cheap(bundle: Bundle, text: str) -> None:
    (found,) = bundle.model.encoder.tokenise([fold(text)])
    assert tokens_of(text) >= 0.75 * len(found.ids)


def test_a_long_prompt_costs_both_scales_and_a_disguised_one_twice() -> None:
    plan = WindowPlan()
    text = "The tides follow the moon and the sun around the earth. " * 12
    tokens = tokens_of(text)
    assert plan.finer.length < tokens < plan.length
    assert cost_of(text, plan) == tokens + WINDOW_TOKENS + _scale(tokens, plan.finer)
    hidden = text.replace("moon", "mo0n")
    assert cost_of(hidden, plan) > 1.9 * cost_of(text, plan)


def test_chinese_is_not_taken_for_a_disguise() -> None:
    assert not looks_disguised("\u8bf7\u628a\u8fd9\u6bb5\u8bdd\u7ffb\u8bd1\u6210\u82f1\u6587" * 10)


def test_what_gets_a_second_view_is_mostly_foretold_and_ordinary_prompts_are_not(bundle: Bundle) -> None:
    english = [example.text for example in SEED if example.language == "en" and example.text.isascii()][::60]
    hits = misses = 0
    for name in UNDONE:
        for seed, text in enumerate(english):
            dressed = EVASIONS[name](text, np.random.default_rng(seed), [])
            if undisguise(fold(dressed), bundle.model.encoder.ranks):
                hits += looks_disguised(dressed)
                misses += not looks_disguised(dressed)
    assert hits > 9 * misses
    for language in ("en", "es", "zh"):
        assert np.mean([looks_disguised(example.text) for example in SEED if example.language == language]) < 0.2


def test_no_prompt_costs_more_than_the_budgets_of_two_views() -> None:
    plan = WindowPlan()
    windows = plan.budget // plan.length + plan.budget // plan.finer.length
    assert cost_of("x0x " * 2_000_000, plan) <= 2 * (2 * plan.budget + windows * WINDOW_TOKENS)
    assert cost_of("\ud800", plan) >= 1


def test_the_pace_follows_full_batches_and_no_single_one_overthrows_it() -> None:
    pace = Pace()
    assert pace.seconds(1_000) == 0.0
    pace.learn(2_000, 0.2)
    assert pace.rate == pytest.approx(10_000)
    pace.learn(20, 0.01)
    assert pace.rate == pytest.approx(10_000), "a small batch says nothing of a full one"
    pace.learn(2_000, 60.0)  # the process was suspended
    assert pace.rate >= 9_000
    for _ in range(40):
        pace.learn(2_000, 0.4)
    assert pace.rate == pytest.approx(5_000, rel=0.01)
    assert pace.seconds(2_500) == pytest.approx(0.5, rel=0.01)
    assert pace.tokens(0.5) == pytest.approx(2_500, rel=0.01)
    pace.learn(100, 0.01)
    assert pace.rate > 5_000, "a small batch that is fast shows that the rate is too low"


def test_the_first_batches_that_are_small_do_not_fix_the_pace() -> None:
    pace = Pace()
    pace.learn(20, 1.0)
    pace.learn(2_000, 0.2)
    assert pace.rate == pytest.approx(10_000)


def test_both_lanes_get_half_of_a_batch_and_the_rest_of_it_is_not_wasted() -> None:
    lanes: Lanes[Weight] = Lanes()
    single, bulk = [Weight(10) for _ in range(30)], [Weight(10) for _ in range(8)]
    for job in single:
        lanes.single.add(job)
    for job in bulk:
        lanes.bulk.add(job)
    assert lanes.take(100) == single[:5] + bulk[:5]
    assert lanes.take(100) == bulk[5:] + single[5:12], "the bulk lane has no more: the other fills the batch"
    assert lanes.take(100) == single[12:22]
    assert lanes.take(100) == single[22:]
    assert (lanes.take(100), len(lanes), lanes.tokens) == ([], 0, 0)


def test_a_job_over_a_batch_gets_its_turn_from_either_lane() -> None:
    lanes: Lanes[Weight] = Lanes()
    huge, small = Weight(1_000), [Weight(10) for _ in range(100)]
    lanes.bulk.add(huge)
    for job in small:
        lanes.single.add(job)
    taken = [lanes.take(100) for _ in range(2)]
    assert [huge] in taken, "nobody who waits in the other lane keeps it out"


def test_what_stands_ahead_is_the_own_lane_and_as_much_of_the_other() -> None:
    lanes: Lanes[Weight] = Lanes()
    assert lanes.ahead(lanes.single, 50) == 0
    lanes.bulk.add(Weight(1_000))
    assert lanes.ahead(lanes.single) == 0
    assert lanes.ahead(lanes.single, 50) == 50
    lanes.single.add(Weight(100))
    assert lanes.ahead(lanes.single, 50) == 100 + 150
    assert lanes.ahead(lanes.bulk) == 1_000 + 100
    lanes.discard(next(iter(lanes.single)))
    assert lanes.ahead(lanes.bulk) == 1_000


def test_the_answer_comes_with_the_end_of_the_batch_in_which_the_other_lane_rides() -> None:
    lanes: Lanes[Weight] = Lanes()
    lanes.single.add(Weight(30))
    assert lanes.until(lanes.single, 50, 100) == 80, "alone in its lane and in the queue"
    lanes.bulk.add(Weight(1_000))
    assert lanes.until(lanes.single, 10, 100) == 100
    assert lanes.until(lanes.single, 50, 100) == 200, "110 in the other lane's turns and its own: two batches"
    assert lanes.until(lanes.bulk, 50, 100) == 1_080, "no more than what waits"


def test_what_is_put_back_comes_first() -> None:
    lanes: Lanes[Weight] = Lanes()
    jobs = [Weight(10) for _ in range(4)]
    for job in jobs:
        lanes.bulk.add(job)
    taken = lanes.take(30)
    for job in reversed(taken[1:]):
        lanes.bulk.put_back(job)
    assert (list(lanes), lanes.tokens) == (jobs[1:], 30)
