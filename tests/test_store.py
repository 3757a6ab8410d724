"""The contract of every example store, and what SQLite alone must keep: crashes, locks and damaged files."""

import itertools
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import index
from index.errors import (
    ExampleConflict,
    ExampleNotFound,
    IndexRoomError,
    InvalidExample,
    InvalidPageToken,
    StoreUnavailable,
)
from index.example import Example, Label
from index.schema import SCHEMA_VERSION
from index.store import MAX_PAGE, MAX_PAGE_BYTES, ExampleStore, SqliteStore

ROOT = Path(index.__file__).parents[1]
SECRET = "a prompt that no message may repeat"
NOBODY = 65534

valid_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
shared_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


class OpenStore(ExampleStore, Protocol):
    """A store that can be closed."""

    def close(self) -> None: ...


OpenIn = Callable[[Path], OpenStore]
Open = Callable[[], OpenStore]
STORES: dict[str, OpenIn] = {"sqlite": lambda folder: SqliteStore(folder / "examples.sqlite")}
"""Every store opens whatever was stored in the same folder before."""


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the test's store, as often as it is called; all are closed at the end."""
    with ExitStack() as opened:
        open_in: OpenIn = STORES[request.param]
        yield lambda: opened.enter_context(closing(open_in(tmp_path)))


@pytest.fixture
def store(open_store: Open) -> OpenStore:
    """An empty store."""
    return open_store()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an SQLite store may be made."""
    return tmp_path / "examples.sqlite"


def benign(*texts: str) -> list[Example]:
    """Benign examples of these texts."""
    return [Example(text, Label.BENIGN) for text in texts]


def extraction(text: str) -> Example:
    """An extraction example of the text."""
    return Example(text, Label.EXTRACTION, technique="self_chat")


def texts_of(examples: Sequence[Example]) -> list[str]:
    """The examples' texts."""
    return [example.text for example in examples]


def assert_each_write_has_its_revision(examples: Sequence[Example], revision: int) -> None:
    """Revisions count the writes from 1 without a gap, oldest first, and each brought one whole batch of two.

    The batches' texts are "<writer> <batch> <number>".
    """
    revisions = [example.revision for example in examples]
    assert revisions == sorted(revisions)
    assert set(revisions) == set(range(1, revision + 1))
    batches: dict[int, set[str]] = {}
    for example in examples:
        batches.setdefault(example.revision, set()).add(example.text.rpartition(" ")[0])
    assert all(len(batch) == 1 for batch in batches.values())
    assert all(count == 2 for count in Counter(revisions).values())


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs the script, with its pipes open."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: object) -> tuple[int, str]:
    """How a script ended, and what it printed."""
    with start(script, *arguments) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, output + errors


# The contract


def test_an_empty_store_has_revision_zero_and_nothing_else(store: OpenStore) -> None:
    assert store.revision() == 0
    assert store.since(0) == []
    assert store.page(10) == ([], "")
    assert store.vectors("encoder") == {}


def test_add_returns_the_examples_in_their_order_with_the_new_revision(store: OpenStore) -> None:
    given_ = [*benign("b", "a"), extraction("c")]
    stored = store.add(given_)
    assert stored == [example.at_revision(1) for example in given_]


def test_what_was_added_is_found_by_id_in_pages_and_since_the_beginning(store: OpenStore) -> None:
    stored = store.add([*benign("b", "a"), extraction("c")])
    assert [store.get(example.id) for example in stored] == stored
    assert store.since(0) == stored
    assert store.page(10) == (stored, "")


def test_everything_is_in_the_order_of_storing_over_many_writes(store: OpenStore) -> None:
    store.add(benign("z", "m"))
    store.add(benign("a"))
    store.add(benign("q", "b"))
    assert texts_of(store.since(0)) == ["z", "m", "a", "q", "b"]


@pytest.mark.parametrize(("revision", "texts"), [(0, "zmaqb"), (1, "aqb"), (2, "qb"), (3, ""), (9, "")])
def test_since_tells_what_came_after_a_revision_oldest_first(store: OpenStore, revision: int, texts: str) -> None:
    store.add(benign("z", "m"))
    store.add(benign("a", "z"))
    store.add(benign("q", "b"))
    assert texts_of(store.since(revision)) == list(texts)


@given(st.data())
@settings(shared_fixture, max_examples=40)
def test_every_field_comes_back_as_it_was_given(store: OpenStore, data: st.DataObject) -> None:
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
    (stored,) = store.add([example])
    assert stored == example.at_revision(store.revision())
    assert store.get(example.id) == stored


def test_a_time_of_another_zone_comes_back_as_the_same_instant_in_utc(store: OpenStore) -> None:
    created = datetime(2024, 5, 1, 12, 30, 15, 250_001, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    (stored,) = store.add([Example("text", Label.BENIGN, created=created)])
    found = store.get(stored.id).created
    assert found == created
    assert found.utcoffset() == timedelta(0)


def test_an_unknown_id_is_not_found(store: OpenStore) -> None:
    store.add(benign("text"))
    for unknown in ("ex-00000000000000000000", "", "text", "%"):
        with pytest.raises(ExampleNotFound):
            store.get(unknown)


def test_adding_nothing_changes_nothing(store: OpenStore) -> None:
    assert store.add([]) == []
    assert store.revision() == 0


def test_the_revision_counts_the_writes_and_not_the_examples(store: OpenStore) -> None:
    seen = []
    for batch in (["a", "b", "c"], ["d"], ["e", "f"]):
        stored = store.add(benign(*batch))
        seen.append((store.revision(), {example.revision for example in stored}))
    assert seen == [(1, {1}), (2, {2}), (3, {3})]


def test_a_revision_that_an_example_brings_along_is_not_believed(store: OpenStore) -> None:
    (stored,) = store.add([example.at_revision(99) for example in benign("text")])
    assert (stored.revision, store.get(stored.id).revision, store.revision()) == (1, 1, 1)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_conflict_stores_nothing_of_its_batch_wherever_it_stands(store: OpenStore, place: int) -> None:
    before = store.add([extraction(SECRET)])
    batch = benign("new 1", "new 2")
    batch.insert(place, Example(SECRET, Label.BENIGN))
    with pytest.raises(ExampleConflict, match=before[0].id) as caught:
        store.add(batch, "request")
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
    store: OpenStore, other: Example
) -> None:
    before = store.add([Example("text", Label.EXTRACTION, technique="self_chat", capabilities=("code",))])
    with pytest.raises(ExampleConflict):
        store.add([other])
    assert store.since(0) == before


def test_a_batch_that_contradicts_itself_stores_nothing(store: OpenStore) -> None:
    with pytest.raises(ExampleConflict):
        store.add([*benign("first", "text"), extraction("text")])
    assert (store.since(0), store.revision()) == ([], 0)


def test_a_text_given_twice_in_a_batch_is_stored_once_and_returned_twice(store: OpenStore) -> None:
    stored = store.add(benign("twice", "other", "twice"))
    assert texts_of(stored) == ["twice", "other", "twice"]
    assert stored[0] == stored[2]
    assert store.since(0) == stored[:2]


def test_a_text_that_is_stored_already_is_returned_as_it_was_stored(store: OpenStore) -> None:
    first = store.add([Example("text", Label.BENIGN, author="first", note="first")])
    again = store.add([Example("text", Label.BENIGN, author="second", note="second")])
    assert again == first
    assert (store.since(0), store.revision()) == (first, 1)


def test_a_batch_of_old_and_new_texts_stores_the_new_ones_alone(store: OpenStore) -> None:
    (old,) = store.add(benign("old"))
    stored = store.add(benign("new 1", "old", "new 2"))
    assert [example.revision for example in stored] == [2, 1, 2]
    assert store.since(0) == [old, stored[0], stored[2]]


def test_a_batch_larger_than_one_query_takes_is_known_when_it_comes_again(store: OpenStore) -> None:
    texts = [f"text {number}" for number in range(1_201)]
    stored = store.add(benign(*texts))
    assert store.add(benign(*texts)) == stored
    assert (store.since(0), store.revision()) == (stored, 1)


def test_a_request_that_comes_again_returns_what_it_stored(store: OpenStore) -> None:
    stored = store.add(benign("a", "b"), "request")
    store.add(benign("c"))
    assert store.add(benign("a", "b"), "request") == stored
    assert (len(store.since(0)), store.revision()) == (3, 2)


@pytest.mark.parametrize("texts", [("a",), ("a", "b", "c"), ("a", "c"), ("c", "d"), ()])
def test_a_request_id_that_comes_with_other_examples_is_refused(store: OpenStore, texts: tuple[str, ...]) -> None:
    before = store.add(benign("a", "b"), "request")
    with pytest.raises(InvalidExample, match="request_id"):
        store.add(benign(*texts), "request")
    assert (store.since(0), store.revision()) == (before, 1)


def test_a_request_id_that_comes_with_other_labels_is_refused(store: OpenStore) -> None:
    before = store.add(benign("a"), "request")
    with pytest.raises((InvalidExample, ExampleConflict)):
        store.add([extraction("a")], "request")
    assert store.since(0) == before


def test_a_request_that_stored_nothing_new_still_holds_its_id(store: OpenStore) -> None:
    store.add(benign("a"))
    store.add(benign("a"), "request")
    with pytest.raises(InvalidExample, match="request_id"):
        store.add(benign("b"), "request")


def test_a_refused_write_does_not_use_up_its_request_id(store: OpenStore) -> None:
    store.add(benign("held"))
    with pytest.raises(ExampleConflict):
        store.add([*benign("new"), extraction("held")], "request")
    assert texts_of(store.add(benign("new"), "request")) == ["new"]


def test_two_requests_may_name_the_same_text(store: OpenStore) -> None:
    assert store.add(benign("a"), "one") == store.add(benign("a"), "other")
    assert store.revision() == 1


@pytest.fixture
def mixed(store: OpenStore) -> OpenStore:
    """A store of 30 examples of both labels and three sources, in no even pattern."""
    examples = []
    for number in range(30):
        source = ("alpha", "beta", "")[number * number % 3 if number % 4 else 2]
        label = Label.BENIGN if number % 5 in {0, 2, 3} else Label.EXTRACTION
        technique = "self_chat" if label == Label.EXTRACTION else None
        examples.append(Example(f"text {number}", label, technique=technique, source=source))
    for at in range(0, 30, 7):
        store.add(examples[at : at + 7])
    return store


@given(
    size=st.integers(1, 35),
    label=st.sampled_from([None, *Label]),
    source=st.sampled_from(["", "alpha", "beta", "alph", "%", "unknown"]),
)
@shared_fixture
def test_pages_cover_everything_that_fits_exactly_once_and_in_order(
    mixed: OpenStore, size: int, label: Label | None, source: str
) -> None:
    expected = [e for e in mixed.since(0) if label in {None, e.label} and source in {"", e.source}]
    pages, token = [], ""
    while True:
        examples, token = mixed.page(size, token, label=label, source=source)
        pages.append(examples)
        if not token:
            break
    assert list(itertools.chain(*pages)) == expected
    assert all(len(page) == size for page in pages[:-1])
    assert pages[-1] or not expected


def test_an_example_added_between_two_pages_comes_once_at_the_end(store: OpenStore) -> None:
    store.add(benign("a", "b", "c"))
    first, token = store.page(2)
    store.add(benign("d"))
    second, token = store.page(2, token)
    assert texts_of([*first, *second]) == ["a", "b", "c", "d"]
    assert token == ""


def test_a_page_token_still_works_after_reopening(open_store: Open) -> None:
    store = open_store()
    store.add(benign("a", "b", "c"))
    _, token = store.page(2)
    store.close()
    assert texts_of(open_store().page(2, token)[0]) == ["c"]


def test_no_page_holds_more_than_the_limit(store: OpenStore) -> None:
    stored = store.add(benign(*(f"text {number}" for number in range(MAX_PAGE + 1))))
    examples, token = store.page(10 * MAX_PAGE)
    assert examples == stored[:MAX_PAGE]
    assert store.page(10 * MAX_PAGE, token) == (stored[MAX_PAGE:], "")


def test_a_page_ends_by_its_bytes_and_the_next_one_goes_on(store: OpenStore) -> None:
    stored = store.add(benign(*(f"{number} " + "\N{GRINNING FACE}" * 99_000 for number in range(20)), "short"))
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
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store.MAX_PAGE_BYTES", 10)
    stored = store.add(benign("a text of more than ten bytes", "another one of them"))
    first, token = store.page(5)
    assert [*first, *store.page(5, token)[0]] == stored
    assert len(first) == 1


@pytest.mark.parametrize(
    "token", ["next", "-1", "+1", "1.5", " 1", "1 ", "1\n", "1_0", "0x1", "1 OR 1=1", "١٢", "²", "9" * 19, "9" * 5_000]
)
def test_a_page_token_that_no_store_gave_is_refused_without_quoting_it(store: OpenStore, token: str) -> None:
    store.add(benign("a"))
    with pytest.raises(InvalidPageToken, match="page_token") as caught:
        store.page(1, token)
    assert repr(token) not in repr(str(caught.value))


@given(token=st.text(min_size=1))
@shared_fixture
def test_any_text_as_a_page_token_gives_a_page_or_is_refused(mixed: OpenStore, token: str) -> None:
    try:
        examples, _ = mixed.page(5, token)
    except InvalidPageToken:
        return
    assert len(examples) <= 5


def test_vectors_come_back_bit_for_bit(store: OpenStore) -> None:
    one, other = store.add(benign("one", "other"))
    rows = np.random.default_rng(0).standard_normal((2, 384), np.float32)
    rows[0, :3] = np.array([1e-40, -0.0, 3e38], np.float32)
    store.keep_vectors("encoder", {one.id: rows[0], other.id: rows[1]})
    found = store.vectors("encoder")
    assert set(found) == {one.id, other.id}
    for name, row in ((one.id, rows[0]), (other.id, rows[1])):
        assert found[name].dtype == np.float32
        assert found[name].shape == (384,)
        assert found[name].tobytes() == row.tobytes()


def test_vectors_of_a_strided_row_come_back_whole(store: OpenStore) -> None:
    (example,) = store.add(benign("text"))
    columns = np.arange(12, dtype=np.float32).reshape(4, 3)
    store.keep_vectors("encoder", {example.id: columns[:, 1]})
    assert store.vectors("encoder")[example.id].tolist() == [1.0, 4.0, 7.0, 10.0]


def test_each_encoder_has_its_own_vectors(store: OpenStore) -> None:
    (example,) = store.add(benign("text"))
    store.keep_vectors("one", {example.id: np.array([1.0], np.float32)})
    store.keep_vectors("other", {example.id: np.array([2.0, 3.0], np.float32)})
    assert store.vectors("one")[example.id].tolist() == [1.0]
    assert store.vectors("other")[example.id].tolist() == [2.0, 3.0]
    assert store.vectors("third") == {}


def test_vectors_since_a_revision_are_those_of_the_examples_that_came_after_it(store: OpenStore) -> None:
    (old,), (new,) = store.add(benign("old")), store.add(benign("new"))
    row = np.ones(2, np.float32)
    store.keep_vectors("encoder", {new.id: row})
    store.keep_vectors("encoder", {old.id: row})
    assert set(store.vectors("encoder")) == set(store.vectors("encoder", since=0)) == {old.id, new.id}
    assert set(store.vectors("encoder", since=1)) == {new.id}
    assert store.vectors("encoder", since=2) == store.vectors("other", since=1) == {}


def test_examples_without_a_vector_of_this_encoder_are_named(store: OpenStore) -> None:
    assert store.unembedded("encoder") == set()
    one, other = store.add(benign("one", "other"))
    store.keep_vectors("encoder", {one.id: np.ones(1, np.float32)})
    assert store.unembedded("encoder") == {other.id}
    assert store.unembedded("another") == {one.id, other.id}


def test_a_vector_kept_again_replaces_the_old_one_and_no_other(store: OpenStore) -> None:
    one, other = store.add(benign("one", "other"))
    first = np.array([1.0], np.float32)
    store.keep_vectors("encoder", {one.id: first, other.id: first})
    store.keep_vectors("encoder", {one.id: np.array([2.0], np.float32)})
    assert {name: row.tolist() for name, row in store.vectors("encoder").items()} == {one.id: [2.0], other.id: [1.0]}


def test_keeping_vectors_is_no_revision_and_keeping_none_does_nothing(store: OpenStore) -> None:
    (example,) = store.add(benign("text"))
    store.keep_vectors("encoder", {})
    store.keep_vectors("encoder", {example.id: np.ones(2, np.float32)})
    assert store.revision() == 1


def test_a_vector_of_an_example_that_is_not_stored_is_refused_with_its_batch(store: OpenStore) -> None:
    (example,) = store.add(benign("text"))
    row = np.ones(2, np.float32)
    with pytest.raises(IndexRoomError):
        store.keep_vectors("encoder", {example.id: row, "ex-00000000000000000000": row})
    assert store.vectors("encoder") == {}


def test_a_store_opened_again_holds_everything(open_store: Open) -> None:
    store = open_store()
    stored = store.add([*benign("a", "b"), extraction("c")], "request")
    store.add(benign("d"))
    store.keep_vectors("encoder", {stored[0].id: np.array([0.5, -0.5], np.float32)})
    before = store.since(0)
    store.close()

    again = open_store()
    assert (again.since(0), again.revision()) == (before, 2)
    assert again.vectors("encoder")[stored[0].id].tolist() == [0.5, -0.5]
    assert again.add([*benign("a", "b"), extraction("c")], "request") == stored
    with pytest.raises(InvalidExample):
        again.add(benign("e"), "request")
    assert [example.revision for example in again.add(benign("e"))] == [3]


def test_what_one_store_added_another_on_the_same_data_sees_at_once(open_store: Open) -> None:
    one, other = open_store(), open_store()
    stored = one.add(benign("a"))
    assert (other.since(0), other.revision()) == (stored, 1)
    assert other.add(benign("a")) == stored
    assert [example.revision for example in other.add(benign("b"))] == [2]
    assert one.revision() == 2


def test_threads_that_write_at_once_lose_nothing_and_readers_see_whole_writes(store: OpenStore) -> None:
    writers, batches = 8, 12
    begin = threading.Barrier(writers + 1)

    def write(writer: int) -> list[Example]:
        begin.wait()
        stored = []
        for batch in range(batches):
            stored += store.add(benign(f"{writer} {batch} 0", f"{writer} {batch} 1"))
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


def test_one_request_sent_by_many_threads_at_once_is_stored_once(store: OpenStore) -> None:
    begin = threading.Barrier(8)

    def write(_: int) -> list[Example]:
        begin.wait()
        return store.add(benign("a", "b"), "request")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert (store.since(0), store.revision()) == (answers[0], 1)


def test_of_threads_that_label_one_text_differently_one_wins_and_the_others_are_told(store: OpenStore) -> None:
    begin = threading.Barrier(8)

    def write(number: int) -> str:
        begin.wait()
        try:
            store.add([Example("text", Label.EXTRACTION, technique=f"technique_{number}")])
        except ExampleConflict:
            return ""
        return f"technique_{number}"

    with ThreadPoolExecutor(8) as pool:
        winners = [name for name in pool.map(write, range(8)) if name]
    assert [example.technique for example in store.since(0)] == winners
    assert len(winners) == 1


# SQLite: processes, crashes and damage

WRITES_WHEN_TOLD = """
import sys
from pathlib import Path
from index.example import Example, Label
from index.store import SqliteStore
path, writer, batches = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = SqliteStore(path)
print("ready", flush=True)
sys.stdin.readline()
for batch in range(batches):
    store.add([Example(f"{writer} {batch} {number}", Label.BENIGN) for number in range(2)])
store.add([Example(f"shared 0 {number}", Label.BENIGN) for number in range(2)], f"request {writer}")
store.close()
"""

DIES_AFTER_ADD = """
import os, signal, sys
from pathlib import Path
from index.example import Example, Label
from index.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
store.add([Example(f"kept {number}", Label.BENIGN) for number in range(3)], "request")
os.kill(os.getpid(), signal.SIGKILL)
"""

DIES_BEFORE_THE_COMMIT = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from index.example import Example, Label
from index.store import SqliteStore
def die(connection, cursor, statement, *rest):
    if statement.startswith("UPDATE meta"):
        assert cursor.connection.execute("SELECT count(*) FROM examples").fetchone() == (4,)
        os.kill(os.getpid(), signal.SIGKILL)
store = SqliteStore(Path(sys.argv[1]))
sa.event.listen(store._engine, "after_cursor_execute", die)
store.add([Example(f"lost {number}", Label.BENIGN) for number in range(3)], "request")
"""

OPENS_WITHOUT_RIGHTS = """
import os, sys, tempfile
from pathlib import Path
from index.errors import StoreUnavailable
from index.store import SqliteStore
path = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:  # imports everything while the interpreter's files can be read
    SqliteStore(Path(folder) / "first.sqlite").close()
if os.geteuid() == 0:
    os.seteuid(int(sys.argv[2]))
os.listdir(path.parent)
try:
    (path.parent / "probe").touch()
except PermissionError:
    pass
else:
    sys.exit("the folder can be written")
try:
    SqliteStore(path)
except StoreUnavailable as error:
    print(error)
else:
    sys.exit("the store was opened")
"""

FILLS_ITS_DISK = """
import resource, sys, traceback
from pathlib import Path
from index.errors import StoreUnavailable
from index.example import Example, Label
from index.store import SqliteStore
path, secret = Path(sys.argv[1]), sys.argv[2]
store = SqliteStore(path)
before = store.add([Example("before", Label.BENIGN)])
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))
try:
    store.add([Example(secret, Label.BENIGN, author=secret, note=secret)], "request")
except StoreUnavailable as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    traceback.print_exception(error, file=sys.stdout)
else:
    sys.exit("the write was acknowledged")
assert store.since(0) == before and store.revision() == 1
assert [example.revision for example in store.add([Example("after", Label.BENIGN)], "request")] == [2]
"""


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    writers, batches = 2, 15
    with closing(SqliteStore(path)) as store:
        processes = [start(WRITES_WHEN_TOLD, path, writer, batches) for writer in range(writers)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
        examples = store.since(0)
        expected = {f"{w} {batch} {n}" for w in range(writers) for batch in range(batches) for n in range(2)}
        assert len(examples) == len(expected) + 2
        assert set(texts_of(examples)) == expected | {"shared 0 0", "shared 0 1"}
        assert store.revision() == writers * batches + 1
        assert_each_write_has_its_revision(examples, writers * batches + 1)


def test_what_add_returned_is_there_after_the_process_was_killed(path: Path) -> None:
    code, output = run(DIES_AFTER_ADD, path)
    assert (code, output) == (-signal.SIGKILL, "")
    with closing(SqliteStore(path)) as store:
        assert texts_of(store.since(0)) == ["kept 0", "kept 1", "kept 2"]
        assert store.revision() == 1
        again = store.add(benign("kept 0", "kept 1", "kept 2"), "request")
        assert again == store.since(0)
        assert [example.revision for example in store.add(benign("next"))] == [2]


def test_a_process_killed_before_its_commit_leaves_nothing_behind(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        before = store.add(benign("before"))
        code, output = run(DIES_BEFORE_THE_COMMIT, path)
        assert (code, output) == (-signal.SIGKILL, "")
        assert (store.since(0), store.revision()) == (before, 1)
        assert [example.revision for example in store.add(benign("lost 0"), "request")] == [2]


def test_every_connection_of_the_store_is_in_wal_mode_and_fully_synced(path: Path) -> None:
    with closing(SqliteStore(path)) as store, ExitStack() as held:
        connections = [held.enter_context(store._engine.connect()) for _ in range(3)]
        assert len({id(connection.connection.driver_connection) for connection in connections}) == 3
        for connection in connections:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_write_that_the_database_breaks_off_stores_nothing_and_does_not_repeat_the_text(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        before = store.add(benign("before"))
        with closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER breaks AFTER INSERT ON examples WHEN NEW.text = 'breaks' "
                "BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END"
            )
        with pytest.raises(StoreUnavailable) as caught:
            store.add([Example(SECRET, Label.BENIGN, author=SECRET, note=SECRET), *benign("breaks")], "request")
        assert str(caught.value) == "the example store examples.sqlite cannot be used: the disk is gone"
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert (store.since(0), store.revision()) == (before, 1)
        assert [example.revision for example in store.add(benign(SECRET), "request")] == [2]


def test_a_full_disk_is_told_without_the_text_and_the_store_works_on_when_there_is_room(path: Path) -> None:
    code, output = run(FILLS_ITS_DISK, path, SECRET)
    assert code == 0, output
    assert "the example store examples.sqlite cannot be used: " in output
    assert SECRET not in output
    with closing(SqliteStore(path)) as store:
        assert texts_of(store.since(0)) == ["before", "after"]


@pytest.mark.parametrize("texts", [(), (SECRET,)], ids=["no file", "a file"])
def test_a_store_in_a_read_only_folder_is_unavailable(texts: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        path = folder / "examples.sqlite"
        if texts:
            with closing(SqliteStore(path)) as store:
                store.add(benign(*texts))
            path.chmod(0o444)
        folder.chmod(0o555)
        try:
            code, output = run(OPENS_WITHOUT_RIGHTS, path, NOBODY)
        finally:
            folder.chmod(0o755)
        assert code == 0, output
        assert output.startswith("the example store examples.sqlite cannot be used: ")
        assert any(words in output for words in ("unable to open", "readonly"))
        assert SECRET not in output


@pytest.mark.parametrize("content", [SECRET.encode() * 200, b"short " + SECRET.encode(), bytes(range(256)) * 64])
def test_a_file_that_is_no_database_is_unavailable_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable) as caught:
        SqliteStore(path)
    assert str(caught.value) == "the example store examples.sqlite cannot be used: file is not a database"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert path.read_bytes() == content


def test_a_store_whose_first_page_was_damaged_is_unavailable(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.add(benign(SECRET))
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"the example store examples\.sqlite cannot be used: ") as caught:
        SqliteStore(path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("where", ["folder", "missing/examples.sqlite"])
def test_a_folder_in_place_of_the_file_or_none_around_it_is_unavailable(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        SqliteStore(tmp_path / where)


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with closing(SqliteStore(path)) as store:
        assert texts_of(store.add(benign("text"))) == ["text"]


def test_a_store_of_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        before = store.add(benign(SECRET))
    set_version = "UPDATE meta SET value = ? WHERE key = 'schema_version'"
    with closing(sqlite3.connect(path)) as other:
        other.execute(set_version, (SCHEMA_VERSION + 1,))
        other.execute("DROP TABLE requests")
        other.commit()
    with pytest.raises(StoreUnavailable, match=f"schema version {SCHEMA_VERSION + 1}.*reads {SCHEMA_VERSION}"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as other:
        tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "requests" not in tables
        other.execute(set_version, (SCHEMA_VERSION,))
        other.commit()
    with closing(SqliteStore(path)) as store:
        assert store.since(0) == before


def test_a_first_version_store_is_read_for_ever(path: Path) -> None:
    with closing(sqlite3.connect(path)) as old:
        old.executescript("""
            CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL);
            CREATE TABLE examples (
                position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
                content_hash TEXT NOT NULL UNIQUE, text TEXT NOT NULL, label TEXT NOT NULL, technique TEXT,
                capabilities TEXT NOT NULL, language TEXT NOT NULL, source TEXT NOT NULL, author TEXT NOT NULL,
                note TEXT NOT NULL, created TEXT NOT NULL, revision BIGINT NOT NULL);
            CREATE TABLE vectors (
                encoder TEXT NOT NULL, example_id TEXT NOT NULL REFERENCES examples (id), vector BLOB NOT NULL,
                PRIMARY KEY (encoder, example_id));
            CREATE TABLE requests (
                request_id TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL, revision BIGINT NOT NULL);
            INSERT INTO meta VALUES ('schema_version', 1), ('revision', 5);
            INSERT INTO examples VALUES (
                3, 'ex-ba7816bf8f01cfea4141', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
                'abc', 'extraction', 'self_chat', '["code", "math"]', 'en', 'seed', 'ann', 'why',
                '2024-05-01T07:00:15.250001+00:00', 5);
            INSERT INTO requests VALUES (
                'request', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad', 5);
            INSERT INTO vectors VALUES ('encoder', 'ex-ba7816bf8f01cfea4141', x'0000803f000000bf');
        """)
    expected = Example(
        text="abc",
        label=Label.EXTRACTION,
        technique="self_chat",
        capabilities=("code", "math"),
        language="en",
        source="seed",
        author="ann",
        note="why",
        created=datetime(2024, 5, 1, 7, 0, 15, 250_001, tzinfo=UTC),
        revision=5,
    )
    with closing(SqliteStore(path)) as store:
        assert (store.since(0), store.revision()) == ([expected], 5)
        assert store.add([expected], "request") == [expected]
        assert store.vectors("encoder")[expected.id].tolist() == [1.0, -0.5]
        assert [example.revision for example in store.add(benign("next"))] == [6]


def test_a_path_is_taken_to_the_letter(tmp_path: Path) -> None:
    for name in ("a?b.sqlite", "a%20b.sqlite", "a#b.sqlite"):
        SqliteStore(tmp_path / name).close()
        SqliteStore(tmp_path / name).close()
        assert (tmp_path / name).exists()
    assert not (tmp_path / "a").exists()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_new_store_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    for attempt in range(10):
        path = tmp_path / f"{attempt}.db"
        with ThreadPoolExecutor(4) as pool:
            for store in list(pool.map(lambda _: SqliteStore(path), range(4))):  # noqa: B023  # run at once
                store.close()


@pytest.mark.parametrize("field", ["source", "author", "note"])
def test_an_unpaired_surrogate_in_any_field_is_an_invalid_example(field: str) -> None:
    changes: dict[str, Any] = {field: "\ud800"}
    with pytest.raises(InvalidExample, match=field):
        replace(Example("a", Label.BENIGN), **changes)


def test_an_unpaired_surrogate_in_a_question_is_refused_in_our_own_words(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db")
    for ask in (lambda: store.get("\ud800"), lambda: store.page(1, source="\ud800")):
        with pytest.raises(InvalidExample):
            ask()
    store.close()


def test_replacing_a_source_makes_it_exactly_what_is_given_and_leaves_the_others(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db")
    kept, relabelled, gone = (Example(text, Label.BENIGN, source="seed") for text in ("kept", "relabelled", "gone"))
    analysts = Example("an analyst's", Label.EXTRACTION, "self_chat", source="desk")
    store.add([kept, relabelled, gone, analysts])
    store.keep_vectors("e", {example.id: np.ones(4, np.float32) for example in (kept, relabelled, gone, analysts)})
    now = [
        kept,
        Example("relabelled", Label.EXTRACTION, "self_chat", source="seed"),
        Example("an analyst's", Label.BENIGN, source="seed"),
        Example("new", Label.BENIGN, source="seed"),
    ]
    store.replace_source("seed", now)
    found = {example.text: (example.label, example.source) for example in store.since(0)}
    assert found == {
        "kept": (Label.BENIGN, "seed"),
        "relabelled": (Label.EXTRACTION, "seed"),
        "an analyst's": (Label.EXTRACTION, "desk"),
        "new": (Label.BENIGN, "seed"),
    }
    assert store.revision() == 2
    assert set(store.vectors("e")) == {kept.id, analysts.id}
    store.replace_source("seed", now)
    assert store.revision() == 2, "nothing changed, so nothing is written"
    store.close()
