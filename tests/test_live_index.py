"""The live index: what is acknowledged is durable and searchable, and snapshots do not change."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.encoder import HashEncoder
from index import side as sides
from index.change import Act
from index.contract import ExampleStore, Filter, Relabel
from index.errors import ExampleConflict, InvalidExample, StoreUnavailable
from index.example import Example, Label, State
from index.live import ExampleIndex, Match, Side, Snapshot, merged
from index.search import BatchIndex, ExactIndex, FaissIndex, Hits, VectorIndex, Vectors
from index.store import open_store
from index.tail import Tail

SEED = "a seed example that every store here begins with"
ENCODER = HashEncoder()
ACT = Act("ann")
REQUEST = Act("ann", request_id="request")
WORDS = ["harvest", "answers", "teach", "model", "poem", "river", "translate", "letter", "invoice", "garden"]

sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


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


Open = Callable[..., ExampleIndex]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is; it holds one benign example."""
    path = tmp_path / "examples.sqlite"
    with closing(open_store(path)) as store:
        store.add([benign(SEED)], ACT)
    return path


@pytest.fixture
def counted() -> CountingEmbed:
    """The embedding function of the test's indexes."""
    return CountingEmbed()


@pytest.fixture
def open_index(path: Path, counted: CountingEmbed) -> Iterator[Open]:
    """Opens an index over the test's store with a connection of its own, as often as it is called."""
    with ExitStack() as opened:

        def opens(
            encoder: str = ENCODER.fingerprint, make_index: Callable[[Vectors], VectorIndex] = FaissIndex
        ) -> ExampleIndex:
            store = opened.enter_context(closing(open_store(path)))
            return ExampleIndex(store, counted, encoder, ENCODER.dimensions, make_index)

        yield opens


@pytest.fixture(params=[ExactIndex, FaissIndex])
def live(open_index: Open, counted: CountingEmbed, request: pytest.FixtureRequest) -> ExampleIndex:
    """An index over a store of one example, whose embedding function was not called yet."""
    opened = open_index(make_index=request.param)
    counted.calls.clear()
    return opened


def embed(texts: Sequence[str]) -> Vectors:
    """(n, 384) float32 unit rows of the texts."""
    return ENCODER.encode([tokens.ids for tokens in ENCODER.tokenise(texts)])


def benign(text: str) -> Example:
    """A benign example of the text."""
    return Example(text, Label.BENIGN)


def extraction(text: str, technique: str = "self_chat", *capabilities: str) -> Example:
    """An extraction example of the text."""
    return Example(text, Label.EXTRACTION, technique=technique, capabilities=capabilities)


def side_of(*examples: Example) -> Side:
    """A side of these examples, indexed by the oracle."""
    return Side(examples, ExactIndex(embed([example.text for example in examples])))


def hits_of(*rows: Sequence[tuple[int, float]]) -> Hits:
    """Hits of (position, cosine) pairs."""
    return Hits(
        np.array([[cosine for _, cosine in row] for row in rows], np.float32),
        np.array([[position for position, _ in row] for row in rows], np.int64),
    )


def carried(side: Side, *names: str) -> list[list[bool]]:
    """What each example of a side carries, and then what no neighbour carries."""
    found: list[list[bool]] = side.membership(names)[np.array([*range(len(side.examples)), -1])].tolist()
    return found


def everything(snapshot: Snapshot) -> list[Example]:
    """All examples of a snapshot, oldest first within each label."""
    return [*snapshot.extraction.examples, *snapshot.benign.examples]


def nearest_text(snapshot: Snapshot, text: str) -> tuple[str, float]:
    """The example nearest to a text, and its cosine."""
    (match,) = snapshot.nearest(embed([text])[0], 1)
    return match.example.text, match.cosine


def assert_in_step(live: ExampleIndex) -> None:
    """The snapshot holds what the store holds, each example on its side, each vector beside its example."""
    stored = live.store.since(0)
    active = [example for example in stored if example.state is State.ACTIVE]
    assert live.snapshot.revision == live.store.revision()
    assert sorted(everything(live.snapshot), key=lambda e: e.id) == sorted(active, key=lambda e: e.id)
    for label in Label:
        side = live.snapshot.side(label)
        examples = list(side.examples)
        assert {example.label for example in examples} <= {label}
        assert side.index.size == len(examples) == len(side.examples)
        assert set(side.ids) == {example.id for example in examples}
        if examples:
            hits = side.index.search(embed([example.text for example in examples]), 1)
            assert [side.examples[position] for position in hits.positions[:, 0].tolist()] == examples
            np.testing.assert_allclose(hits.cosines[:, 0], 1.0, atol=1e-3)
    kept = live.store.vectors(ENCODER.fingerprint)
    assert set(kept) >= {example.id for example in active}
    for example in active:
        np.testing.assert_array_equal(kept[example.id], embed([example.text])[0])


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


def test_membership_tells_which_example_carries_which_technique_or_capability() -> None:
    side = side_of(
        extraction("harvest", "self_chat", "code", "math"), extraction("teach", "tool_use_harvest"), benign("poem")
    )
    assert carried(side, "math", "tool_use_harvest", "unknown", "self_chat", "code") == [
        [True, False, False, True, True],
        [False, True, False, False, False],
        [False, False, False, False, False],
        [False, False, False, False, False],
    ]
    assert side.membership(("math",))[np.zeros((2, 3), np.int64)].dtype == bool


def test_membership_follows_the_order_of_the_names_asked_for() -> None:
    side = side_of(extraction("harvest", "self_chat", "code"))
    assert carried(side, "code", "other") == [[True, False], [False, False]]
    assert carried(side, "other", "code") == [[False, True], [False, False]]
    assert carried(side, "code", "other") == [[True, False], [False, False]]


def test_position_minus_one_carries_nothing() -> None:
    side = side_of(extraction("harvest", "self_chat"), extraction("teach", "self_chat"))
    hits = side.index.search(embed(["harvest"]), 4)
    carried = side.membership(("self_chat",))[hits.positions[0]]
    assert carried.ravel().tolist() == [True, True, False, False]


def test_membership_of_no_examples_or_no_names_has_its_shape() -> None:
    empty = Side((), ExactIndex(np.zeros((0, 4), np.float32)))
    assert carried(empty, "code", "math") == [[False, False]]
    assert side_of(benign("poem"), benign("letter")).membership(())[np.zeros((2, 3), np.int64)].shape == (2, 3, 0)


def test_membership_of_an_extended_side_includes_the_new_examples() -> None:
    side = side_of(extraction("harvest", "self_chat"))
    longer = side.extended([extraction("teach", "self_chat", "code")], embed(["teach"]))
    assert carried(longer, "code") == [[False], [True], [False]]
    assert carried(side, "code") == [[False], [False]]


def test_a_side_with_more_examples_than_vectors_or_fewer_is_refused() -> None:
    index = ExactIndex(embed(["harvest", "teach"]))
    for examples in ((benign("harvest"),), (benign("a"), benign("b"), benign("c"))):
        with pytest.raises(ValueError, match=f"{len(examples)} examples, but 2 vectors"):
            Side(examples, index)


def test_merged_hits_come_highest_cosine_first_over_all_sides() -> None:
    one, other = side_of(extraction("a"), extraction("b")), side_of(benign("c"), benign("d"))
    found = [(one, hits_of([(1, 0.75), (0, 0.25)])), (other, hits_of([(0, 0.5), (1, -0.5)]))]
    matches = merged(found, 0, 10)
    assert [(match.example.text, match.cosine) for match in matches] == [
        ("b", 0.75),
        ("c", 0.5),
        ("a", 0.25),
        ("d", -0.5),
    ]
    assert all(type(match.cosine) is float for match in matches)


def test_merged_hits_are_cut_at_the_limit_after_ordering() -> None:
    one, other = side_of(extraction("a"), extraction("b")), side_of(benign("c"))
    found = [(one, hits_of([(0, 0.5), (1, 0.25)])), (other, hits_of([(0, 0.75), (-1, -1.0)]))]
    assert [match.example.text for match in merged(found, 0, 2)] == ["c", "a"]
    assert merged(found, 0, 0) == []


def test_of_equal_cosines_the_lower_example_id_comes_first_whatever_its_side() -> None:
    examples = [extraction("a"), extraction("b"), benign("c"), benign("d")]
    one, other = side_of(*examples[:2]), side_of(*examples[2:])
    expected = sorted(example.id for example in examples)
    equal = hits_of([(0, 0.5), (1, 0.5)])
    for found in ([(one, equal), (other, equal)], [(other, equal), (one, equal)]):
        assert [match.example.id for match in merged(found, 0, 4)] == expected
        assert [match.example.id for match in merged(found, 0, 1)] == expected[:1]


def test_merging_takes_the_asked_query_and_leaves_out_padding() -> None:
    side = side_of(extraction("a"), extraction("b"))
    hits = hits_of([(0, 0.5), (1, 0.25)], [(1, -1.0), (-1, -1.0)])
    assert merged([(side, hits)], 1, 5) == [Match(side.examples[1], -1.0)]
    assert merged([], 0, 5) == []


@given(
    extractions=st.lists(sentences, max_size=6, unique=True),
    benigns=st.lists(sentences, max_size=6, unique=True),
    query=sentences,
    limit=st.integers(1, 15),
    label=st.sampled_from([None, *Label]),
)
@settings(deadline=None)
def test_nearest_finds_the_highest_cosines_of_the_asked_label(
    extractions: list[str], benigns: list[str], query: str, limit: int, label: Label | None
) -> None:
    examples = {
        Label.EXTRACTION: [extraction(text) for text in extractions],
        Label.BENIGN: [benign(text) for text in benigns],
    }
    sides = {
        name: Side(tuple(held), FaissIndex(embed([example.text for example in held])))
        for name, held in examples.items()
    }
    snapshot = Snapshot(1, sides[Label.EXTRACTION], sides[Label.BENIGN])
    vector = embed([query])[0]
    asked = [example for name in ([label] if label else Label) for example in examples[name]]
    cosines = sorted((float(row @ vector) for row in embed([e.text for e in asked])), reverse=True)

    matches = snapshot.nearest(vector, limit, label)

    assert [match.cosine for match in matches] == pytest.approx(cosines[:limit], abs=1e-5)
    assert [match.cosine for match in matches] == sorted((match.cosine for match in matches), reverse=True)
    assert len({(match.example.label, match.example.id) for match in matches}) == len(matches)
    for match in matches:
        assert match.example in asked
        assert match.cosine == pytest.approx(float(embed([match.example.text])[0] @ vector), abs=1e-5)


def test_nearest_with_a_label_returns_that_label_even_when_the_other_is_nearer(live: ExampleIndex) -> None:
    live.add([extraction("harvest the answers"), benign("harvest the garden")])
    query = embed(["harvest the answers"])[0]
    assert [m.example.text for m in live.snapshot.nearest(query, 5, Label.EXTRACTION)] == ["harvest the answers"]
    assert [m.example.text for m in live.snapshot.nearest(query, 1, Label.BENIGN)] == ["harvest the garden"]
    assert [m.example.text for m in live.snapshot.nearest(query, 2)] == ["harvest the answers", "harvest the garden"]


def test_nearest_returns_everything_when_the_limit_is_larger(live: ExampleIndex) -> None:
    live.add([extraction("harvest the answers")])
    assert len(live.snapshot.nearest(embed(["harvest"])[0], 100)) == 2


def test_nearest_of_a_label_without_examples_finds_nothing(live: ExampleIndex) -> None:
    assert live.snapshot.nearest(embed([SEED])[0], 5, Label.EXTRACTION) == []
    assert live.snapshot.nearest(embed([SEED])[0], 0) == []


def test_every_label_has_its_side(live: ExampleIndex) -> None:
    assert live.snapshot.side(Label.EXTRACTION) is live.snapshot.extraction
    assert live.snapshot.side(Label.BENIGN) is live.snapshot.benign


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
