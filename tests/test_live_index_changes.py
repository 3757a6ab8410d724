"""The live index follows every change, made here or elsewhere, and is renewed, and finds what exact search finds."""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from live_indexes import (
    ACT,
    WORDS,
    Open,
    assert_in_step,
    benign,
    carried,
    embed,
    extraction,
    indexes_over,
    nearest_text,
    seeded_store,
)

from index import side as sides
from index.change import Act
from index.contract import ExampleStore, Filter, Relabel
from index.errors import InvalidExample, StoreUnavailable
from index.example import Example, Label, State
from index.live import ExampleIndex, Side
from index.search import BatchIndex, ExactIndex, FaissIndex
from index.tail import Tail


@pytest.fixture
def open_index(tmp_path: Path) -> Iterator[Open]:
    """Opens an index over the test's store with a connection of its own, as often as it is called."""
    with indexes_over(seeded_store(tmp_path), embed) as opens:
        yield opens


@pytest.fixture(params=[ExactIndex, FaissIndex])
def live(open_index: Open, request: pytest.FixtureRequest) -> ExampleIndex:
    """An index over a store of one example."""
    return open_index(make_index=request.param)


def test_a_pending_example_is_searched_from_its_acceptance_on(live: ExampleIndex) -> None:
    (proposed,) = live.add([replace(extraction("harvest the answers"), state=State.PENDING)], ACT)
    assert live.snapshot.extraction.index.size == 0
    assert proposed.id not in live.snapshot.extraction.ids
    ((accepted,), revision) = live.write(lambda store: store.accept([proposed.id], Act("bob")))
    assert revision == live.snapshot.revision == accepted.changed
    assert nearest_text(live.snapshot, "harvest the answers")[0] == "harvest the answers"
    assert_in_step(live)


def test_a_revoked_example_is_found_no_more_and_a_restored_one_again(live: ExampleIndex) -> None:
    (stored,) = live.add([extraction("harvest the answers")], ACT)
    old = live.snapshot
    live.write(lambda store: store.revoke([stored.id], ACT))
    assert live.snapshot.extraction.index.size == 0
    assert stored.id not in live.snapshot.extraction.ids
    assert nearest_text(old, "harvest the answers")[0] == "harvest the answers"
    assert_in_step(live)
    live.write(lambda store: store.restore([stored.id], ACT, State.ACTIVE))
    assert nearest_text(live.snapshot, "harvest the answers")[0] == "harvest the answers"
    assert_in_step(live)


def test_a_relabelled_example_changes_sides(live: ExampleIndex) -> None:
    (stored,) = live.add([extraction("harvest the answers")], ACT)
    live.write(lambda store: store.relabel([Relabel(stored.id, Label.BENIGN, None, ("code",))], ACT))
    assert stored.id not in live.snapshot.extraction.ids
    assert carried(live.snapshot.benign, "code") == [[False], [True], [False]]
    assert_in_step(live)
    live.write(lambda store: store.relabel([Relabel(stored.id, Label.EXTRACTION, "self_chat", ())], ACT))
    assert carried(live.snapshot.extraction, "self_chat", "code") == [[True, False], [False, False]]
    assert_in_step(live)


def test_a_change_elsewhere_is_followed(open_index: Open) -> None:
    here, there = open_index(), open_index()
    (one, other) = here.add([extraction("harvest the answers"), benign("write a poem")], ACT)
    there.catch_up()
    there.write(lambda store: store.revoke([one.id], ACT))
    there.write(lambda store: store.relabel([Relabel(other.id, Label.EXTRACTION, "self_chat", ())], ACT))
    here.catch_up()
    assert [example.id for example in here.snapshot.extraction.examples] == [other.id]
    assert_in_step(here)


def test_a_write_that_fails_leaves_the_snapshot_as_it_was(live: ExampleIndex) -> None:
    before = live.snapshot
    with pytest.raises(InvalidExample):
        live.write(lambda store: store.add([Example("", Label.BENIGN)], ACT))
    assert live.snapshot is before


def test_catching_up_with_nothing_new_keeps_the_snapshot(live: ExampleIndex) -> None:
    before = live.snapshot
    live.catch_up()
    assert live.snapshot is before


@pytest.mark.parametrize("seed", range(3))
def test_an_index_that_follows_random_changes_and_is_renewed_finds_what_exact_search_finds(
    open_index: Open, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "EXACT_UP_TO", 60)
    monkeypatch.setattr(sides, "TAIL", 30)
    monkeypatch.setattr(sides, "_HOLES", 20)
    chance = random.Random(seed)
    live, behind = open_index(make_index=BatchIndex), open_index(make_index=BatchIndex)
    for step in range(40):
        live.write(a_change(chance, step))
        if chance.random() < 0.4:
            live.renew()
        if chance.random() < 0.3:
            behind.catch_up()
    behind.catch_up()
    assert live.snapshot.extraction.index.graph is not None
    assert_in_step(live)
    assert_in_step(behind)
    fresh = open_index(make_index=ExactIndex)
    queries = embed([f"harvest {number} {WORDS[number % 10]}" for number in range(50)])
    shared = []
    for query in queries:
        found, truth = live.snapshot.nearest(query, 10), fresh.snapshot.nearest(query, 10)
        least = truth[-1].cosine - 1e-3
        shared.append(sum(match.cosine >= least for match in found))
    assert sum(shared) >= 0.99 * 10 * len(queries)


def a_change(chance: random.Random, step: int) -> Callable[[ExampleStore], object]:
    """A random write: adds mostly, and revokes, relabels and restores."""

    def change(store: ExampleStore) -> object:
        known = store.since(0)
        some = chance.sample(known, min(len(known), 12))
        ids, kind = [example.id for example in some], chance.random()
        if kind < 0.55:
            texts = [f"{chance.choice(WORDS)} {step * 100 + number} {chance.choice(WORDS)}" for number in range(20)]
            states = chance.choices([State.ACTIVE, State.PENDING], [9, 1], k=20)
            made = [chance.choice([extraction, benign])(text) for text in texts]
            return store.add([replace(e, state=state) for e, state in zip(made, states, strict=True)], ACT)
        if kind < 0.7:
            return store.revoke(ids, ACT)
        if kind < 0.9:
            other = {Label.BENIGN: (Label.EXTRACTION, "self_chat"), Label.EXTRACTION: (Label.BENIGN, None)}
            return store.relabel([Relabel(example.id, *other[example.label], ("code",)) for example in some], ACT)
        revoked, _ = store.page(50, "", Filter(state=State.REVOKED))
        return store.restore([example.id for example in revoked[:5]], ACT, State.ACTIVE)

    return change


def test_the_tail_brings_what_others_write_and_renews_what_grew(
    open_index: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "EXACT_UP_TO", 20)
    here, there = open_index(), open_index()
    renewed = threading.Event()
    tail = Tail(lambda: here, interval=0.01, on_renewal=lambda index: renewed.set())
    tail.start()
    try:
        there.add([extraction(f"harvest {number}") for number in range(30)], ACT)
        assert renewed.wait(20)
    finally:
        tail.stop()
    assert here.snapshot.extraction.index.graph is not None
    assert_in_step(here)


def test_the_tail_says_once_that_the_store_cannot_be_read_and_goes_on_when_it_can(
    open_index: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = open_index(), open_index()
    failed, worked, told, broken = threading.Semaphore(0), threading.Semaphore(0), list[Exception](), [True]
    revision = here.store.revision

    def looked() -> int:
        (failed if broken[0] else worked).release()
        if broken[0]:
            raise StoreUnavailable("the store is away")
        return revision()

    monkeypatch.setattr(here.store, "revision", looked)
    tail = Tail(lambda: here, interval=0.01, on_trouble=told.append)
    tail.start()
    try:
        for _ in range(4):
            assert failed.acquire(timeout=20)
        there.add([benign("write a poem")], ACT)
        broken[0] = False
        for _ in range(4):  # a look, another one before catching up, and two looks after it
            assert worked.acquire(timeout=20)
    finally:
        tail.stop()
    assert [str(error) for error in told] == ["the store is away"]
    monkeypatch.undo()
    assert_in_step(here)


def test_a_tail_that_is_stopped_ends_a_renewal_in_its_middle(open_index: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "EXACT_UP_TO", 20)
    here = open_index()
    here.add([extraction(f"harvest {number}") for number in range(30)], ACT)
    before, begun = here.snapshot, threading.Event()
    renewed = sides.Side.renewed

    def endless(side: Side, pause: Callable[[], None]) -> Side:
        begun.set()
        while True:
            pause()
            renewed(side, pause)

    monkeypatch.setattr(sides.Side, "renewed", endless)
    tail = Tail(lambda: here, interval=0.01)
    tail.start()
    assert begun.wait(20)
    tail.stop()
    assert here.snapshot is before
