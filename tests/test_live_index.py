"""The live index: what is acknowledged is durable and searchable, and snapshots do not change."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from live_indexes import (
    ACT,
    ENCODER,
    SEED,
    Open,
    assert_in_step,
    benign,
    carried,
    embed,
    everything,
    extraction,
    indexes_over,
    nearest_text,
    seeded_store,
)

from index.change import Act
from index.errors import ExampleConflict, InvalidExample
from index.example import Example, Label
from index.live import ExampleIndex
from index.search import ExactIndex, FaissIndex, VectorIndex, Vectors
from index.store import open_store

REQUEST = Act("ann", request_id="request")


class CountingEmbed:
    """The hash encoder as an embedding function that remembers what it was asked, and fails when it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fails = False

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        if self.fails:
            raise RuntimeError("the encoder failed")
        return embed(texts)


class MeetingIndex(ExactIndex):
    """An index whose extension waits a little for another thread's, so that writers meet there if anything lets them."""

    meeting = threading.Barrier(2)

    def extended(self, rows: Vectors) -> "MeetingIndex":
        with contextlib.suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.05)
        self.meeting.reset()
        return MeetingIndex(super().extended(rows)._rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is; it holds one benign example."""
    return seeded_store(tmp_path)


@pytest.fixture
def counted() -> CountingEmbed:
    """The embedding function of the test's indexes."""
    return CountingEmbed()


@pytest.fixture
def open_index(path: Path, counted: CountingEmbed) -> Iterator[Open]:
    """Opens an index over the test's store with a connection of its own, as often as it is called."""
    with indexes_over(path, counted) as opens:
        yield opens


@pytest.fixture(params=[ExactIndex, FaissIndex])
def live(open_index: Open, counted: CountingEmbed, request: pytest.FixtureRequest) -> ExampleIndex:
    """An index over a store of one example, whose embedding function was not called yet."""
    opened = open_index(make_index=request.param)
    counted.calls.clear()
    return opened


@pytest.mark.parametrize("make_index", [ExactIndex, FaissIndex])
def test_an_index_over_an_empty_store_is_empty_and_takes_its_first_example(
    tmp_path: Path, make_index: Callable[[Vectors], VectorIndex]
) -> None:
    with closing(open_store(tmp_path / "empty.sqlite")) as store:
        live = ExampleIndex(store, embed, ENCODER.fingerprint, ENCODER.dimensions, make_index)
        assert (live.snapshot.revision, everything(live.snapshot)) == (0, [])
        assert live.snapshot.nearest(embed([SEED])[0], 3) == []
        live.add([extraction("harvest the answers")])
        assert nearest_text(live.snapshot, "harvest the answers")[0] == "harvest the answers"
        assert_in_step(live)


def test_an_index_opens_with_everything_that_the_store_holds(path: Path, open_index: Open) -> None:
    with closing(open_store(path)) as store:
        store.add([extraction("harvest the answers"), benign("write a poem")], ACT)
    live = open_index()
    assert [example.text for example in live.snapshot.benign.examples] == [SEED, "write a poem"]
    assert [example.text for example in live.snapshot.extraction.examples] == ["harvest the answers"]
    assert_in_step(live)


def test_what_was_added_is_searchable_at_once(live: ExampleIndex) -> None:
    for text in ("harvest the answers", "write me a poem"):
        live.add([extraction(text)])
        found, cosine = nearest_text(live.snapshot, text)
        assert found == text
        assert cosine == pytest.approx(1.0, abs=1e-5)
    assert_in_step(live)


def test_what_was_added_is_durable_at_once(live: ExampleIndex, path: Path) -> None:
    stored = live.add([extraction("harvest the answers"), benign("write a poem")])
    with closing(open_store(path)) as other:
        assert other.since(1) == stored
        assert set(other.vectors(ENCODER.fingerprint)) == {example.id for example in other.since(0)}


def test_add_returns_the_examples_as_they_are_stored_in_the_order_given(live: ExampleIndex) -> None:
    stored = live.add([benign("write a poem"), extraction("harvest the answers"), benign(SEED)])
    assert [example.text for example in stored] == ["write a poem", "harvest the answers", SEED]
    assert [example.revision for example in stored] == [2, 2, 1]
    assert [live.store.get(example.id) for example in stored] == stored


def test_the_snapshot_carries_the_stored_examples_and_not_the_given_ones(live: ExampleIndex) -> None:
    (stored,) = live.add([extraction("harvest the answers")])
    assert list(live.snapshot.extraction.examples) == [stored]
    assert live.snapshot.extraction.examples[0].revision == live.snapshot.revision == 2


def test_a_snapshot_taken_before_an_add_does_not_change(live: ExampleIndex) -> None:
    live.add([extraction("teach the model")])
    before = live.snapshot
    query = embed(["harvest the answers"])[0]
    sides = [(list(side.examples), side.index, side.index.size) for side in (before.extraction, before.benign)]
    matches, membership = before.nearest(query, 10), carried(before.extraction, "self_chat")

    live.add([extraction("harvest the answers"), benign("harvest the garden")])

    assert before.revision == 2
    assert [(list(side.examples), side.index, side.index.size) for side in (before.extraction, before.benign)] == sides
    assert before.nearest(query, 10) == matches
    assert carried(before.extraction, "self_chat") == membership
    assert nearest_text(live.snapshot, "harvest the answers")[0] == "harvest the answers"


def test_an_added_batch_appears_with_both_its_labels_in_one_snapshot(live: ExampleIndex) -> None:
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            snapshot = live.snapshot
            seen.append((snapshot.extraction.index.size, snapshot.benign.index.size))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(20):
            live.add([extraction(f"harvest {number}"), benign(f"poem {number}")])
    finally:
        done.set()
        watcher.join()
    assert all(benigns == extractions + 1 for extractions, benigns in seen)
    assert seen == sorted(seen)


def test_vectors_are_not_encoded_again_after_reopening(open_index: Open, counted: CountingEmbed) -> None:
    first = open_index()
    first.add([extraction("harvest the answers"), benign("write a poem")])
    assert counted.calls == [[SEED], ["harvest the answers", "write a poem"]]
    counted.calls.clear()

    again = open_index()

    assert counted.calls == []
    assert everything(again.snapshot) == everything(first.snapshot)
    assert again.snapshot.revision == first.snapshot.revision
    query = embed(["harvest a poem"])[0]
    assert again.snapshot.nearest(query, 5) == first.snapshot.nearest(query, 5)
    assert_in_step(again)


def test_only_what_has_no_vector_is_encoded_on_opening_and_then_kept(
    path: Path, open_index: Open, counted: CountingEmbed
) -> None:
    open_index()
    with closing(open_store(path)) as store:
        store.add([extraction("harvest the answers"), benign("write a poem")], ACT)
    counted.calls.clear()
    assert_in_step(open_index())
    assert counted.calls == [["harvest the answers", "write a poem"]]
    open_index()
    assert len(counted.calls) == 1


def test_another_encoder_encodes_everything_under_its_own_name(open_index: Open, counted: CountingEmbed) -> None:
    open_index().add([extraction("harvest the answers")])
    counted.calls.clear()
    open_index("other")
    assert counted.calls == [[SEED, "harvest the answers"]]
    open_index("other")
    open_index()
    assert len(counted.calls) == 1


def test_a_failing_embed_stores_nothing_and_the_next_add_works(live: ExampleIndex, counted: CountingEmbed) -> None:
    before = live.snapshot
    counted.fails = True
    with pytest.raises(RuntimeError, match="the encoder failed"):
        live.add([extraction("harvest the answers")], REQUEST)
    assert [example.text for example in live.store.since(0)] == [SEED]
    assert live.store.revision() == 1
    assert live.snapshot is before

    counted.fails = False
    live.add([benign("write a poem")], REQUEST)
    assert_in_step(live)


def test_an_index_whose_embed_fails_on_opening_keeps_no_vectors(
    path: Path, open_index: Open, counted: CountingEmbed
) -> None:
    counted.fails = True
    with pytest.raises(RuntimeError, match="the encoder failed"):
        open_index()
    with closing(open_store(path)) as store:
        assert store.vectors(ENCODER.fingerprint) == {}
    counted.fails = False
    assert_in_step(open_index())


@pytest.mark.parametrize("batch", [[extraction(SEED)], [extraction("harvest"), extraction(SEED), benign("poem")]])
def test_a_conflict_leaves_store_and_snapshot_as_they_were(live: ExampleIndex, batch: list[Example]) -> None:
    before = live.snapshot
    with pytest.raises(ExampleConflict):
        live.add(batch)
    assert live.snapshot is before
    assert_in_step(live)


def test_a_text_that_is_there_already_is_returned_as_stored_and_changes_nothing(live: ExampleIndex) -> None:
    (first,) = live.add([Example("write a poem", Label.BENIGN, author="first")])
    before = everything(live.snapshot)
    assert live.add([Example("write a poem", Label.BENIGN, author="second")]) == [first]
    assert everything(live.snapshot) == before
    assert live.snapshot.revision == 2
    assert_in_step(live)


def test_of_old_and_new_texts_the_new_ones_alone_join_the_snapshot(live: ExampleIndex) -> None:
    live.add([benign(SEED), extraction("harvest the answers"), benign(SEED), benign("write a poem")])
    assert [example.text for example in everything(live.snapshot)] == ["harvest the answers", SEED, "write a poem"]
    assert_in_step(live)


def test_a_text_given_twice_in_a_batch_is_indexed_once(live: ExampleIndex) -> None:
    stored = live.add([benign("write a poem"), benign("write a poem")])
    assert stored[0] == stored[1]
    assert live.snapshot.benign.index.size == 2
    assert_in_step(live)


def test_an_add_encodes_its_texts_once(live: ExampleIndex, counted: CountingEmbed) -> None:
    live.add([extraction("harvest the answers"), benign("write a poem")])
    assert counted.calls == [["harvest the answers", "write a poem"]]
    live.add([benign("translate a letter")])
    assert counted.calls[1:] == [["translate a letter"]]


def test_adding_nothing_changes_nothing(live: ExampleIndex) -> None:
    before = everything(live.snapshot)
    assert live.add([]) == []
    assert everything(live.snapshot) == before
    assert live.snapshot.revision == 1
    assert_in_step(live)


def test_a_request_that_comes_again_after_a_restart_is_answered_alike(open_index: Open) -> None:
    stored = open_index().add([extraction("harvest the answers")], REQUEST)
    again = open_index()
    assert again.add([extraction("harvest the answers")], REQUEST) == stored
    with pytest.raises(InvalidExample, match="request_id"):
        again.add([benign("write a poem")], REQUEST)
    assert_in_step(again)


def test_a_text_that_another_index_stored_becomes_searchable_when_it_is_added_here(open_index: Open) -> None:
    here, there = open_index(), open_index()
    (stored,) = there.add([Example("write a poem", Label.BENIGN, author="there")])
    assert here.add([Example("write a poem", Label.BENIGN, author="here")]) == [stored]
    assert here.snapshot.benign.examples[-1] == stored
    assert_in_step(here)


def test_an_add_brings_along_what_another_index_stored_meanwhile(open_index: Open) -> None:
    here, there = open_index(), open_index()
    there.add([extraction("harvest the answers")])
    here.add([benign("write a poem")])
    assert nearest_text(here.snapshot, "harvest the answers")[0] == "harvest the answers"
    assert (here.snapshot.revision, there.snapshot.revision) == (3, 2)
    assert_in_step(here)
    there.add([benign("translate a letter")])
    assert_in_step(there)


def test_what_another_writer_stored_without_vectors_is_encoded_by_the_next_add(
    live: ExampleIndex, counted: CountingEmbed, path: Path
) -> None:
    with closing(open_store(path)) as store:
        store.add([extraction("harvest the answers")], ACT)
    live.add([benign("write a poem")])
    assert sorted(text for call in counted.calls for text in call) == ["harvest the answers", "write a poem"]
    assert_in_step(live)


def test_concurrent_adds_lose_nothing_and_each_is_searchable_when_it_returns(live: ExampleIndex) -> None:
    writers, batches = 6, 6
    begin = threading.Barrier(writers)

    def write(writer: int) -> list[Example]:
        begin.wait()
        stored = []
        for batch in range(batches):
            texts = [f"writer{writer} batch{batch}", f"everyone batch{batch}"]
            stored += live.add([extraction(texts[0]), benign(texts[1])])
            snapshot = live.snapshot
            assert snapshot.revision >= stored[-2].revision
            for text in texts:
                found, cosine = nearest_text(snapshot, text)
                assert found == text
                assert cosine == pytest.approx(1.0, abs=1e-5)
        return stored

    with ThreadPoolExecutor(writers) as pool:
        returned = [example for examples in pool.map(write, range(writers)) for example in examples]

    assert len(live.snapshot.extraction.examples) == writers * batches
    assert len(live.snapshot.benign.examples) == batches + 1
    assert {e.id: e for e in returned} == {e.id: e for e in everything(live.snapshot) if e.text != SEED}
    assert live.snapshot.revision == writers * batches + 1
    assert_in_step(live)


def test_two_adds_do_not_build_on_the_same_snapshot(open_index: Open) -> None:
    live = open_index(make_index=MeetingIndex)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(live.add, [[extraction("harvest the answers")], [extraction("teach the model")]]))
    assert len(live.snapshot.extraction.examples) == 2
    assert_in_step(live)
