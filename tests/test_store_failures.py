"""What can fail around a store: other writers, a full or locked disk, a server that goes and comes back."""

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from postgres import Postgres, missing_program, running_postgres
from stores import ACT, SECRET, Open, assert_each_write_has_its_revision, benign, extraction, start, texts_of

from index.change import Act
from index.contract import ExampleStore, Relabel
from index.errors import StoreUnavailable
from index.example import Example, Label, State
from index.store import SqlStore
from index.store import open_store as open_address

WRITES_WHEN_TOLD = """
import sys
from index.example import Example, Label
from index.change import Act
from index.store import open_store
address, writer, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_store(address)
print("ready", flush=True)
sys.stdin.readline()
for batch in range(batches):
    store.add([Example(f"{writer} {batch} {number}", Label.BENIGN) for number in range(2)], Act("ann"))
store.add([Example(f"shared 0 {number}", Label.BENIGN) for number in range(2)], Act("ann", request_id=f"request {writer}"))
store.close()
"""


def test_processes_that_write_at_once_lose_nothing(open_store: Open, address: str | Path) -> None:
    writers, batches = 3, 10
    with closing(open_store()) as store:
        processes = [start(WRITES_WHEN_TOLD, address, writer, batches) for writer in range(writers)]
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


def engine_of(store: ExampleStore) -> sa.Engine:
    """The store's connections."""
    assert isinstance(store, SqlStore)
    return store._backend.engine


def everything(store: ExampleStore) -> tuple[object, ...]:
    """All that a write could change."""
    return store.page(1_000), store.changes(0, 1_000), store.revision(), store.decided([])


def every_write(store: ExampleStore, words: str) -> Iterator[Any]:
    """Every kind of write of much text; each would change something."""
    is_active, gone = Example("is active", Label.BENIGN).id, Example("gone", Label.BENIGN).id
    much = Act(SECRET, words * 2_000, "a request")
    yield lambda: store.add([Example(f"{SECRET} {words * 90_000}", Label.BENIGN)], much)
    yield lambda: store.accept([Example("waits", Label.BENIGN).id], much)
    yield lambda: store.reject([Example("waits", Label.BENIGN).id], much)
    yield lambda: store.revoke([is_active], much)
    yield lambda: store.revoke_source("desk", much)
    yield lambda: store.restore([gone], much)
    yield lambda: store.relabel([Relabel(is_active, Label.EXTRACTION, "self_chat", ())], much)
    yield lambda: store.supersede(is_active, extraction(f"{SECRET} {words * 90_000}"), much)
    yield lambda: store.replace_source("desk", benign(f"{SECRET} {words * 90_000}"), much)


@pytest.fixture
def filled(store: ExampleStore) -> ExampleStore:
    """A store of an active, a revoked and a pending example, one of them of a source."""
    waits = replace(benign("waits")[0], state=State.PENDING)
    source = Example("of the desk", Label.BENIGN, source="desk")
    store.add([*benign("is active", "gone"), waits, source], ACT)
    store.revoke([Example("gone", Label.BENIGN).id], ACT)
    return store


def assert_all_fail_and_nothing_is_written(store: ExampleStore, words: str) -> None:
    """Every write fails with these words and without its text, and leaves everything as it was."""
    before = everything(store)
    for write in every_write(store, "x"):
        with pytest.raises(StoreUnavailable, match=words) as caught:
            write()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert everything(store) == before


def test_no_write_leaves_half_of_itself_when_its_last_statement_fails(filled: ExampleStore) -> None:
    def fails(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO requests"):
            cursor.execute("SELECT 1 FROM nowhere")

    engine = engine_of(filled)
    sa.event.listen(engine, "after_cursor_execute", fails)
    assert_all_fail_and_nothing_is_written(filled, "nowhere")
    sa.event.remove(engine, "after_cursor_execute", fails)
    assert texts_of(filled.add(benign("new"), Act("ann", request_id="a request"))) == ["new"]


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
def test_a_full_disk_fails_the_write_that_finds_no_room_and_reads_go_on(filled: ExampleStore) -> None:
    with engine_of(filled).connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    engine_of(filled).dispose()
    sa.event.listen(engine_of(filled), "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count={pages}"))
    before = everything(filled)
    adds, *_, supersedes, replaces = every_write(filled, "x")
    for write in (adds, supersedes, replaces):
        with pytest.raises(
            StoreUnavailable, match=r"examples\.sqlite cannot be used: database or disk is full"
        ) as caught:
            write()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert everything(filled) == before


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
def test_a_locked_file_fails_every_write_after_a_while_and_reads_go_on(
    filled: ExampleStore, address: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.sqlite.PATIENCE", 0.01)
    with closing(open_address(address)) as store, closing(sqlite3.connect(address)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert_all_fail_and_nothing_is_written(store, "locked")
        other.rollback()
        assert texts_of(store.add(benign("new"), ACT)) == ["new"]


# PostgreSQL


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_a_row_that_another_writer_holds_fails_every_write_after_a_while_and_reads_go_on(
    filled: ExampleStore, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.postgres.PATIENCE", 0.02)
    with closing(open_address(address)) as store, psycopg.connect(address) as other:
        other.execute("SELECT * FROM meta FOR UPDATE")
        assert_all_fail_and_nothing_is_written(store, "lock timeout")
        other.rollback()
        assert texts_of(store.add(benign("new"), ACT)) == ["new"]


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_a_server_that_only_reads_fails_every_write_and_reads_go_on(filled: ExampleStore, address: str) -> None:
    with closing(open_address(f"{address}%20-cdefault_transaction_read_only%3Don")) as store:
        assert_all_fail_and_nothing_is_written(store, "read-only transaction")


@contextmanager
def server_of_its_own() -> Iterator[Postgres]:
    """A server that a test may stop."""
    if program := missing_program():
        pytest.skip(f"{program} is not on the PATH: install PostgreSQL's server")
    with running_postgres() as server:
        yield server


def test_a_server_that_went_is_told_and_the_same_store_works_on_when_it_is_back() -> None:
    with server_of_its_own() as server, closing(open_address(server.store())) as store:
        stored = store.add(benign("before"), ACT)
        server.stop()
        for ask in (store.revision, lambda: store.add(benign(SECRET), ACT), lambda: store.since(0)):
            with pytest.raises(StoreUnavailable, match=r"the example store postgresql:.* cannot be used: ") as caught:
                ask()
            assert SECRET not in "".join(traceback.format_exception(caught.value))
        server.start()
        assert store.since(0) == stored
        assert texts_of(store.add(benign("after"), ACT)) == ["after"]
        assert store.revision() == 2


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://ann:{SECRET.replace(' ', '')}@127.0.0.1:1/examples",
        f"postgresql://ann:{SECRET.replace(' ', '')}@127.0.0.1:one/examples",
        f"postgresql:ann:{SECRET.replace(' ', '')}",
        f"postgresql://ann:{SECRET.replace(' ', '')}@127.0.0.1:1/examples?unknown=1",
        f"mysql://ann:{SECRET.replace(' ', '')}@127.0.0.1/examples",
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_its_password(address: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        open_address(address)
    said = "".join(traceback.format_exception(caught.value))
    assert SECRET.replace(" ", "") not in said
    assert "example store" in str(caught.value)


def test_a_database_of_another_encoding_is_refused(postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreUnavailable, match="ENCODING 'UTF8'"):
        open_address(postgres.address(database="latin"))


def test_without_psycopg_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.postgres.find_spec", lambda _: None)
    with pytest.raises(StoreUnavailable, match=r"pip install 'stillwatch\[postgres\]'"):
        open_address("postgresql://ann@127.0.0.1/examples")


def test_a_server_that_does_not_sync_by_default_does_for_the_store(postgres: Postgres) -> None:
    address = postgres.store("%20-csynchronous_commit%3Doff")
    with closing(open_address(address)) as store, engine_of(store).connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
