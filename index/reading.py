"""The half of the example store that only reads; each method sees one revision."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from index.backend import Backend, guarded
from index.change import Change, Decision
from index.contract import Filter
from index.errors import InvalidPageToken
from index.example import Example, State
from index.queries import by_id, chunks, last_revision, not_found, select_examples, standing
from index.schema import (
    as_change,
    as_decision,
    as_example,
    changes_table,
    decisions_table,
    examples_table,
    vectors_table,
)

MAX_PAGE = 1_000
MAX_PAGE_BYTES = 3 * 2**20
"""Of UTF-8 text; with one example more a page still fits the 4 MiB that gRPC clients take by default."""
_ANY = Filter()
_SINCE = (
    select_examples()
    .where(examples_table.c.changed > sa.bindparam("revision"))
    .order_by(examples_table.c.changed, examples_table.c.last_change)
)
_ROW_BYTES = 64
"""Of an example's numbers, and of what its fields take besides their text."""


class StoreReader:
    """Reads a store whose tables are there."""

    def __init__(self, backend: Backend) -> None:
        """Read on this database."""
        self._backend = backend

    def close(self) -> None:
        """Close every connection."""
        self._backend.engine.dispose()

    def revision(self) -> int:
        """The number of the last write; 0 for an empty store."""
        with self._reading() as connection:
            return last_revision(connection)

    def get(self, example_id: str) -> Example:
        """Return one example, in whatever state; ExampleNotFound."""
        with self._reading() as connection:
            found = by_id(connection, [example_id])
        if example_id not in found:
            raise not_found(example_id)
        return found[example_id]

    def page(self, size: int, token: str = "", wanted: Filter = _ANY) -> tuple[list[Example], str]:
        """A page of examples, oldest first, and the token of the next page.

        Args:
            size: How many examples at most, 1 to 1000; a page ends sooner when it would hold over MAX_PAGE_BYTES.
            token: The last page's token, "" for the first page.
            wanted: Which examples.

        Returns:
            The examples, and the next page's token ("" on the last page).

        Raises:
            InvalidPageToken: When the token is not one that this store gave.
        """
        if token and not (token.isascii() and token.isdigit() and len(token) < 19):
            raise InvalidPageToken("page_token is not one that this store gave: start again without one")
        position = examples_table.c.position
        query = _filtered(wanted).add_columns(position).where(position > int(token or 0)).order_by(position)
        size = max(1, min(size, MAX_PAGE))
        rows: list[sa.Row[Any]] = []
        held = 0
        with self._reading() as connection:
            for row in connection.execute(query.limit(size + 1)):
                held += _bytes_of(row)
                if rows and (len(rows) == size or held > MAX_PAGE_BYTES):
                    return [as_example(row) for row in rows], str(rows[-1].position)
                rows.append(row)
        return [as_example(row) for row in rows], ""

    def history(self, example_id: str) -> list[Change]:
        """Every change of one example, oldest first; ExampleNotFound."""
        query = (
            sa.select(changes_table).where(changes_table.c.example_id == example_id).order_by(changes_table.c.number)
        )
        with self._reading() as connection:
            found = [as_change(row) for row in connection.execute(query)]
        if not found:
            raise not_found(example_id)
        return found

    def changes(self, after: int, size: int) -> list[Change]:
        """At most so many changes (1 to 1000) whose number is over `after`, oldest first."""
        number = changes_table.c.number
        query = sa.select(changes_table).where(number > after).order_by(number).limit(max(1, min(size, MAX_PAGE)))
        with self._reading() as connection:
            return [as_change(row) for row in connection.execute(query)]

    def since(self, revision: int) -> list[Example]:
        """Every example that changed after a revision, as it is now, in the order of change.

        Args:
            revision: 0 for every example that is not revoked.

        Returns:
            The examples, in whatever state.
        """
        query = _SINCE if revision > 0 else _SINCE.where(examples_table.c.state != State.REVOKED.value)
        with self._reading() as connection:
            return [as_example(row) for row in connection.execute(query, {"revision": revision})]

    def at_revision(self, revision: int) -> list[Example]:
        """The examples that were active at a revision, as they were, oldest first."""
        query = _filtered(Filter(state=State.ACTIVE, as_of=revision)).order_by(examples_table.c.position)
        with self._reading() as connection:
            return [as_example(row) for row in connection.execute(query)]

    def vectors(self, encoder: str, *, since: int = 0) -> dict[str, NDArray[np.float32]]:
        """The embeddings kept for an encoder.

        Args:
            encoder: The encoder's fingerprint.
            since: Only of examples that changed after this revision.

        Returns:
            (d,) float32 unit vectors by example id.
        """
        query = sa.select(vectors_table.c.example_id, vectors_table.c.vector).where(vectors_table.c.encoder == encoder)
        if since > 0:  # by both indexes; a join would read every vector
            changed = sa.select(examples_table.c.id).where(examples_table.c.changed > since)
            query = query.where(vectors_table.c.example_id.in_(changed))
        with self._reading() as connection:
            return {name: np.frombuffer(vector, dtype="<f4") for name, vector in connection.execute(query)}

    def unembedded(self, encoder: str) -> set[str]:
        """The ids of the examples that are not revoked and of which no embedding is kept for an encoder."""
        query = (
            sa.select(examples_table.c.id)
            .where(examples_table.c.state != State.REVOKED.value)
            .except_(sa.select(vectors_table.c.example_id).where(vectors_table.c.encoder == encoder))
        )
        with self._reading() as connection:
            return set(connection.scalars(query))

    def decided(self, hashes: Collection[str]) -> dict[str, Decision]:
        """The decisions on prompts, by content hash."""
        found: dict[str, Decision] = {}
        by_hash = sa.select(decisions_table).order_by(decisions_table.c.number)
        with self._reading() as connection:
            for some in chunks(list(hashes)):
                rows = connection.execute(by_hash.where(decisions_table.c.content_hash.in_(some)))
                found.update((decision.content_hash, decision) for decision in map(as_decision, rows))
        return found

    def _reading(self) -> AbstractContextManager[Connection]:
        return guarded(self._backend, self._backend.reading())


def _filtered(wanted: Filter) -> sa.Select[tuple[object, ...]]:
    query = select_examples(wanted.as_of)
    now = standing(wanted.as_of).c
    if wanted.label is not None:
        query = query.where(now.label == wanted.label.value)
    if wanted.state is not None:
        query = query.where(now.state == wanted.state.value)
    if wanted.source:
        query = query.where(examples_table.c.source == wanted.source)
    return query


def _bytes_of(row: sa.Row[Any]) -> int:
    return _ROW_BYTES + sum(len(value.encode()) for value in row if isinstance(value, str))
