"""A short form of `make crash-test`, and a proof that its checks can fail."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from crash_writes import writes
from crashing import STORES, Broken, Crashed, check, crash
from postgres import missing_program

from index.store import open_store

KILLS = 10


@pytest.mark.parametrize("store", STORES)
def test_what_was_acknowledged_outlives_kills_at_any_moment(store: str, tmp_path: Path) -> None:
    if store == "postgresql" and (program := missing_program()):
        pytest.skip(f"{program} is not on the PATH: install PostgreSQL's server")
    found = Crashed()
    crash(store, KILLS, 0, tmp_path, found)
    assert found.kills == KILLS
    assert found.acknowledged.total() > KILLS
    assert found.there + found.absent > 0


def loses_a_change(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM changes WHERE number = (SELECT max(number) FROM changes)")


def loses_a_write(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM changes WHERE revision = (SELECT max(revision) FROM changes)")
    connection.execute("UPDATE meta SET value = value - 1 WHERE key = 'revision'")


def skips_a_revision(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'revision'")


def forgets_a_state(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE examples SET state = 'pending' WHERE state = 'active'")


def forgets_a_decision(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM decisions WHERE number = 1")


def makes_a_write_twice(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE changes SET request_id = 'another' WHERE number = 1")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (loses_a_change, "part|lost|gap"),
        (loses_a_write, "lost"),
        (skips_a_revision, "gap"),
        (forgets_a_state, "present"),
        (forgets_a_decision, "part"),
        (makes_a_write_twice, "part|lost"),
    ],
)
def test_a_store_that_broke_its_word_is_found_out(
    damage: Callable[[sqlite3.Connection], None], words: str, tmp_path: Path
) -> None:
    path, journal = tmp_path / "examples.sqlite", tmp_path / "journal"
    with closing(open_store(path)) as store, journal.open("w", encoding="utf-8") as file:
        for number, write in enumerate(writes("journal.0")):
            write.run(store)
            file.write(f"ask 0 {number}\nack 0 {number}\n")
            if number == 60:
                break
    check(str(path), [journal], [], Crashed())
    with closing(sqlite3.connect(path)) as connection:
        damage(connection)
        connection.commit()
    with pytest.raises(Broken, match=words):
        check(str(path), [journal], [], Crashed())
