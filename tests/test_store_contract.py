"""The contract that every example store keeps, on every database that holds one."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import ACT, SECRET, Open, assert_each_write_has_its_revision, benign, extraction, texts_of

from index.change import Act
from index.contract import ExampleStore, Filter
from index.errors import ExampleConflict, ExampleNotFound, IndexRoomError, InvalidExample, InvalidPageToken
from index.example import Example, Label
from index.reading import MAX_PAGE, MAX_PAGE_BYTES

valid_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
shared_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_an_empty_store_has_revision_zero_and_nothing_else(store: ExampleStore) -> None:
    assert store.revision() == 0
    assert store.since(0) == []
    assert store.page(10) == ([], "")
    assert store.vectors("encoder") == {}


def test_add_returns_the_examples_in_their_order_with_the_new_revision(store: ExampleStore) -> None:
    given_ = [*benign("b", "a"), extraction("c")]
    stored = store.add(given_, ACT)
    assert stored == [example.at_revision(1) for example in given_]


def test_what_was_added_is_found_by_id_in_pages_and_since_the_beginning(store: ExampleStore) -> None:
    stored = store.add([*benign("b", "a"), extraction("c")], ACT)
    assert [store.get(example.id) for example in stored] == stored
    assert store.since(0) == stored
    assert store.page(10) == (stored, "")


def test_everything_is_in_the_order_of_storing_over_many_writes(store: ExampleStore) -> None:
    store.add(benign("z", "m"), ACT)
    store.add(benign("a"), ACT)
    store.add(benign("q", "b"), ACT)
    assert texts_of(store.since(0)) == ["z", "m", "a", "q", "b"]


@pytest.mark.parametrize(("revision", "texts"), [(0, "zmaqb"), (1, "aqb"), (2, "qb"), (3, ""), (9, "")])
def test_since_tells_what_came_after_a_revision_oldest_first(store: ExampleStore, revision: int, texts: str) -> None:
    store.add(benign("z", "m"), ACT)
    store.add(benign("a", "z"), ACT)
    store.add(benign("q", "b"), ACT)
    assert texts_of(store.since(revision)) == list(texts)


@given(st.data())
@settings(shared_fixture, max_examples=40)
def test_every_field_comes_back_as_it_was_given(store: ExampleStore, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(Label))
    example = Example(
        text=f"{store.revision()} {data.draw(valid_texts)}",
        label=label,
        technique=data.draw(names) if label == Label.EXTRACTION else None,
        capabilities=tuple(data.draw(st.lists(names, max_size=3))),
        language=data.draw(st.sampled_from(["", "en", "pt-BR"])),
        source=data.draw(valid_texts),
        author=data.draw(valid_texts),
        note=data.draw(valid_texts),
        created=data.draw(st.datetimes(timezones=st.just(UTC))),
    )
    (stored,) = store.add([example], ACT)
    assert stored == example.at_revision(store.revision())
    assert store.get(example.id) == stored


def test_a_time_of_another_zone_comes_back_as_the_same_instant_in_utc(store: ExampleStore) -> None:
    created = datetime(2024, 5, 1, 12, 30, 15, 250_001, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    (stored,) = store.add([Example("text", Label.BENIGN, created=created)], ACT)
    found = store.get(stored.id).created
    assert found == created
    assert found.utcoffset() == timedelta(0)


def test_an_unknown_id_is_not_found(store: ExampleStore) -> None:
    store.add(benign("text"), ACT)
    for unknown in ("ex-00000000000000000000", "", "text", "%", "\0", "\x1a"):
        with pytest.raises(ExampleNotFound):
            store.get(unknown)


def test_any_letter_in_a_question_finds_nothing_or_is_refused_in_our_own_words(store: ExampleStore) -> None:
    for strange in ("\0", "\x1a", "\N{GRINNING FACE}"):
        assert store.page(1, wanted=Filter(source=strange)) == ([], "")
        assert store.vectors(strange) == store.decided([strange]) == {}
        assert store.revoke_source(strange, ACT) == []
        for ask in (store.history, store.get, lambda name: store.accept([name], ACT)):
            with pytest.raises(ExampleNotFound):
                ask(strange)
    for refused in (store.history, store.get, lambda name: store.page(1, wanted=Filter(source=name))):
        with pytest.raises(InvalidExample, match="surrogate"):
            refused("\ud800")


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


@pytest.fixture
def mixed(store: ExampleStore) -> ExampleStore:
    """A store of 30 examples of both labels and three sources, in no even pattern."""
    examples = []
    for number in range(30):
        source = ("alpha", "beta", "")[number * number % 3 if number % 4 else 2]
        label = Label.BENIGN if number % 5 in {0, 2, 3} else Label.EXTRACTION
        technique = "self_chat" if label == Label.EXTRACTION else None
        examples.append(Example(f"text {number}", label, technique=technique, source=source))
    for at in range(0, 30, 7):
        store.add(examples[at : at + 7], ACT)
    return store


@given(
    size=st.integers(1, 35),
    label=st.sampled_from([None, *Label]),
    source=st.sampled_from(["", "alpha", "beta", "alph", "%", "unknown"]),
)
@shared_fixture
def test_pages_cover_everything_that_fits_exactly_once_and_in_order(
    mixed: ExampleStore, size: int, label: Label | None, source: str
) -> None:
    expected = [e for e in mixed.since(0) if label in {None, e.label} and source in {"", e.source}]
    pages, token = [], ""
    while True:
        examples, token = mixed.page(size, token, Filter(label, source=source))
        pages.append(examples)
        if not token:
            break
    assert list(itertools.chain(*pages)) == expected
    assert all(len(page) == size for page in pages[:-1])
    assert pages[-1] or not expected


def test_an_example_added_between_two_pages_comes_once_at_the_end(store: ExampleStore) -> None:
    store.add(benign("a", "b", "c"), ACT)
    first, token = store.page(2)
    store.add(benign("d"), ACT)
    second, token = store.page(2, token)
    assert texts_of([*first, *second]) == ["a", "b", "c", "d"]
    assert token == ""


def test_a_page_token_still_works_after_reopening(open_store: Open) -> None:
    store = open_store()
    store.add(benign("a", "b", "c"), ACT)
    _, token = store.page(2)
    store.close()
    assert texts_of(open_store().page(2, token)[0]) == ["c"]


def test_no_page_holds_more_than_the_limit(store: ExampleStore) -> None:
    stored = store.add(benign(*(f"text {number}" for number in range(MAX_PAGE + 1))), ACT)
    examples, token = store.page(10 * MAX_PAGE)
    assert examples == stored[:MAX_PAGE]
    assert store.page(10 * MAX_PAGE, token) == (stored[MAX_PAGE:], "")


def test_a_page_ends_by_its_bytes_and_the_next_one_goes_on(store: ExampleStore) -> None:
    stored = store.add(benign(*(f"{number} " + "\N{GRINNING FACE}" * 99_000 for number in range(20)), "short"), ACT)
    pages, token = [], ""
    while True:
        examples, token = store.page(100, token)
        pages.append(examples)
        if not token:
            break
    assert list(itertools.chain(*pages)) == stored
    sizes = [sum(len(example.text.encode()) for example in page) for page in pages]
    assert max(sizes) <= MAX_PAGE_BYTES
    assert len(pages) == 3


def test_an_example_over_a_whole_pages_bytes_still_comes_alone(
    store: ExampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.reading.MAX_PAGE_BYTES", 10)
    stored = store.add(benign("a text of more than ten bytes", "another one of them"), ACT)
    first, token = store.page(5)
    assert [*first, *store.page(5, token)[0]] == stored
    assert len(first) == 1


@pytest.mark.parametrize(
    "token", ["next", "-1", "+1", "1.5", " 1", "1 ", "1\n", "1_0", "0x1", "1 OR 1=1", "١٢", "²", "9" * 19, "9" * 5_000]
)
def test_a_page_token_that_no_store_gave_is_refused_without_quoting_it(store: ExampleStore, token: str) -> None:
    store.add(benign("a"), ACT)
    with pytest.raises(InvalidPageToken, match="page_token") as caught:
        store.page(1, token)
    assert repr(token) not in repr(str(caught.value))


@given(token=st.text(min_size=1))
@shared_fixture
def test_any_text_as_a_page_token_gives_a_page_or_is_refused(mixed: ExampleStore, token: str) -> None:
    try:
        examples, _ = mixed.page(5, token)
    except InvalidPageToken:
        return
    assert len(examples) <= 5


def test_vectors_come_back_bit_for_bit(store: ExampleStore) -> None:
    one, other = store.add(benign("one", "other"), ACT)
    rows = np.random.default_rng(0).standard_normal((2, 384), np.float32)
    rows[0, :3] = np.array([1e-40, -0.0, 3e38], np.float32)
    store.keep_vectors("encoder", {one.id: rows[0], other.id: rows[1]})
    found = store.vectors("encoder")
    assert set(found) == {one.id, other.id}
    for name, row in ((one.id, rows[0]), (other.id, rows[1])):
        assert found[name].dtype == np.float32
        assert found[name].shape == (384,)
        assert found[name].tobytes() == row.tobytes()


def test_vectors_of_a_strided_row_come_back_whole(store: ExampleStore) -> None:
    (example,) = store.add(benign("text"), ACT)
    columns = np.arange(12, dtype=np.float32).reshape(4, 3)
    store.keep_vectors("encoder", {example.id: columns[:, 1]})
    assert store.vectors("encoder")[example.id].tolist() == [1.0, 4.0, 7.0, 10.0]


def test_each_encoder_has_its_own_vectors(store: ExampleStore) -> None:
    (example,) = store.add(benign("text"), ACT)
    store.keep_vectors("one", {example.id: np.array([1.0], np.float32)})
    store.keep_vectors("other", {example.id: np.array([2.0, 3.0], np.float32)})
    assert store.vectors("one")[example.id].tolist() == [1.0]
    assert store.vectors("other")[example.id].tolist() == [2.0, 3.0]
    assert store.vectors("third") == {}


def test_vectors_since_a_revision_are_those_of_the_examples_that_came_after_it(store: ExampleStore) -> None:
    (old,), (new,) = store.add(benign("old"), ACT), store.add(benign("new"), ACT)
    row = np.ones(2, np.float32)
    store.keep_vectors("encoder", {new.id: row})
    store.keep_vectors("encoder", {old.id: row})
    assert set(store.vectors("encoder")) == set(store.vectors("encoder", since=0)) == {old.id, new.id}
    assert set(store.vectors("encoder", since=1)) == {new.id}
    assert store.vectors("encoder", since=2) == store.vectors("other", since=1) == {}


def test_examples_without_a_vector_of_this_encoder_are_named(store: ExampleStore) -> None:
    assert store.unembedded("encoder") == set()
    one, other = store.add(benign("one", "other"), ACT)
    store.keep_vectors("encoder", {one.id: np.ones(1, np.float32)})
    assert store.unembedded("encoder") == {other.id}
    assert store.unembedded("another") == {one.id, other.id}


def test_a_vector_kept_again_replaces_the_old_one_and_no_other(store: ExampleStore) -> None:
    one, other = store.add(benign("one", "other"), ACT)
    first = np.array([1.0], np.float32)
    store.keep_vectors("encoder", {one.id: first, other.id: first})
    store.keep_vectors("encoder", {one.id: np.array([2.0], np.float32)})
    assert {name: row.tolist() for name, row in store.vectors("encoder").items()} == {one.id: [2.0], other.id: [1.0]}


def test_keeping_vectors_is_no_revision_and_keeping_none_does_nothing(store: ExampleStore) -> None:
    (example,) = store.add(benign("text"), ACT)
    store.keep_vectors("encoder", {})
    store.keep_vectors("encoder", {example.id: np.ones(2, np.float32)})
    assert store.revision() == 1


def test_a_vector_of_an_example_that_is_not_stored_is_refused_with_its_batch(store: ExampleStore) -> None:
    (example,) = store.add(benign("text"), ACT)
    row = np.ones(2, np.float32)
    with pytest.raises(IndexRoomError):
        store.keep_vectors("encoder", {example.id: row, "ex-00000000000000000000": row})
    assert store.vectors("encoder") == {}


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
