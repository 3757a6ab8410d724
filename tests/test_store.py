"""What the store on SQLite alone must keep: crashes, locks, damaged files and old ones."""

import signal
import sqlite3
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from stores import ACT, SECRET, benign, run, texts_of

from index.change import Act
from index.contract import Filter
from index.errors import InvalidExample, StoreUnavailable
from index.example import Example, Label
from index.migrations import SCHEMA_VERSION
from index.sqlite import SqliteBackend
from index.store import SqlStore, open_store

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an SQLite store may be made."""
    return tmp_path / "examples.sqlite"


DIES_AFTER_ADD = """
import os, signal, sys
from pathlib import Path
from index.example import Example, Label
from index.change import Act
from index.store import open_store
store = open_store(Path(sys.argv[1]))
store.add([Example(f"kept {number}", Label.BENIGN) for number in range(3)], Act("ann", request_id="request"))
os.kill(os.getpid(), signal.SIGKILL)
"""

DIES_BEFORE_THE_COMMIT = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from index.example import Example, Label
from index.change import Act
from index.store import open_store
def die(connection, cursor, statement, *rest):
    if statement.startswith("UPDATE meta"):
        assert cursor.connection.execute("SELECT count(*) FROM examples").fetchone() == (4,)
        os.kill(os.getpid(), signal.SIGKILL)
store = open_store(Path(sys.argv[1]))
sa.event.listen(store._backend.engine, "after_cursor_execute", die)
store.add([Example(f"lost {number}", Label.BENIGN) for number in range(3)], Act("ann", request_id="request"))
"""

OPENS_WITHOUT_RIGHTS = """
import os, sys, tempfile
from pathlib import Path
from index.errors import StoreUnavailable
from index.change import Act
from index.store import open_store
path = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:  # imports everything while the interpreter's files can be read
    open_store(Path(folder) / "first.sqlite").close()
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
    open_store(path)
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
from index.change import Act
from index.store import open_store
path, secret = Path(sys.argv[1]), sys.argv[2]
store = open_store(path)
before = store.add([Example("before", Label.BENIGN)], Act("ann"))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))
try:
    store.add([Example(secret, Label.BENIGN, author=secret, note=secret)], Act("ann", request_id="request"))
except StoreUnavailable as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    traceback.print_exception(error, file=sys.stdout)
else:
    sys.exit("the write was acknowledged")
assert store.since(0) == before and store.revision() == 1
assert [example.revision for example in store.add([Example("after", Label.BENIGN)], Act("ann", request_id="request"))] == [2]
"""


def test_what_add_returned_is_there_after_the_process_was_killed(path: Path) -> None:
    code, output = run(DIES_AFTER_ADD, path)
    assert (code, output) == (-signal.SIGKILL, "")
    with closing(open_store(path)) as store:
        assert texts_of(store.since(0)) == ["kept 0", "kept 1", "kept 2"]
        assert store.revision() == 1
        again = store.add(benign("kept 0", "kept 1", "kept 2"), Act("ann", request_id="request"))
        assert again == store.since(0)
        assert [example.revision for example in store.add(benign("next"), ACT)] == [2]


def test_a_process_killed_before_its_commit_leaves_nothing_behind(path: Path) -> None:
    with closing(open_store(path)) as store:
        before = store.add(benign("before"), ACT)
        code, output = run(DIES_BEFORE_THE_COMMIT, path)
        assert (code, output) == (-signal.SIGKILL, "")
        assert (store.since(0), store.revision()) == (before, 1)
        assert [example.revision for example in store.add(benign("lost 0"), Act("ann", request_id="request"))] == [2]


def test_every_connection_of_the_store_is_in_wal_mode_and_fully_synced(path: Path) -> None:
    backend = SqliteBackend(path)
    with closing(SqlStore(backend)), ExitStack() as held:
        connections = [held.enter_context(backend.engine.connect()) for _ in range(3)]
        assert len({id(connection.connection.driver_connection) for connection in connections}) == 3
        for connection in connections:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_write_that_the_database_breaks_off_stores_nothing_and_does_not_repeat_the_text(path: Path) -> None:
    with closing(open_store(path)) as store:
        before = store.add(benign("before"), ACT)
        with closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER breaks AFTER INSERT ON examples WHEN NEW.text = 'breaks' "
                "BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END"
            )
        with pytest.raises(StoreUnavailable) as caught:
            store.add(
                [Example(SECRET, Label.BENIGN, author=SECRET, note=SECRET), *benign("breaks")],
                Act("ann", request_id="request"),
            )
        assert str(caught.value) == "the example store examples.sqlite cannot be used: the disk is gone"
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert (store.since(0), store.revision()) == (before, 1)
        assert [example.revision for example in store.add(benign(SECRET), Act("ann", request_id="request"))] == [2]


def test_a_full_disk_is_told_without_the_text_and_the_store_works_on_when_there_is_room(path: Path) -> None:
    code, output = run(FILLS_ITS_DISK, path, SECRET)
    assert code == 0, output
    assert "the example store examples.sqlite cannot be used: " in output
    assert SECRET not in output
    with closing(open_store(path)) as store:
        assert texts_of(store.since(0)) == ["before", "after"]


@pytest.mark.parametrize("texts", [(), (SECRET,)], ids=["no file", "a file"])
def test_a_store_in_a_read_only_folder_is_unavailable(texts: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        path = folder / "examples.sqlite"
        if texts:
            with closing(open_store(path)) as store:
                store.add(benign(*texts), ACT)
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
        open_store(path)
    assert str(caught.value) == "the example store examples.sqlite cannot be used: file is not a database"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert path.read_bytes() == content


def test_a_store_whose_first_page_was_damaged_is_unavailable(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.add(benign(SECRET), ACT)
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"the example store examples\.sqlite cannot be used: ") as caught:
        open_store(path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("where", ["folder", "missing/examples.sqlite"])
def test_a_folder_in_place_of_the_file_or_none_around_it_is_unavailable(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        open_store(tmp_path / where)


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with closing(open_store(path)) as store:
        assert texts_of(store.add(benign("text"), ACT)) == ["text"]


def test_a_store_of_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with closing(open_store(path)) as store:
        before = store.add(benign(SECRET), ACT)
    set_version = "UPDATE meta SET value = ? WHERE key = 'schema_version'"
    with closing(sqlite3.connect(path)) as other:
        other.execute(set_version, (SCHEMA_VERSION + 1,))
        other.execute("DROP TABLE requests")
        other.commit()
    with pytest.raises(StoreUnavailable, match=f"schema version {SCHEMA_VERSION + 1}.*reads {SCHEMA_VERSION}"):
        open_store(path)
    with closing(sqlite3.connect(path)) as other:
        tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "requests" not in tables
        other.execute(set_version, (SCHEMA_VERSION,))
        other.commit()
    with closing(open_store(path)) as store:
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
        changed=5,
    )
    with closing(open_store(path)) as store:
        assert (store.since(0), store.revision()) == ([expected], 5)
        assert store.add([expected], Act("ann", request_id="request")) == [expected]
        assert store.vectors("encoder")[expected.id].tolist() == [1.0, -0.5]
        assert [example.revision for example in store.add(benign("next"), ACT)] == [6]


def test_a_path_is_taken_to_the_letter(tmp_path: Path) -> None:
    for name in ("a?b.sqlite", "a%20b.sqlite", "a#b.sqlite"):
        open_store(tmp_path / name).close()
        open_store(tmp_path / name).close()
        assert (tmp_path / name).exists()
    assert not (tmp_path / "a").exists()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="another program"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_new_store_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    for attempt in range(10):
        path = tmp_path / f"{attempt}.db"
        with ThreadPoolExecutor(4) as pool:
            for store in list(pool.map(lambda _: open_store(path), range(4))):  # noqa: B023  # run at once
                store.close()


@pytest.mark.parametrize("field", ["source", "author", "note"])
def test_an_unpaired_surrogate_in_any_field_is_an_invalid_example(field: str) -> None:
    changes: dict[str, Any] = {field: "\ud800"}
    with pytest.raises(InvalidExample, match=field):
        replace(Example("a", Label.BENIGN), **changes)


def test_an_unpaired_surrogate_in_a_question_is_refused_in_our_own_words(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.db")
    for ask in (lambda: store.get("\ud800"), lambda: store.page(1, wanted=Filter(source="\ud800"))):
        with pytest.raises(InvalidExample):
            ask()
    store.close()
