"""Neighbour evidence: leaving examples out, and what neighbours are worth as features."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.evidence import (
    NEIGHBOURS,
    PRECEDENT_FROM,
    Floats,
    Neighbours,
    features,
    precedent,
    search,
    search_leaving_out,
)
from index.example import Example, Label
from index.live import Side, Snapshot
from index.search import ExactIndex, FaissIndex, Hits

DIMENSIONS = 16
TECHNIQUES = ("rubric_grading", "self_chat")
CAPABILITIES = ("coding", "tool_use")
SETTINGS = settings(max_examples=100, deadline=None)


def harvest(name: str, technique: str = "self_chat", *capabilities: str) -> Example:
    return Example(f"harvest {name}", Label.EXTRACTION, technique, capabilities)


def ordinary(name: str, *capabilities: str) -> Example:
    return Example(f"ordinary {name}", Label.BENIGN, capabilities=capabilities)


def at_cosines(*cosines: float) -> Floats:
    """Unit rows with known cosines to QUERY."""
    rows = [[cosine, math.sqrt(1 - cosine * cosine)] for cosine in cosines]
    return np.array(rows, np.float32).reshape(-1, 2)


QUERY = np.array([[1.0, 0.0]], np.float32)


def snapshot_of(
    extraction: Sequence[Example], extraction_rows: Floats, benign: Sequence[Example], benign_rows: Floats
) -> Snapshot:
    sides = [
        Side(tuple(examples), ExactIndex(rows))
        for examples, rows in ((extraction, extraction_rows), (benign, benign_rows))
    ]
    return Snapshot(1, sides[0], sides[1])


def random_snapshot(rng: np.random.Generator, sizes: tuple[int, int]) -> Snapshot:
    """Examples whose cosines are exact in float32, so that ties are ties in every index."""
    harvests = [harvest(f"{number}") for number in range(sizes[0])]
    ordinaries = [ordinary(f"{number}") for number in range(sizes[1])]
    return snapshot_of(harvests, exact_rows(rng, sizes[0]), ordinaries, exact_rows(rng, sizes[1]))


def exact_rows(rng: np.random.Generator, count: int) -> Floats:
    """Corners of the hypercube of DIMENSIONS: unit rows whose cosines are multiples of 1/8."""
    return (rng.integers(0, 2, (count, DIMENSIONS)) * 2 - 1).astype(np.float32) / np.float32(math.sqrt(DIMENSIONS))


def without(snapshot: Snapshot, rows: tuple[Floats, Floats], ids: frozenset[str]) -> Snapshot:
    """The snapshot as it would be had these examples never been added."""
    sides = []
    for side, vectors in zip((snapshot.extraction, snapshot.benign), rows, strict=True):
        kept = [place for place, example in enumerate(side.examples) if example.id not in ids]
        sides.append(Side(tuple(side.examples[place] for place in kept), ExactIndex(vectors[kept])))
    return Snapshot(snapshot.revision, sides[0], sides[1])


def found(side: Side, hits: Hits, row: int) -> list[tuple[str | None, float]]:
    """One query's hits as ids and cosines; None where there is no neighbour."""
    return [
        (side.examples[position].id if position >= 0 else None, float(cosine))
        for position, cosine in zip(hits.positions[row], hits.cosines[row], strict=True)
    ]


@st.composite
def searches(draw: st.DrawFn) -> tuple[Snapshot, tuple[Floats, Floats], Floats, list[frozenset[str]]]:
    """A snapshot with its rows, queries, and for each query the ids to leave out; some of them of nobody."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.tuples(st.integers(0, 30), st.integers(0, 30)))
    rows = exact_rows(rng, sizes[0]), exact_rows(rng, sizes[1])
    harvests = [harvest(f"{number}") for number in range(sizes[0])]
    ordinaries = [ordinary(f"{number}") for number in range(sizes[1])]
    ids = [example.id for example in (*harvests, *ordinaries)] + ["ex-unknown"]
    left_out = draw(st.lists(st.frozensets(st.sampled_from(ids)), max_size=4))
    return snapshot_of(harvests, rows[0], ordinaries, rows[1]), rows, exact_rows(rng, len(left_out)), left_out


# Searches.


@SETTINGS
@given(searches())
def test_leaving_examples_out_equals_searching_a_snapshot_without_them(
    given_search: tuple[Snapshot, tuple[Floats, Floats], Floats, list[frozenset[str]]],
) -> None:
    snapshot, rows, queries, left_out = given_search
    neighbours = search_leaving_out(snapshot, queries, left_out)
    for row, ids in enumerate(left_out):
        expected = search(without(snapshot, rows, ids), queries[row : row + 1])
        for (side, hits), (other, others) in zip(neighbours.sides, expected.sides, strict=True):
            assert found(side, hits, row) == found(other, others, 0)


@SETTINGS
@given(searches())
def test_an_example_that_is_left_out_is_never_found(
    given_search: tuple[Snapshot, tuple[Floats, Floats], Floats, list[frozenset[str]]],
) -> None:
    snapshot, _, queries, left_out = given_search
    neighbours = search_leaving_out(snapshot, queries, left_out)
    for side, hits in neighbours.sides:
        assert hits.positions.shape == hits.cosines.shape == (len(queries), NEIGHBOURS)
        for row, ids in enumerate(left_out):
            assert not {example for example, _ in found(side, hits, row)} & ids


@SETTINGS
@given(searches())
def test_features_as_if_examples_were_absent_equal_those_without_them(
    given_search: tuple[Snapshot, tuple[Floats, Floats], Floats, list[frozenset[str]]],
) -> None:
    snapshot, rows, queries, left_out = given_search
    together = features(search_leaving_out(snapshot, queries, left_out), TECHNIQUES, CAPABILITIES)
    for row, ids in enumerate(left_out):
        alone = features(search(without(snapshot, rows, ids), queries[row : row + 1]), TECHNIQUES, CAPABILITIES)
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_leaving_nothing_out_is_a_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    snapshot, queries = random_snapshot(rng, (25, 4)), exact_rows(rng, 5)
    plain, left = search(snapshot, queries), search_leaving_out(snapshot, queries, [frozenset()] * 5)
    for (_, hits), (_, others) in zip(plain.sides, left.sides, strict=True):
        np.testing.assert_array_equal(hits.positions, others.positions)
        np.testing.assert_array_equal(hits.cosines, others.cosines)


def test_each_query_leaves_out_its_own_examples_only() -> None:
    examples = [harvest("a"), harvest("b")]
    snapshot = snapshot_of(examples, at_cosines(1.0, 0.5), [], at_cosines())
    ids = [frozenset({examples[0].id}), frozenset({examples[1].id}), frozenset[str]()]
    neighbours = search_leaving_out(snapshot, np.repeat(QUERY, 3, axis=0), ids)
    assert neighbours.extraction.positions[:, 0].tolist() == [1, 0, 0]
    assert neighbours.extraction.positions[:, 1].tolist() == [-1, -1, 1]


def test_leaving_out_more_examples_than_are_returned_still_finds_the_next_ones() -> None:
    examples = [harvest(f"{number}") for number in range(40)]
    snapshot = snapshot_of(examples, at_cosines(*np.linspace(1.0, 0.1, 40)), [], at_cosines())
    nearest = frozenset(example.id for example in examples[:25])
    neighbours = search_leaving_out(snapshot, QUERY, [nearest])
    assert neighbours.extraction.positions[0].tolist() == list(range(25, 35))


def test_ids_and_queries_of_different_number_are_refused() -> None:
    snapshot = snapshot_of([harvest("a")], at_cosines(1.0), [], at_cosines())
    with pytest.raises(ValueError, match="zip"):
        search_leaving_out(snapshot, np.repeat(QUERY, 2, axis=0), [frozenset()])


# Features.


def test_the_features_of_a_small_snapshot_are_known() -> None:
    snapshot = snapshot_of(
        [harvest("a", "self_chat", "coding"), harvest("b", "rubric_grading", "coding"), harvest("c", "self_chat")],
        at_cosines(0.9, 0.85, 0.8),
        [ordinary("d", "tool_use"), ordinary("e")],
        at_cosines(0.9, -0.6),
    )
    (row,) = features(search(snapshot, QUERY), TECHNIQUES, CAPABILITIES)
    # A vote falls to 1/e with every 0.05 of cosine; one without a neighbour has none.
    votes = [1.0, math.exp(-1), math.exp(-2)]
    both = sum(votes) + 1.0
    expected = [
        *(0.9, (0.9 + 0.85 + 0.8) / 3, (0.9 + 0.85 + 0.8) / 10),
        *(0.9, 0.9 / 3, 0.9 / 10),  # a cosine below 0 counts as 0
        *(0.0, (0.85 + 0.8) / 3),
        *(votes[1] / sum(votes), (votes[0] + votes[2]) / sum(votes)),
        *((votes[0] + votes[1]) / both, 1.0 / both),
    ]
    np.testing.assert_allclose(row, expected, atol=1e-5)


def test_the_columns_of_the_shares_follow_the_heads_names() -> None:
    examples = [harvest("a", "self_chat", "coding")]
    neighbours = search(snapshot_of(examples, at_cosines(0.7), [], at_cosines()), QUERY)
    names = ("other", "self_chat", "another")
    (row,) = features(neighbours, names, ("tool_use", "coding"))
    np.testing.assert_allclose(row[8:], [0, 1, 0, 0, 1], atol=1e-5)
    (row,) = features(neighbours, names[::-1], ("coding", "tool_use"))
    np.testing.assert_allclose(row[8:], [0, 1, 0, 1, 0], atol=1e-5)


def test_a_technique_takes_no_votes_of_benign_neighbours() -> None:
    snapshot = snapshot_of([harvest("a")], at_cosines(0.3), [ordinary("b")], at_cosines(1.0))
    (row,) = features(search(snapshot, QUERY), ("self_chat",), ())
    assert row[8] == pytest.approx(1.0, abs=1e-5)


def test_the_features_of_many_queries_have_a_row_for_each() -> None:
    rng = np.random.default_rng(0)
    snapshot, queries = random_snapshot(rng, (12, 30)), exact_rows(rng, 7)
    together = features(search(snapshot, queries), TECHNIQUES, CAPABILITIES)
    assert together.shape == (7, 8 + len(TECHNIQUES) + len(CAPABILITIES))
    assert together.dtype == np.float32
    for row, query in zip(together, queries, strict=True):
        (alone,) = features(search(snapshot, query[None, :]), TECHNIQUES, CAPABILITIES)
        np.testing.assert_allclose(row, alone, atol=1e-6)
    assert features(search(snapshot, queries[:0]), TECHNIQUES, CAPABILITIES).shape == (0, 12)
    assert features(search(snapshot, queries), (), ()).shape == (7, 8)


@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_empty_sides_give_finite_features(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    snapshot, queries = random_snapshot(rng, sizes), exact_rows(rng, 4)
    neighbours = search(snapshot, queries)
    rows = features(neighbours, TECHNIQUES, CAPABILITIES)
    assert rows.shape == (4, 12)
    assert np.isfinite(rows).all()
    for column, size in zip((slice(0, 3), slice(3, 6)), sizes, strict=True):
        assert size or not rows[:, column].any()
    assert not rows[:, 8:10].any() or sizes[0]
    assert np.isfinite(precedent(neighbours)).all()


@SETTINGS
@given(st.integers(0, 2**32), st.tuples(st.integers(0, 15), st.integers(0, 15)))
def test_levels_fall_and_shares_stay_within_their_bounds(seed: int, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    rows = features(search(random_snapshot(rng, sizes), exact_rows(rng, 3)), TECHNIQUES, CAPABILITIES)
    for first in (0, 3):
        levels = rows[:, first : first + 3]
        assert (levels >= 0).all()
        assert (levels <= 1 + 1e-6).all()
        assert (np.diff(levels, axis=1) <= 1e-6).all()
    assert (rows[:, 8:] >= 0).all()
    assert (rows[:, 8:10].sum(axis=1) <= 1 + 1e-5).all()


def test_an_exact_and_a_faiss_index_give_the_same_features() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((40, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    harvests = tuple(harvest(f"{number}", TECHNIQUES[number % 2], CAPABILITIES[number % 2]) for number in range(20))
    ordinaries = tuple(ordinary(f"{number}", CAPABILITIES[number % 2]) for number in range(20))
    exact = Snapshot(1, Side(harvests, ExactIndex(vectors[:20])), Side(ordinaries, ExactIndex(vectors[20:])))
    faiss = Snapshot(1, Side(harvests, FaissIndex(vectors[:20])), Side(ordinaries, FaissIndex(vectors[20:])))
    queries = vectors[::7]
    np.testing.assert_allclose(
        features(search(exact, queries), TECHNIQUES, CAPABILITIES),
        features(search(faiss, queries), TECHNIQUES, CAPABILITIES),
        atol=1e-5,
    )


# Precedents.


def precedent_at(extraction: Floats, benign: Floats) -> float:
    neighbours: Neighbours = search(
        snapshot_of(
            [harvest(f"{number}") for number in range(len(extraction))],
            extraction,
            [ordinary(f"{number}") for number in range(len(benign))],
            benign,
        ),
        QUERY,
    )
    (value,) = precedent(neighbours)
    return float(value)


@pytest.mark.parametrize(
    ("extraction", "benign", "value"),
    [
        ((1.0,), (), 10.0),
        ((), (1.0,), -10.0),
        ((1.0,), (1.0,), 0.0),
        ((0.925, 0.2), (0.3,), 5.0),
        ((0.3,), (0.2, 0.925), -5.0),
        ((1.0,), (0.925,), 5.0),
        ((PRECEDENT_FROM - 0.01,), (PRECEDENT_FROM - 0.05,), 0.0),
        ((), (), 0.0),
        ((-1.0,), (-1.0,), 0.0),
    ],
)
def test_a_precedent_weighs_by_its_cosine_on_its_own_side(
    extraction: tuple[float, ...], benign: tuple[float, ...], value: float
) -> None:
    assert precedent_at(at_cosines(*extraction), at_cosines(*benign)) == pytest.approx(value, abs=1e-4)
