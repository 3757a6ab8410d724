"""Stores of every version open for ever, and every way to the present version leads to the same tables."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from stores import ACT, Open, benign, texts_of

from index import migrations
from index.change import Act, Action, Choice
from index.contract import ExampleStore, Filter
from index.errors import InvalidExample, StoreUnavailable
from index.example import Example, Label, State, content_hash
from index.migrations import MIGRATIONS, SCHEMA_VERSION
from index.schema import TABLES
from index.store import SqlStore
from index.store import open_store as open_address

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = range(1, SCHEMA_VERSION + 1)


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """What a query of a file finds."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def copy_of(version: int, folder: Path) -> Path:
    """A copy of the store that a version wrote."""
    return Path(shutil.copy(FIXTURES / f"store-v{version}.sqlite", folder / f"v{version}.sqlite"))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A store that the first version wrote: 40 examples at revision 4, of two sources, vectors, and three requests."""
    return copy_of(1, tmp_path)


@pytest.fixture
def migrated(first: Path) -> Iterator[ExampleStore]:
    """The same, opened by this version."""
    with closing(open_address(first)) as store:
        yield store


def test_there_is_a_store_of_every_version() -> None:
    assert [(FIXTURES / f"store-v{version}.sqlite").is_file() for version in VERSIONS] == [True] * SCHEMA_VERSION
    for version in VERSIONS:
        query = "SELECT value FROM meta WHERE key = 'schema_version'"
        assert rows(FIXTURES / f"store-v{version}.sqlite", query) == [(version,)]


def test_every_example_of_the_first_version_is_kept_as_it_was_and_is_active(migrated: ExampleStore) -> None:
    kept = rows(
        FIXTURES / "store-v1.sqlite",
        "SELECT id, content_hash, text, label, technique, language, source, author, note, created, revision, capabilities "
        "FROM examples ORDER BY position",
    )
    found = [
        (
            *(e.id, e.content_hash, e.text, e.label, e.technique, e.language, e.source, e.author, e.note),
            *(e.created.isoformat(), e.revision, json.dumps(e.capabilities)),
        )
        for e in migrated.since(0)
    ]
    assert found == kept
    assert (len(found), migrated.revision()) == (40, 4)
    assert {(e.state, e.licence, e.changed - e.revision) for e in migrated.since(0)} == {(State.ACTIVE, "", 0)}


def test_every_vector_of_the_first_version_is_kept_bit_for_bit(migrated: ExampleStore) -> None:
    for encoder, count in (("encoder one", 40), ("encoder two", 10)):
        kept = rows(FIXTURES / "store-v1.sqlite", f"SELECT example_id, vector FROM vectors WHERE encoder = '{encoder}'")
        assert len(kept) == count
        assert {(name, row.tobytes()) for name, row in migrated.vectors(encoder).items()} == set(kept)


def test_the_first_versions_requests_are_answered_as_they_were(migrated: ExampleStore) -> None:
    held = {example.content_hash: example for example in migrated.since(0)}
    requests = rows(FIXTURES / "store-v1.sqlite", "SELECT request_id, content FROM requests")
    assert len(requests) == 3
    for request_id, content in requests:
        stored = [held[name] for name in str(content).split()]
        given = [Example(e.text, e.label, e.technique, e.capabilities) for e in stored]
        act = Act("whoever", request_id=str(request_id))
        assert migrated.add(given, act) == stored
        with pytest.raises(InvalidExample, match="request_id"):
            migrated.add(given[1:], act)
        with pytest.raises(InvalidExample, match="request_id"):
            migrated.add([replace(given[0], label=Label.EXTRACTION, technique="another"), *given[1:]], act)
        with pytest.raises(InvalidExample, match="request_id"):
            migrated.revoke([stored[0].id], act)
    assert migrated.revision() == 4


def test_every_example_of_the_first_version_gets_a_history(migrated: ExampleStore) -> None:
    changes = migrated.changes(0, 1_000)
    examples = migrated.since(0)
    assert [change.number for change in changes] == list(range(1, 41))
    assert [change.example_id for change in changes] == [example.id for example in examples]
    for change, example in zip(changes, examples, strict=True):
        assert migrated.history(example.id) == [change]
        assert (change.action, change.revision, change.actor) == (Action.ADD, example.revision, example.author)
        assert (change.label, change.technique, change.capabilities) == (
            example.label,
            example.technique,
            example.capabilities,
        )
        assert (change.at, change.state) == (example.created, State.ACTIVE)
    for revision in range(5):
        assert migrated.at_revision(revision) == [e for e in examples if e.revision <= revision]


def test_the_work_goes_on_where_the_first_version_left_it(migrated: ExampleStore) -> None:
    (new,) = migrated.add(benign("new"), ACT)
    assert (new.revision, migrated.since(4), migrated.changes(40, 9)[0].number) == (5, [new], 41)
    seeds = [e for e in migrated.since(0) if e.source == "seed"]
    migrated.replace_source("seed", seeds[1:], ACT)
    assert migrated.get(seeds[0].id).state is State.REVOKED


def test_what_the_second_version_wrote_is_read_as_it_was_meant(tmp_path: Path) -> None:
    with closing(open_address(copy_of(2, tmp_path))) as store:
        assert (store.revision(), len(store.since(0)), len(store.changes(0, 1_000))) == (11, 39, 51)
        (tide,) = [e for e in store.since(0) if e.text == "Is the tide \0 high?"]
        assert (tide.licence, tide.state, tide.changed) == ("CC0-1.0", State.ACTIVE, 6)
        history = store.history(tide.id)
        assert [(c.action, c.actor, c.reason) for c in history] == [
            (Action.ADD, "bob", "seen"),
            (Action.ACCEPT, "ann", "true"),
        ]
        assert store.accept([tide.id], Act("ann", "true", "accept one")) == [tide]
        assert {c.action for c in store.changes(40, 100)} == set(Action) - {Action.REJECT}
        assert store.decided([content_hash("x")])[content_hash("x")].choice is Choice.IGNORE
        assert np.array_equal(store.vectors("encoder one")[tide.id], np.eye(1, 16, dtype=np.float32)[0])
        assert len(store.page(100, wanted=Filter(state=State.REVOKED))[0]) == 4
        assert len(store.at_revision(4)) == 40


@pytest.mark.parametrize("version", [0, *VERSIONS])
def test_every_way_leads_to_the_same_tables(version: int, tmp_path: Path) -> None:
    path = copy_of(version, tmp_path) if version else tmp_path / "new.sqlite"
    open_address(path).close()
    for table in TABLES:
        found = {name: bool(needed) for _, name, _, needed, _, _ in rows(path, f"PRAGMA table_info({table.name})")}
        assert found == {column.name: not column.nullable for column in table.columns}
    indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
    assert [name for (name,) in rows(path, indexes)] == [
        "changes_of_a_request",
        "changes_of_an_example",
        "decisions_on_a_prompt",
        "examples_in_order_of_change",
    ]


def test_both_databases_have_the_tables_that_are_written_to(open_store: Open) -> None:
    store = open_store()
    assert isinstance(store, SqlStore)
    found = sa.inspect(store._backend.engine)
    assert set(found.get_table_names()) == {table.name for table in TABLES}
    for table in TABLES:
        columns = {column["name"]: bool(column["nullable"]) for column in found.get_columns(table.name)}
        assert columns == {column.name: bool(column.nullable) for column in table.columns}


def test_a_migration_that_fails_leaves_the_store_as_it_was(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump_of(first)

    def fails(connection: sa.Connection, types: object) -> None:
        MIGRATIONS[1](connection, types)  # type: ignore[arg-type]
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    monkeypatch.setattr(migrations, "MIGRATIONS", (MIGRATIONS[0], fails))
    with pytest.raises(StoreUnavailable, match="nowhere"):
        open_address(first)
    assert dump_of(first) == before
    monkeypatch.undo()
    with closing(open_address(first)) as store:
        assert len(store.changes(0, 100)) == 40


def dump_of(path: Path) -> list[str]:
    """Everything that a file holds, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_an_old_store_that_many_open_at_once_is_migrated_once(tmp_path: Path) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        path = copy_of(1, folder)
        with ThreadPoolExecutor(4) as pool:
            for store in list(pool.map(open_address, [path] * 4)):
                assert len(store.changes(0, 100)) == 40
                store.close()


def test_a_new_store_that_many_open_at_once_is_made_once(open_store: Open) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: open_store(), range(6)))
    stored = stores[0].add(benign("text"), ACT)
    assert [store.since(0) for store in stores] == [stored] * 6


def test_a_store_of_a_newer_version_is_refused_and_left_alone(open_store: Open) -> None:
    store = open_store()
    store.add(benign("text"), ACT)
    assert isinstance(store, SqlStore)
    with store._backend.writing() as connection:
        connection.exec_driver_sql(f"UPDATE meta SET value = {SCHEMA_VERSION + 1} WHERE key = 'schema_version'")
    with pytest.raises(StoreUnavailable, match=f"schema version {SCHEMA_VERSION + 1}.*reads {SCHEMA_VERSION}"):
        open_store()
    assert texts_of(store.since(0)) == ["text"]


def test_another_programs_database_is_left_alone(address: str | Path) -> None:
    store = open_address(address)
    assert isinstance(store, SqlStore)
    with store._backend.migrating() as connection:
        for table in reversed(TABLES):
            connection.exec_driver_sql(f"DROP TABLE {table.name}")
        connection.exec_driver_sql("CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(StoreUnavailable, match="another program"):
        open_address(address)
    assert sa.inspect(store._backend.engine).get_table_names() == ["theirs"]
    store.close()
