"""The contract of every example store: a write is stored whole and once, or not at all, whoever else writes and reads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stores import ACT, SECRET, Open, assert_each_write_has_its_revision, benign, extraction, texts_of

from index.change import Act
from index.contract import ExampleStore
from index.errors import ExampleConflict, InvalidExample
from index.example import Example, Label


def test_add_returns_the_examples_in_their_order_with_the_new_revision(store: ExampleStore) -> None:
    given_ = [*benign("b", "a"), extraction("c")]
    stored = store.add(given_, ACT)
    assert stored == [example.at_revision(1) for example in given_]


def test_adding_nothing_changes_nothing(store: ExampleStore) -> None:
    assert store.add([], ACT) == []
    assert store.revision() == 0


def test_the_revision_counts_the_writes_and_not_the_examples(store: ExampleStore) -> None:
    seen = []
    for batch in (["a", "b", "c"], ["d"], ["e", "f"]):
        stored = store.add(benign(*batch), ACT)
        seen.append((store.revision(), {example.revision for example in stored}))
    assert seen == [(1, {1}), (2, {2}), (3, {3})]


def test_a_revision_that_an_example_brings_along_is_not_believed(store: ExampleStore) -> None:
    (stored,) = store.add([example.at_revision(99) for example in benign("text")], ACT)
    assert (stored.revision, store.get(stored.id).revision, store.revision()) == (1, 1, 1)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_conflict_stores_nothing_of_its_batch_wherever_it_stands(store: ExampleStore, place: int) -> None:
    before = store.add([extraction(SECRET)], ACT)
    batch = benign("new 1", "new 2")
    batch.insert(place, Example(SECRET, Label.BENIGN))
    with pytest.raises(ExampleConflict, match=before[0].id) as caught:
        store.add(batch, Act("ann", request_id="request"))
    assert SECRET not in str(caught.value)
    assert (store.since(0), store.revision()) == (before, 1)


@pytest.mark.parametrize(
    "other",
    [
        Example("text", Label.BENIGN, capabilities=("code",)),
        Example("text", Label.EXTRACTION, technique="other", capabilities=("code",)),
        Example("text", Label.EXTRACTION, technique="self_chat"),
    ],
)
def test_the_same_text_with_another_label_technique_or_capability_is_a_conflict(
    store: ExampleStore, other: Example
) -> None:
    before = store.add([Example("text", Label.EXTRACTION, technique="self_chat", capabilities=("code",))], ACT)
    with pytest.raises(ExampleConflict):
        store.add([other], ACT)
    assert store.since(0) == before


def test_a_batch_that_contradicts_itself_stores_nothing(store: ExampleStore) -> None:
    with pytest.raises(ExampleConflict):
        store.add([*benign("first", "text"), extraction("text")], ACT)
    assert (store.since(0), store.revision()) == ([], 0)


def test_a_text_given_twice_in_a_batch_is_stored_once_and_returned_twice(store: ExampleStore) -> None:
    stored = store.add(benign("twice", "other", "twice"), ACT)
    assert texts_of(stored) == ["twice", "other", "twice"]
    assert stored[0] == stored[2]
    assert store.since(0) == stored[:2]


def test_a_text_that_is_stored_already_is_returned_as_it_was_stored(store: ExampleStore) -> None:
    first = store.add([Example("text", Label.BENIGN, author="first", note="first")], ACT)
    again = store.add([Example("text", Label.BENIGN, author="second", note="second")], ACT)
    assert again == first
    assert (store.since(0), store.revision()) == (first, 1)


def test_a_batch_of_old_and_new_texts_stores_the_new_ones_alone(store: ExampleStore) -> None:
    (old,) = store.add(benign("old"), ACT)
    stored = store.add(benign("new 1", "old", "new 2"), ACT)
    assert [example.revision for example in stored] == [2, 1, 2]
    assert store.since(0) == [old, stored[0], stored[2]]


def test_a_batch_larger_than_one_query_takes_is_known_when_it_comes_again(store: ExampleStore) -> None:
    texts = [f"text {number}" for number in range(1_201)]
    stored = store.add(benign(*texts), ACT)
    assert store.add(benign(*texts), ACT) == stored
    assert (store.since(0), store.revision()) == (stored, 1)


def test_a_request_that_comes_again_returns_what_it_stored(store: ExampleStore) -> None:
    stored = store.add(benign("a", "b"), Act("ann", request_id="request"))
    store.add(benign("c"), ACT)
    assert store.add(benign("a", "b"), Act("ann", request_id="request")) == stored
    assert (len(store.since(0)), store.revision()) == (3, 2)


@pytest.mark.parametrize("texts", [("a",), ("a", "b", "c"), ("a", "c"), ("c", "d"), ()])
def test_a_request_id_that_comes_with_other_examples_is_refused(store: ExampleStore, texts: tuple[str, ...]) -> None:
    before = store.add(benign("a", "b"), Act("ann", request_id="request"))
    with pytest.raises(InvalidExample, match="request_id"):
        store.add(benign(*texts), Act("ann", request_id="request"))
    assert (store.since(0), store.revision()) == (before, 1)


def test_a_request_id_that_comes_with_other_labels_is_refused(store: ExampleStore) -> None:
    before = store.add(benign("a"), Act("ann", request_id="request"))
    with pytest.raises((InvalidExample, ExampleConflict)):
        store.add([extraction("a")], Act("ann", request_id="request"))
    assert store.since(0) == before


def test_a_request_that_stored_nothing_new_still_holds_its_id(store: ExampleStore) -> None:
    store.add(benign("a"), ACT)
    store.add(benign("a"), Act("ann", request_id="request"))
    with pytest.raises(InvalidExample, match="request_id"):
        store.add(benign("b"), Act("ann", request_id="request"))


def test_a_refused_write_does_not_use_up_its_request_id(store: ExampleStore) -> None:
    store.add(benign("held"), ACT)
    with pytest.raises(ExampleConflict):
        store.add([*benign("new"), extraction("held")], Act("ann", request_id="request"))
    assert texts_of(store.add(benign("new"), Act("ann", request_id="request"))) == ["new"]


def test_two_requests_may_name_the_same_text(store: ExampleStore) -> None:
    assert store.add(benign("a"), Act("ann", request_id="one")) == store.add(
        benign("a"), Act("ann", request_id="other")
    )
    assert store.revision() == 1


def test_a_store_opened_again_holds_everything(open_store: Open) -> None:
    store = open_store()
    stored = store.add([*benign("a", "b"), extraction("c")], Act("ann", request_id="request"))
    store.add(benign("d"), ACT)
    store.keep_vectors("encoder", {stored[0].id: np.array([0.5, -0.5], np.float32)})
    before = store.since(0)
    store.close()

    again = open_store()
    assert (again.since(0), again.revision()) == (before, 2)
    assert again.vectors("encoder")[stored[0].id].tolist() == [0.5, -0.5]
    assert again.add([*benign("a", "b"), extraction("c")], Act("ann", request_id="request")) == stored
    with pytest.raises(InvalidExample):
        again.add(benign("e"), Act("ann", request_id="request"))
    assert [example.revision for example in again.add(benign("e"), ACT)] == [3]


def test_what_one_store_added_another_on_the_same_data_sees_at_once(open_store: Open) -> None:
    one, other = open_store(), open_store()
    stored = one.add(benign("a"), ACT)
    assert (other.since(0), other.revision()) == (stored, 1)
    assert other.add(benign("a"), ACT) == stored
    assert [example.revision for example in other.add(benign("b"), ACT)] == [2]
    assert one.revision() == 2


def test_threads_that_write_at_once_lose_nothing_and_readers_see_whole_writes(store: ExampleStore) -> None:
    writers, batches = 8, 12
    begin = threading.Barrier(writers + 1)

    def write(writer: int) -> list[Example]:
        begin.wait()
        stored = []
        for batch in range(batches):
            stored += store.add(benign(f"{writer} {batch} 0", f"{writer} {batch} 1"), ACT)
            assert store.get(stored[-1].id) == stored[-1]
        return stored

    with ThreadPoolExecutor(writers) as pool:
        pending = [pool.submit(write, writer) for writer in range(writers)]
        begin.wait()
        while not all(future.done() for future in pending):
            examples = store.since(0)
            assert_each_write_has_its_revision(examples, len(examples) // 2)
            assert store.revision() >= len(examples) // 2
        returned = [example for future in pending for example in future.result()]

    assert len(returned) == 2 * writers * batches
    assert sorted(returned, key=lambda e: e.text) == sorted(store.since(0), key=lambda e: e.text)
    assert store.revision() == writers * batches
    assert_each_write_has_its_revision(store.since(0), writers * batches)


def test_one_request_sent_by_many_threads_at_once_is_stored_once(store: ExampleStore) -> None:
    begin = threading.Barrier(8)

    def write(_: int) -> list[Example]:
        begin.wait()
        return store.add(benign("a", "b"), Act("ann", request_id="request"))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert (store.since(0), store.revision()) == (answers[0], 1)


def test_of_threads_that_label_one_text_differently_one_wins_and_the_others_are_told(store: ExampleStore) -> None:
    begin = threading.Barrier(8)

    def write(number: int) -> str:
        begin.wait()
        try:
            store.add([Example("text", Label.EXTRACTION, technique=f"technique_{number}")], ACT)
        except ExampleConflict:
            return ""
        return f"technique_{number}"

    with ThreadPoolExecutor(8) as pool:
        winners = [name for name in pool.map(write, range(8)) if name]
    assert [example.technique for example in store.since(0)] == winners
    assert len(winners) == 1


def test_replacing_a_source_makes_it_exactly_what_is_given_and_leaves_the_others(store: ExampleStore) -> None:
    kept, relabelled, gone = (Example(text, Label.BENIGN, source="seed") for text in ("kept", "relabelled", "gone"))
    analysts = Example("an analyst's", Label.EXTRACTION, "self_chat", source="desk")
    store.add([kept, relabelled, gone, analysts], ACT)
    store.keep_vectors("e", {example.id: np.ones(4, np.float32) for example in (kept, relabelled, gone, analysts)})
    now = [
        kept,
        Example("relabelled", Label.EXTRACTION, "self_chat", source="seed"),
        Example("an analyst's", Label.BENIGN, source="seed"),
        Example("new", Label.BENIGN, source="seed"),
    ]
    store.replace_source("seed", now, ACT)
    found = {example.text: (example.label, example.source) for example in store.since(0)}
    assert found == {
        "kept": (Label.BENIGN, "seed"),
        "relabelled": (Label.EXTRACTION, "seed"),
        "an analyst's": (Label.EXTRACTION, "desk"),
        "new": (Label.BENIGN, "seed"),
    }
    assert store.revision() == 2
    assert set(store.vectors("e")) == {kept.id, relabelled.id, gone.id, analysts.id}
    store.replace_source("seed", now, ACT)
    assert store.revision() == 2, "nothing changed, so nothing is written"
