"""What the example store asks of a database; everything else it says in SQLAlchemy's own words."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from index.errors import InvalidExample, StoreUnavailable

PATIENCE = 10.0
"""Seconds that a writer waits for another one, and anybody for a connection."""

Upsert = sqlite.Insert | postgresql.Insert


@dataclass(frozen=True, slots=True)
class Types:
    """A database's names of the types that not all call alike.

    Attributes:
        number: Of a primary key that is counted.
        blob: Of binary values.
    """

    number: str
    blob: str


class Backend(Protocol):
    """A database that can hold an example store.

    Attributes:
        name: What messages call it; holds no password.
        engine: Its connections.
        types: Its names of types.
    """

    name: str
    engine: sa.Engine
    types: Types

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection on which every statement sees the same revision."""

    def writing(self) -> AbstractContextManager[Connection]:
        """A connection in a transaction that no other writer can overtake: revisions are committed in their order."""

    def migrating(self) -> AbstractContextManager[Connection]:
        """A connection in a transaction that may make tables, while nobody else does."""

    def upsert(self, table: sa.Table) -> Upsert:
        """An insertion that may say what to do when the row is there."""


@contextmanager
def guarded(backend: Backend, opened: AbstractContextManager[Connection]) -> Iterator[Connection]:
    """Whatever the database or its driver refuses, in this room's errors.

    Args:
        backend: Whose.
        opened: One of its connections, not yet opened.

    Yields:
        The connection.

    Raises:
        InvalidExample: When a text is no Unicode.
        StoreUnavailable: When the database cannot be used.
    """
    try:
        with opened as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        raise unavailable(backend.name, words_of(error)) from None
    except sa.exc.TimeoutError:
        raise unavailable(backend.name, f"no connection was free for {PATIENCE:.0f} seconds") from None
    except UnicodeEncodeError:
        raise InvalidExample("a field holds an unpaired surrogate: give valid Unicode") from None


def unavailable(name: str, words: str) -> StoreUnavailable:
    """The error of a store that cannot be used, and why."""
    return StoreUnavailable(f"the example store {name} cannot be used: {words}")


def words_of(error: sa.exc.DBAPIError) -> str:
    """The database's own words ("database or disk is full"), never those that quote a row or the parameters."""
    diagnosis = getattr(error.orig, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    return str(primary or str(error.orig).strip().partition("\n")[0])
