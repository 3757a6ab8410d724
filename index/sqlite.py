"""The embedded store's database: SQLite in WAL mode, synced on every commit."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from index.backend import PATIENCE, Types, unavailable
from index.errors import StoreUnavailable

_RETRY = 0.02


class SqliteBackend:
    """One file; its folder must exist."""

    types = Types("INTEGER", "BLOB")

    def __init__(self, path: Path) -> None:
        """Name the file; another program's database is refused.

        Args:
            path: The database file.

        Raises:
            StoreUnavailable: When the file cannot be read, or is another program's.
        """
        self.name = path.name
        _refuse_foreign(path)
        url = sa.URL.create("sqlite", database=str(path))
        self.engine = sa.create_engine(
            url, connect_args={"timeout": PATIENCE}, pool_timeout=PATIENCE, hide_parameters=True
        )
        sa.event.listen(self.engine, "connect", _configure)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a transaction that reads one state of the file."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection that holds the file's one write lock; committed at the end."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    migrating = writing

    def upsert(self, table: sa.Table) -> sqlite.Insert:
        """SQLite's insertion with ON CONFLICT."""
        return sqlite.insert(table)


def _refuse_foreign(path: Path) -> None:
    """Leave another program's database as it is."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise unavailable(path.name, str(error)) from None
    if names and "meta" not in names:
        raise StoreUnavailable(f"{path.name} is another program's database: name another file")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the store begins and ends its transactions by itself
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            # Two openers of a new file can lock each other out, and SQLite then does not wait by itself.
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}")
