"""A side of many examples: a graph of most, an exact tail, and holes where examples were."""

import pickle
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import graph as graphs
from index import side as sides
from index.example import Example, Label
from index.graph import Graph
from index.grown import Grown
from index.layers import Layers
from index.roll import Places, Roll
from index.search import BatchIndex, ExactIndex, Vectors
from index.side import Side

WIDTH = 32


def units(count: int, seed: int = 0, width: int = WIDTH) -> Vectors:
    """(count, width) float32 unit rows."""
    rows = np.random.default_rng(seed).standard_normal((count, width), np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def examples_of(numbers: Sequence[int], technique: str = "self_chat") -> list[Example]:
    """An example for each number; its row is that of the same number."""
    return [Example(f"prompt {number}", Label.EXTRACTION, technique=technique) for number in numbers]


def number_of(example: Example) -> int:
    """Which row is an example's."""
    return int(example.text.split()[1])


def found(side: Side, queries: Vectors, k: int) -> list[list[int]]:
    """For each query the numbers of the examples that a side finds."""
    hits = side.index.search(queries, k)
    return [[number_of(side.examples[p]) for p in row if p >= 0] for row in hits.positions.tolist()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs begin early, so that a test has few rows."""
    monkeypatch.setattr(sides, "EXACT_UP_TO", 40)
    monkeypatch.setattr(sides, "TAIL", 20)
    monkeypatch.setattr(sides, "_HOLES", 15)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(6))
def test_a_side_that_changes_and_is_renewed_at_random_finds_what_the_oracle_finds(seed: int) -> None:
    chance, rows, queries = random.Random(seed), units(3_000, seed), units(8, seed + 100)
    side, alive, fresh = Side((), BatchIndex(rows[:0])), list[int](), iter(range(len(rows)))
    for _ in range(60):
        if chance.random() < 0.6 or not alive:
            came = [next(fresh) for _ in range(chance.choice([1, 3, 40]))]
            if alive and chance.random() < 0.5:  # one comes back
                left = alive.pop(chance.randrange(len(alive)))
                side = side.without([examples_of([left])[0].id])
                came.append(left)
            side, alive = side.extended(examples_of(came), rows[came]), alive + came
        else:
            leaving = chance.sample(alive, min(len(alive), chance.choice([1, 5, 30])))
            side = side.without([example.id for example in examples_of(leaving)])
            alive = [number for number in alive if number not in leaving]
        if side.renewal_due and chance.random() < 0.7:
            side = side.renewed()
        assert [number_of(example) for example in side.examples] == alive
        assert len(side.examples) == side.index.size == len(alive)
        assert {example.id for example in examples_of(alive)} == set(side.ids)
        truth = ExactIndex(rows[alive]).search(queries, 5)
        hits = side.index.search(queries, 5)
        np.testing.assert_allclose(hits.cosines, truth.cosines, atol=1e-3)
        np.testing.assert_array_equal(hits.positions >= 0, truth.positions >= 0)
    assert side.index.graph is not None


@pytest.mark.usefixtures("small")
def test_what_changes_while_a_side_is_renewed_is_in_the_renewed_one() -> None:
    rows, chance = units(400), random.Random(1)
    before = Side(examples_of(range(100)), BatchIndex(rows[:100]))
    for step in range(3):  # first a graph, then a longer one, then a new one without holes
        ids = [example.id for example in before.examples]
        leaving = chance.sample(ids, 8 if step < 2 else 40)
        again = examples_of([100 * step + 100], "tool_use_harvest")
        now = before.without(leaving[:4])
        now = now.extended([*examples_of(range(100 * step + 101, 100 * step + 150)), *again], rows[: 49 + 1])
        now = now.without([again[0].id, *leaving[4:]]).extended(again, rows[:1])
        renewed = before.renewed().brought_up(before, now)
        assert [(e.id, e.technique) for e in renewed.examples] == [(e.id, e.technique) for e in now.examples]
        names = ("self_chat", "tool_use_harvest")
        for name in now.ids:
            places = np.array([side.ids.get(name) for side in (renewed, now)])
            assert renewed.membership(names)[places[:1]].tolist() == now.membership(names)[places[1:]].tolist()
        before = renewed


def test_a_side_without_a_graph_finds_to_the_bit_what_one_that_never_had_the_removed_rows_finds() -> None:
    rows, queries = units(900), units(20, 7)
    side = Side(examples_of(range(300)), BatchIndex(rows[:300]))
    side = side.without([e.id for e in examples_of(range(0, 300, 3))])
    side = side.extended(examples_of(range(300, 900)), rows[300:])
    alive = [number for number in range(900) if number >= 300 or number % 3]
    fresh = Side(examples_of(alive), BatchIndex(rows[alive]))
    for some in (queries, queries[:1]):
        np.testing.assert_array_equal(side.index.search(some, 10).cosines, fresh.index.search(some, 10).cosines)
        assert found(side, some, 10) == found(fresh, some, 10)


@pytest.mark.usefixtures("small")
def test_a_revoked_cluster_does_not_hide_what_lies_behind_it() -> None:
    rows, query = units(4_000, width=64), units(1, 5, width=64)
    rows[:1_500] = query + 0.02 * units(1_500, 6, width=64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    side = Side(examples_of(range(4_000)), BatchIndex(rows)).renewed()
    side = side.without([example.id for example in examples_of(range(1_500))])
    truth = ExactIndex(rows[1_500:]).search(query, 10)
    hits = side.index.search(query, 10)
    np.testing.assert_allclose(hits.cosines, truth.cosines, atol=1e-3)
    assert min(found(side, query, 10)[0]) >= 1_500


@pytest.mark.usefixtures("small")
def test_snapshots_of_a_side_do_not_change_when_it_does() -> None:
    rows = units(300)
    old = Side(examples_of(range(100)), BatchIndex(rows[:100])).renewed()
    before, members = found(old, rows[:20], 6), old.membership(("self_chat",))[np.arange(-1, 100)].tolist()
    new = old.without([examples_of([3])[0].id]).extended(examples_of(range(100, 200)), rows[100:200])
    other = old.extended(examples_of(range(200, 300)), rows[200:])
    new.renewed()
    assert found(old, rows[:20], 6) == before
    assert old.membership(("self_chat",))[np.arange(-1, 100)].tolist() == members
    assert [number_of(e) for e in other.examples] == [*range(100), *range(200, 300)]
    assert examples_of([3])[0].id in old.ids
    assert examples_of([3])[0].id not in new.ids


@pytest.mark.usefixtures("small")
def test_a_side_is_the_same_in_another_process() -> None:
    rows = units(130)
    side = Side(examples_of(range(100)), BatchIndex(rows[:100])).renewed()
    side = side.without([examples_of([3])[0].id]).extended(examples_of(range(100, 130)), rows[100:])
    there = pickle.loads(pickle.dumps(side))
    assert found(there, rows, 5) == found(side, rows, 5)
    assert list(there.examples) == list(side.examples)
    assert there.extended(examples_of([200]), rows[:1]).index.size == side.index.size + 1


def test_a_graph_finds_nearly_everything_that_is_near() -> None:
    corpus = units(40, 1, 48)
    chance = np.random.default_rng(2)
    rows = corpus[chance.integers(0, 40, 5_000)] + 0.9 * units(5_000, 3, 48)
    rows = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    graph = Graph.build(48, [rows[:4_000]], np.arange(4_000)).extended(rows[4_000:], np.arange(4_000, 5_000))
    queries, alive = rows[::50], np.ones(5_000, bool)
    hits, truth = graph.search(queries, 10, alive, 0), ExactIndex(rows).search(queries, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(hits.positions.tolist(), truth.positions.tolist(), strict=True)]
    assert sum(shared) >= 0.99 * hits.positions.size
    np.testing.assert_allclose(graph.rows(0, 5_000), rows, atol=1e-3)


def test_a_pause_that_raises_ends_the_building() -> None:
    calls = []

    def pause() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Graph.build(WIDTH, [units(5_000)], np.arange(5_000), pause)
    assert len(calls) == 3


def test_an_opposite_row_comes_before_what_is_no_hit() -> None:
    row = units(1)
    layers = Layers.of(BatchIndex(row), Graph.build(WIDTH, [-row], np.arange(1)), 1)
    hits = layers.search(row, 4)
    assert hits.positions.tolist() == [[1, 0, -1, -1]]
    assert layers.without(np.array([0])).search(row, 2).positions.tolist() == [[1, -1]]
    assert layers.without(np.array([1, 0])).search(row, 2).positions.tolist() == [[-1, -1]]


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(0, 12))
@settings(deadline=None, max_examples=60)
def test_two_that_extend_one_array_do_not_see_each_other(sizes: list[int], at: int) -> None:
    grown, lists = [Grown(np.arange(3))], [[0, 1, 2]]
    for number, size in enumerate(sizes):
        place = (number * at) % len(grown)
        values = list(range(1_000 * number, 1_000 * number + size))
        grown.append(grown[place].extended(np.array(values, np.int64)))
        lists.append(lists[place] + values)
    assert [one.view.tolist() for one in grown] == lists


def test_places_keep_their_own_when_others_are_made_of_them() -> None:
    first = Places().changed({f"ex-{n}": n for n in range(2_000)})
    second = first.changed({"ex-5": 7, "new": 9}, ["ex-4", "ex-5", "unknown"])
    assert [first.get(name) for name in ("ex-4", "ex-5", "new")] == [4, 5, -1]
    assert [second.get(name) for name in ("ex-4", "ex-5", "new")] == [-1, 7, 9]
    assert (len(first), len(second)) == (2_000, 2_000)


def test_a_roll_numbers_each_labelling_once() -> None:
    roll = Roll.of([*examples_of(range(3)), *examples_of([3], "tool_use_harvest"), *examples_of([4])])
    held = roll.membership(("tool_use_harvest", "self_chat"))
    assert held.table.shape == (3, 2)
    assert held[np.array([[3, -1], [0, 4]])].tolist() == [[[True, False], [False, False]], [[False, True]] * 2]


def test_wide_searches_begin_where_graphs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph.build(WIDTH, [units(200)], np.arange(200))
    asked: list[int] = []
    walk = Graph._walk

    def noted(*given: Any) -> Any:
        asked.append(given[3])
        return walk(*given)

    monkeypatch.setattr(Graph, "_walk", noted)
    graph.search(units(1), 5, np.ones(200, bool), 0)
    monkeypatch.setattr(graphs, "WIDE_FROM", 100)
    graph.search(units(1), 5, np.ones(200, bool), 0)
    assert asked == [graphs.SEARCH_WIDTH, graphs.WIDE_WIDTH]
