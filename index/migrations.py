"""How the store's tables came to be: each version is made from the one before it, in one transaction.

A new store goes the same way as an old one. A function that was released does not change; a change of the tables is a new
function at the end of MIGRATIONS, with a store that the version before it wrote among the tests' fixtures.
"""

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from index.backend import Backend, Types, guarded
from index.errors import StoreUnavailable
from index.schema import meta_table

_VERSION = sa.select(meta_table.c.value).where(meta_table.c.key == "schema_version")


def _first(connection: Connection, types: Types) -> None:
    """Examples with their revision, vectors and request ids."""
    for statement in (
        "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL)",
        f"CREATE TABLE examples (position {types.number} NOT NULL PRIMARY KEY, id TEXT NOT NULL UNIQUE, "
        "content_hash TEXT NOT NULL UNIQUE, text TEXT NOT NULL, label TEXT NOT NULL, technique TEXT, "
        "capabilities TEXT NOT NULL, language TEXT NOT NULL, source TEXT NOT NULL, author TEXT NOT NULL, "
        "note TEXT NOT NULL, created TEXT NOT NULL, revision BIGINT NOT NULL)",
        "CREATE TABLE vectors (encoder TEXT NOT NULL, example_id TEXT NOT NULL REFERENCES examples (id), "
        f"vector {types.blob} NOT NULL, PRIMARY KEY (encoder, example_id))",
        "CREATE TABLE requests (request_id TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL, revision BIGINT NOT NULL)",
        "INSERT INTO meta (key, value) VALUES ('schema_version', 1), ('revision', 0)",
    ):
        connection.exec_driver_sql(statement)


def _second(connection: Connection, types: Types) -> None:
    """States, licences, the history of changes, and reviewers' decisions."""
    for statement in (
        "ALTER TABLE examples ADD COLUMN licence TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE examples ADD COLUMN state TEXT NOT NULL DEFAULT 'active'",
        "ALTER TABLE examples ADD COLUMN changed BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE examples ADD COLUMN last_change BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE examples ADD COLUMN by_hand BOOLEAN NOT NULL DEFAULT FALSE",
        f"CREATE TABLE changes (number {types.number} NOT NULL PRIMARY KEY, revision BIGINT NOT NULL, "
        "example_id TEXT NOT NULL REFERENCES examples (id), action TEXT NOT NULL, state TEXT NOT NULL, "
        "label TEXT NOT NULL, technique TEXT, capabilities TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, "
        "at TEXT NOT NULL, request_id TEXT NOT NULL, replacement TEXT NOT NULL)",
        f"CREATE TABLE decisions (number {types.number} NOT NULL PRIMARY KEY, content_hash TEXT NOT NULL, "
        "choice TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL, example_id TEXT NOT NULL)",
        # Nobody wrote down who added an example, so its author stands for him.
        "INSERT INTO changes SELECT row_number() OVER (ORDER BY revision, position), revision, id, 'add', state, label, "
        "technique, capabilities, author, '', created, '', '' FROM examples",
        "CREATE INDEX changes_of_an_example ON changes (example_id, number)",
        "UPDATE examples SET changed = revision, last_change = (SELECT number FROM changes WHERE example_id = id)",
        "CREATE INDEX examples_in_order_of_change ON examples (changed, last_change)",
        "CREATE INDEX changes_of_a_request ON changes (request_id) WHERE request_id <> ''",
        "CREATE INDEX decisions_on_a_prompt ON decisions (content_hash, number)",
    ):
        connection.exec_driver_sql(statement)


MIGRATIONS: tuple[Callable[[Connection, Types], None], ...] = (_first, _second)
SCHEMA_VERSION = len(MIGRATIONS)


def migrate(backend: Backend) -> None:
    """Bring the tables to this version; a store of this version is left as it is.

    Args:
        backend: The store's database.

    Raises:
        StoreUnavailable: When the database cannot be written, or was written by a newer Stillwatch.
    """
    while True:
        with guarded(backend, backend.migrating()) as connection:
            found = _version(backend, connection)
            if found > SCHEMA_VERSION:
                raise StoreUnavailable(
                    f"{backend.name} has schema version {found}; this Stillwatch reads {SCHEMA_VERSION}: use a newer one"
                )
            if found == SCHEMA_VERSION:
                return
            MIGRATIONS[found](connection, backend.types)
            version = sa.update(meta_table).where(meta_table.c.key == "schema_version")
            connection.execute(version.values(value=found + 1))


def _version(backend: Backend, connection: Connection) -> int:
    """The version that the tables are of; 0 for none."""
    tables = sa.inspect(connection).get_table_names()
    if "meta" in tables:
        return int(connection.scalar(_VERSION) or 0)
    if tables:
        raise StoreUnavailable(f"{backend.name} is another program's database: name another one")
    return 0
