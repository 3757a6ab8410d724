"""The fleet's database: PostgreSQL, spoken to by psycopg 3 (the `postgres` extra)."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from index.backend import PATIENCE, Types
from index.errors import StoreUnavailable
from index.schema import meta_table

_LOCK = 0x5717_71A7
"""Held while tables are made, so that of many that start at once one makes them."""
_CONNECTING = 5
"""Seconds."""


class PostgresBackend:
    """One database, whose encoding must be UTF8. The tables stand in the first schema of its search path."""

    types = Types("BIGINT", "BYTEA")

    def __init__(self, address: str) -> None:
        """Name the database.

        Args:
            address: postgresql://user:password@host:port/database, with libpq's options after a question mark.

        Raises:
            StoreUnavailable: When the address is none, or psycopg is not installed.
        """
        if find_spec("psycopg") is None:
            raise StoreUnavailable("a PostgreSQL store needs psycopg: pip install 'stillwatch[postgres]'")
        try:
            url = sa.make_url(address).set(drivername="postgresql+psycopg")
        except (sa.exc.ArgumentError, ValueError):
            raise StoreUnavailable(
                "the example store's address is none: give postgresql://user@host:port/database"
            ) from None
        self.name = f"postgresql://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"
        kept_alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        defaults = {"connect_timeout": _CONNECTING, "tcp_user_timeout": int(PATIENCE * 1_000), **kept_alive}
        self.engine = sa.create_engine(
            url,
            connect_args={name: value for name, value in defaults.items() if name not in url.query},
            pool_pre_ping=True,
            pool_timeout=PATIENCE,
            hide_parameters=True,
        )
        sa.event.listen(self.engine, "connect", _configure)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a transaction that reads one state of the database."""
        with self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection that holds the revision's row until it commits, at the end."""
        with self.engine.begin() as connection:
            connection.execute(sa.select(meta_table).where(meta_table.c.key == "revision").with_for_update())
            yield connection

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A connection that holds the lock under which tables are made."""
        with self.engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def upsert(self, table: sa.Table) -> postgresql.Insert:
        """PostgreSQL's insertion with ON CONFLICT."""
        return postgresql.insert(table)


def _configure(connection: Any, _record: object) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnavailable(f"the example store's database has encoding {encoding}: make one with ENCODING 'UTF8'")
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {int(PATIENCE * 1_000)}")
        # A writer that is cut off while it holds the revision's row must not stop all others for long.
        cursor.execute(f"SET idle_in_transaction_session_timeout = {int(6 * PATIENCE * 1_000)}")
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
    connection.commit()
