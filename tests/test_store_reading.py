"""The contract of every example store: what is read is what was written, whole and in order, in pages and as vectors."""

import itertools
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import ACT, Open, benign, extraction, texts_of

from index.contract import ExampleStore, Filter
from index.errors import ExampleNotFound, IndexRoomError, InvalidExample, InvalidPageToken
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
