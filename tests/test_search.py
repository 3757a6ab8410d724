"""The contract of every vector index, held against numpy."""

import dataclasses
import random
import re
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index.search import BatchIndex, ExactIndex, FaissIndex, Hits, VectorIndex, Vectors

MakeIndex = Callable[[Vectors], VectorIndex]
TOLERANCE = 1e-5

every_index = pytest.mark.parametrize("make", [ExactIndex, FaissIndex, BatchIndex])


def unit(rows: Vectors) -> Vectors:
    """The rows at unit length; a row of zeros becomes the first axis."""
    rows = np.array(rows, np.float32)
    rows[~rows.any(axis=1), 0] = 1.0
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def random_units(count: int, dimensions: int, seed: int = 0) -> Vectors:
    """(count, dimensions) unit rows without ties."""
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions), np.float32))


def assert_same_hits(one: Hits, other: Hits) -> None:
    """Both found the very same."""
    np.testing.assert_array_equal(one.cosines, other.cosines)
    np.testing.assert_array_equal(one.positions, other.positions)


def assert_nearest(hits: Hits, rows: Vectors, queries: Vectors, k: int) -> None:
    """The hits are the k nearest by float64 arithmetic, in any order among equals."""
    assert hits.cosines.shape == hits.positions.shape == (len(queries), k)
    assert hits.cosines.dtype == np.float32
    assert hits.positions.dtype == np.int64
    every = queries.astype(np.float64) @ rows.astype(np.float64).T
    found = min(k, len(rows))
    np.testing.assert_allclose(hits.cosines[:, :found], -np.sort(-every, axis=1)[:, :found], atol=TOLERANCE)
    for row, positions in enumerate(hits.positions[:, :found]):
        assert len(set(positions.tolist())) == found
        assert all(0 <= position < len(rows) for position in positions)
        np.testing.assert_allclose(every[row, positions], hits.cosines[row, :found], atol=TOLERANCE)
    assert (hits.positions[:, found:] == -1).all()
    assert (hits.cosines[:, found:] == -1.0).all()


@st.composite
def searches(draw: st.DrawFn) -> tuple[Vectors, Vectors, int]:
    """Rows, queries and a k; rows of few small integers, so that equal rows and equal cosines are common."""
    dimensions = draw(st.integers(1, 6))
    rows = st.integers(0, 20).flatmap(lambda n: hnp.arrays(np.float32, (n, dimensions), elements=st.integers(-3, 3)))
    return unit(draw(rows)), unit(draw(rows)), draw(st.integers(1, 25))


# Their cosines have no rounding, so that equal ones are equal.
exact_rows = st.lists(
    st.one_of(
        st.sampled_from([*np.eye(4).tolist(), *(-np.eye(4)).tolist()]), st.tuples(*[st.sampled_from([-0.5, 0.5])] * 4)
    ),
    max_size=20,
).map(lambda rows: np.array(rows, np.float32).reshape(-1, 4))


@given(searches())
@settings(deadline=None)
def test_faiss_finds_what_the_numpy_oracle_finds(search: tuple[Vectors, Vectors, int]) -> None:
    rows, queries, k = search
    found, expected = FaissIndex(rows).search(queries, k), ExactIndex(rows).search(queries, k)
    np.testing.assert_allclose(found.cosines, expected.cosines, atol=TOLERANCE)
    np.testing.assert_array_equal(found.positions == -1, expected.positions == -1)
    assert_nearest(found, rows, queries, k)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(16, 48), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_faiss_finds_the_very_positions_of_the_oracle_where_nothing_ties(
    seed: int, count: int, dimensions: int, k: int
) -> None:
    rows, queries, k = random_units(count, dimensions, seed), random_units(5, dimensions, seed + 1), min(k, count)
    found, expected = FaissIndex(rows).search(queries, k), ExactIndex(rows).search(queries, k + 1)
    gaps = -np.diff(expected.cosines, axis=1)
    clear = (gaps > TOLERANCE).all(axis=1)
    np.testing.assert_array_equal(found.positions[clear], expected.positions[clear, :k])


@given(st.integers(0, 2**32 - 1), st.integers(1, 700), st.integers(1, 300), st.integers(1, 12), st.sampled_from([1, 8]))
@settings(deadline=None, max_examples=60)
def test_a_batch_finds_what_the_oracle_finds(seed: int, count: int, queries: int, k: int, copies: int) -> None:
    rows = random_units(count, 16, seed)
    if copies > 1:  # many equal cosines
        rows = rows[np.random.default_rng(seed).integers(0, 1 + count // copies, count)]
    asked = random_units(queries, 16, seed + 1)
    hits = BatchIndex(rows).search(asked, k)
    assert_nearest(hits, rows, asked, k)
    expected = ExactIndex(rows).search(asked, k)
    np.testing.assert_allclose(hits.cosines, expected.cosines, atol=TOLERANCE)


@every_index
@given(search=searches())
@settings(deadline=None)
def test_the_nearest_rows_are_found_highest_cosine_first(make: MakeIndex, search: tuple[Vectors, Vectors, int]) -> None:
    rows, queries, k = search
    assert_nearest(make(rows).search(queries, k), rows, queries, k)


@given(exact_rows, exact_rows)
@settings(deadline=None)
def test_the_oracle_puts_the_earlier_of_equal_cosines_first(rows: Vectors, queries: Vectors) -> None:
    hits = ExactIndex(rows).search(queries, len(rows))
    for cosines, positions in zip(hits.cosines.tolist(), hits.positions.tolist(), strict=True):
        ranked = list(zip([-cosine for cosine in cosines], positions, strict=True))
        assert ranked == sorted(ranked)


@every_index
def test_a_unit_row_finds_itself_first_with_cosine_one(make: MakeIndex) -> None:
    rows = random_units(400, 24)
    hits = make(rows).search(rows, 3)
    np.testing.assert_array_equal(hits.positions[:, 0], np.arange(400))
    np.testing.assert_allclose(hits.cosines[:, 0], 1.0, atol=TOLERANCE)


@every_index
def test_no_cosine_leaves_the_range_by_rounding(make: MakeIndex) -> None:
    rows = random_units(400, 24)
    assert float((rows * rows).sum(axis=1).max()) > 1.0  # rounding does exceed one here
    hits = make(np.concatenate([rows, -rows])).search(rows, 800)
    assert float(hits.cosines.max()) == 1.0
    assert float(hits.cosines.min()) == -1.0


@every_index
def test_a_k_larger_than_the_index_is_padded(make: MakeIndex) -> None:
    hits = make(np.eye(2, 3, dtype=np.float32)).search(np.eye(1, 3, dtype=np.float32), 5)
    assert hits.positions.tolist() == [[0, 1, -1, -1, -1]]
    assert hits.cosines.tolist() == [[1.0, 0.0, -1.0, -1.0, -1.0]]


@every_index
def test_an_opposite_row_is_a_hit_and_not_padding(make: MakeIndex) -> None:
    hits = make(np.array([[-1.0, 0.0]], np.float32)).search(np.array([[1.0, 0.0]], np.float32), 2)
    assert hits.positions.tolist() == [[0, -1]]
    assert hits.cosines.tolist() == [[-1.0, -1.0]]


@every_index
def test_an_empty_index_finds_nothing_and_pads_everything(make: MakeIndex) -> None:
    index = make(np.zeros((0, 4), np.float32))
    hits = index.search(random_units(3, 4), 2)
    assert index.size == 0
    assert hits.positions.tolist() == [[-1, -1]] * 3
    assert hits.cosines.tolist() == [[-1.0, -1.0]] * 3
    assert hits.cosines.dtype == np.float32
    assert hits.positions.dtype == np.int64


@every_index
@pytest.mark.parametrize("size", [0, 3])
def test_no_queries_give_no_hits(make: MakeIndex, size: int) -> None:
    hits = make(random_units(size, 4)).search(np.zeros((0, 4), np.float32), 5)
    assert hits.cosines.shape == hits.positions.shape == (0, 5)


@every_index
def test_a_query_finds_the_same_alone_as_among_others(make: MakeIndex) -> None:
    rows, queries = random_units(100, 24), random_units(40, 24, seed=1)
    index = make(rows)
    together = index.search(queries, 4)
    for number in range(len(queries)):
        alone = index.search(queries[number : number + 1], 4)
        np.testing.assert_array_equal(alone.positions[0], together.positions[number])
        np.testing.assert_allclose(alone.cosines[0], together.cosines[number], atol=TOLERANCE)


@every_index
@given(search=searches(), cuts=st.lists(st.integers(0, 20), max_size=3))
@settings(deadline=None, max_examples=50)
def test_an_index_extended_step_by_step_equals_one_made_at_once(
    make: MakeIndex, search: tuple[Vectors, Vectors, int], cuts: list[int]
) -> None:
    rows, queries, k = search
    index = make(rows[:0])
    for part in np.split(rows, sorted(min(cut, len(rows)) for cut in cuts)):
        index = index.extended(part)
    assert index.size == len(rows)
    assert_same_hits(index.search(queries, k), make(rows).search(queries, k))


@every_index
@pytest.mark.parametrize("size", [0, 6])
def test_extending_leaves_the_old_index_as_it_was(make: MakeIndex, size: int) -> None:
    queries = random_units(5, 8, seed=2)
    old = make(random_units(size, 8))
    before = old.search(queries, 10)
    new = old.extended(queries)
    assert (old.size, new.size) == (size, size + 5)
    assert_same_hits(old.search(queries, 10), before)
    assert new.search(queries, 1).positions.ravel().tolist() == list(range(size, size + 5))


@every_index
def test_two_extensions_of_one_index_do_not_see_each_other(make: MakeIndex) -> None:
    axes = np.eye(3, dtype=np.float32)
    old = make(axes[:1])
    one, other = old.extended(axes[1:2]), old.extended(axes[2:3])
    assert one.search(axes, 1).cosines.ravel().tolist() == [1.0, 1.0, 0.0]
    assert other.search(axes, 1).cosines.ravel().tolist() == [1.0, 0.0, 1.0]


@every_index
def test_an_extended_index_does_not_follow_the_callers_array(make: MakeIndex) -> None:
    rows = np.eye(3, dtype=np.float32)
    index = make(rows[:0]).extended(rows)
    rows[:] = 0.0
    assert index.search(np.eye(3, dtype=np.float32), 1).cosines.ravel().tolist() == [1.0, 1.0, 1.0]


@every_index
@pytest.mark.parametrize("shape", [(4,), (2, 2, 4), (0,)])
def test_rows_and_queries_that_are_no_matrix_are_refused_with_their_shape(
    make: MakeIndex, shape: tuple[int, ...]
) -> None:
    wrong = np.zeros(shape, np.float32)
    index = make(random_units(3, 4))
    for refuse in (make, index.extended, lambda rows: index.search(rows, 1)):
        with pytest.raises(ValueError, match=re.escape(f"vectors must be (n, d), not {shape}")):
            refuse(wrong)


@every_index
@pytest.mark.parametrize("size", [0, 3])
def test_an_index_is_not_extended_by_rows_of_another_width(make: MakeIndex, size: int) -> None:
    index = make(random_units(size, 4))
    with pytest.raises(ValueError, match="must match exactly"):
        index.extended(random_units(2, 5))
    assert index.size == size


@every_index
def test_float64_and_strided_input_is_searched_as_float32(make: MakeIndex) -> None:
    rows = random_units(10, 4)
    strided = cast("Vectors", np.asfortranarray(np.repeat(rows, 2, axis=0).astype(np.float64))[::2])
    hits = make(strided).search(strided, 3)
    assert_same_hits(hits, make(rows).search(rows, 3))
    assert hits.cosines.dtype == np.float32


def test_hits_cannot_be_given_other_arrays() -> None:
    hits = ExactIndex(random_units(2, 4)).search(random_units(1, 4), 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        hits.positions = np.zeros((1, 1), np.int64)  # type: ignore[misc]  # the very thing under test


def test_nobody_can_change_the_rows_of_a_batch_index() -> None:
    given = random_units(400, 8)
    index = BatchIndex(given)
    given[0, 0] = 2.0
    assert index.rows[0, 0] != 2.0
    with pytest.raises(ValueError, match="read-only"):
        index.rows[0, 0] = 2.0


def test_an_extended_batch_index_copies_no_old_rows_while_there_is_room() -> None:
    first = BatchIndex(random_units(400, 8)).extended(random_units(1, 8))
    second = first.extended(random_units(5, 8))
    assert np.shares_memory(first.rows, second.rows)
    assert not np.shares_memory(second.rows, first.extended(random_units(5, 8)).rows)


@pytest.mark.parametrize("queries", [1, 3, 4, 64])
def test_a_batch_index_finds_to_the_bit_what_an_index_of_faiss_finds_for_few(queries: int) -> None:
    rows, asked = random_units(2_000, 384), random_units(queries, 384, seed=1)
    grown = BatchIndex(rows[:0])
    for part in np.array_split(rows, 7):
        grown = grown.extended(part)
    hits = grown.search(asked, 10)
    assert_same_hits(hits, BatchIndex(rows).search(asked, 10))
    if queries < 4:
        assert_same_hits(hits, FaissIndex(rows).search(asked, 10))


@every_index
@given(search=searches(), chance=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_an_index_without_some_rows_is_one_that_never_had_them(
    make: MakeIndex, search: tuple[Vectors, Vectors, int], chance: random.Random
) -> None:
    rows, queries, k = search
    leaving = np.array(sorted(chance.sample(range(len(rows)), chance.randint(0, len(rows)))), np.int64)
    index = make(rows)
    before = index.search(queries, k)
    assert_same_hits(
        index.without(leaving).search(queries, k), make(np.delete(rows, leaving, axis=0)).search(queries, k)
    )
    assert_same_hits(index.search(queries, k), before)
