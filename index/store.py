"""The example store on SQLite: durable before it is acknowledged, with a revision counter."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from index.errors import ExampleConflict, ExampleNotFound, InvalidExample, InvalidPageToken, StoreUnavailable
from index.example import Example, Label, example_id
from index.schema import (
    SCHEMA_VERSION,
    as_example,
    as_row,
    capabilities_text,
    examples_table,
    meta_table,
    metadata,
    requests_table,
    vectors_table,
)

MAX_PAGE = 1_000
MAX_PAGE_BYTES = 3 * 2**20
"""Of UTF-8 text; with one example more a page still fits the 4 MiB that gRPC clients take by default."""
_PATIENCE = 10.0
"""Seconds that a writer waits for another one."""
_RETRY = 0.02
_CHUNK = 500
_ROW_BYTES = 64
"""Of an example's numbers, and of what its fields take besides their text."""
_LABELLED = tuple(examples_table.c[name] for name in ("content_hash", "label", "technique", "capabilities"))
_SURROGATE = "a field holds an unpaired surrogate: give valid Unicode"


class ExampleStore(Protocol):
    """The source of truth for labelled examples. Every method is safe to call from any thread."""

    def revision(self) -> int:
        """The number of the last write; 0 for an empty store."""

    def add(self, examples: Sequence[Example], request_id: str | None = None) -> list[Example]:
        """Store all of the examples or none, durably, and return them as they are stored."""

    def replace_source(self, source: str, examples: Sequence[Example]) -> None:
        """Make the examples of a source exactly these, in one transaction."""

    def get(self, example_id: str) -> Example:
        """Return one example."""

    def page(
        self, size: int, token: str = "", label: Label | None = None, source: str = ""
    ) -> tuple[list[Example], str]:
        """A page of examples, oldest first, of bounded bytes, and the token of the next page ("" on the last)."""

    def since(self, revision: int) -> list[Example]:
        """Every example that came after a revision, oldest first."""

    def vectors(self, encoder: str, *, since: int = 0) -> dict[str, NDArray[np.float32]]:
        """The embeddings kept for an encoder of examples that came after a revision, by example id."""

    def unembedded(self, encoder: str) -> set[str]:
        """The ids of the examples of which no embedding is kept for an encoder."""

    def keep_vectors(self, encoder: str, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Keep embeddings, so that a restart need not encode the examples again."""


class SqliteStore:
    """The embedded store: SQLite in WAL mode, synced on every commit."""

    def __init__(self, path: Path) -> None:
        """Open the store, making it when it is not there.

        Args:
            path: The database file. Its folder must exist.

        Raises:
            StoreUnavailable: When the file cannot be opened, is no store, or was written by a newer version.
        """
        self._path = path
        _refuse_foreign(path)
        url = sa.URL.create("sqlite", database=str(path))
        self._engine = sa.create_engine(url, connect_args={"timeout": _PATIENCE})
        sa.event.listen(self._engine, "connect", _configure)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """Make the tables, or see that they are of this version."""
        with self._write() as connection:
            metadata.create_all(connection)
            found = connection.scalar(sa.select(meta_table.c.value).where(meta_table.c.key == "schema_version"))
            if found is None:
                connection.execute(
                    sa.insert(meta_table),
                    [{"key": "schema_version", "value": SCHEMA_VERSION}, {"key": "revision", "value": 0}],
                )
            elif found != SCHEMA_VERSION:
                raise StoreUnavailable(
                    f"{self._path.name} has schema version {found}; this Stillwatch reads {SCHEMA_VERSION}: use a newer one"
                )

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def revision(self) -> int:
        """The number of the last write; 0 for an empty store."""
        with self._read() as connection:
            return _revision(connection)

    def add(self, examples: Sequence[Example], request_id: str | None = None) -> list[Example]:
        """Store all of the examples or none, durably, and return them as they are stored.

        A text that is stored already with the same labels is returned as it is. A request id that was used before
        returns what that request stored.

        Args:
            examples: What to store.
            request_id: The writer's own name for this write.

        Returns:
            The stored examples, in the order given.

        Raises:
            ExampleConflict: When a text is stored already with other labels; nothing is stored.
            InvalidExample: When the request id was used for other examples; nothing is stored.
            StoreUnavailable: When the store cannot be written; nothing is stored.
        """
        content = " ".join(example.content_hash for example in examples)
        with self._write() as connection:
            if request_id is not None:
                used = connection.execute(
                    sa.select(requests_table).where(requests_table.c.request_id == request_id)
                ).first()
                if used is not None and used.content != content:
                    raise InvalidExample("request_id was used for other examples: give this write an id of its own")
            known = _by_hash(connection, [example.content_hash for example in examples])
            revision = _revision(connection) + 1
            stored: list[Example] = []
            fresh: list[Example] = []
            for example in examples:
                held = known.get(example.content_hash)
                if held is None:
                    held = known[example.content_hash] = example.at_revision(revision)
                    fresh.append(held)
                elif not held.same_labels(example):
                    raise ExampleConflict(f"{held.id} holds this text with other labels: relabel or leave it out")
                stored.append(held)
            if fresh:
                connection.execute(sa.insert(examples_table), [as_row(example) for example in fresh])
                connection.execute(sa.update(meta_table).where(meta_table.c.key == "revision").values(value=revision))
            if request_id is not None and used is None:
                connection.execute(
                    sa.insert(requests_table),
                    {"request_id": request_id, "content": content, "revision": revision if fresh else revision - 1},
                )
        return stored

    def replace_source(self, source: str, examples: Sequence[Example]) -> None:
        """Make the examples of a source exactly these, in one transaction; nothing happens when they are.

        A text that is stored from another source, with whatever labels, keeps them.

        Args:
            source: The source.
            examples: All that it shall hold.
        """
        wanted = {example.content_hash: example for example in examples}
        with self._write() as connection:
            query = sa.select(*_LABELLED).where(examples_table.c.source == source)
            held = {name: labels for name, *labels in connection.execute(query)}
            kept = {name for name, labels in held.items() if name in wanted and labels == _labels(wanted[name])}
            stale = [example_id(name) for name in held if name not in kept]
            taken = _by_hash(connection, [name for name in wanted if name not in held]).keys()
            revision = _revision(connection) + 1
            fresh = [e.at_revision(revision) for key, e in wanted.items() if key not in kept and key not in taken]
            for start in range(0, len(stale), _CHUNK):
                some = stale[start : start + _CHUNK]
                connection.execute(sa.delete(vectors_table).where(vectors_table.c.example_id.in_(some)))
                connection.execute(sa.delete(examples_table).where(examples_table.c.id.in_(some)))
            if fresh:
                connection.execute(sa.insert(examples_table), [as_row(example) for example in fresh])
            if fresh or stale:
                connection.execute(sa.update(meta_table).where(meta_table.c.key == "revision").values(value=revision))

    def get(self, example_id: str) -> Example:
        """Return one example.

        Args:
            example_id: The example's id.

        Returns:
            The example.

        Raises:
            ExampleNotFound: When no example has the id.
        """
        with self._read() as connection:
            row = connection.execute(sa.select(examples_table).where(examples_table.c.id == example_id)).first()
        if row is None:
            raise ExampleNotFound("no example has this id: list the examples to find it")
        return as_example(row)

    def page(
        self, size: int, token: str = "", label: Label | None = None, source: str = ""
    ) -> tuple[list[Example], str]:
        """A page of examples, oldest first, and the token of the next page.

        Args:
            size: How many examples at most, 1 to 1000; a page ends sooner when it would hold over MAX_PAGE_BYTES.
            token: The last page's token, "" for the first page.
            label: Only examples of this label.
            source: Only examples of this source.

        Returns:
            The examples, and the next page's token ("" on the last page).

        Raises:
            InvalidPageToken: When the token is not one that this store gave.
        """
        if token and not (token.isascii() and token.isdigit() and len(token) < 19):
            raise InvalidPageToken("page_token is not one that this store gave: start again without one")
        query = (
            sa.select(examples_table)
            .where(examples_table.c.position > int(token or 0))
            .order_by(examples_table.c.position)
        )
        if label is not None:
            query = query.where(examples_table.c.label == label.value)
        if source:
            query = query.where(examples_table.c.source == source)
        size = max(1, min(size, MAX_PAGE))
        rows: list[sa.Row[Any]] = []
        held = 0
        with self._read() as connection:
            for row in connection.execute(query.limit(size + 1)):
                held += _bytes_of(row)
                if rows and (len(rows) == size or held > MAX_PAGE_BYTES):
                    return [as_example(row) for row in rows], str(rows[-1].position)
                rows.append(row)
        return [as_example(row) for row in rows], ""

    def since(self, revision: int) -> list[Example]:
        """Every example that came after a revision.

        Args:
            revision: 0 for every example.

        Returns:
            The examples, oldest first.
        """
        query = (
            sa.select(examples_table).where(examples_table.c.revision > revision).order_by(examples_table.c.position)
        )
        with self._read() as connection:
            return [as_example(row) for row in connection.execute(query)]

    def vectors(self, encoder: str, *, since: int = 0) -> dict[str, NDArray[np.float32]]:
        """The embeddings kept for an encoder.

        Args:
            encoder: The encoder's fingerprint.
            since: Only of examples that came after this revision.

        Returns:
            (d,) float32 unit vectors by example id.
        """
        query = (
            sa.select(vectors_table.c.example_id, vectors_table.c.vector)
            .join(examples_table, examples_table.c.id == vectors_table.c.example_id)
            .where(vectors_table.c.encoder == encoder, examples_table.c.revision > since)
        )
        with self._read() as connection:
            return {name: np.frombuffer(vector, dtype="<f4") for name, vector in connection.execute(query)}

    def unembedded(self, encoder: str) -> set[str]:
        """The ids of the examples of which no embedding is kept for an encoder.

        Args:
            encoder: The encoder's fingerprint.

        Returns:
            Their ids.
        """
        query = sa.select(examples_table.c.id).except_(
            sa.select(vectors_table.c.example_id).where(vectors_table.c.encoder == encoder)
        )
        with self._read() as connection:
            return set(connection.scalars(query))

    def keep_vectors(self, encoder: str, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Keep embeddings, so that a restart need not encode the examples again.

        Args:
            encoder: The encoder's fingerprint.
            vectors: (d,) float32 unit vectors by example id.
        """
        if not vectors:
            return
        rows = [
            {"encoder": encoder, "example_id": name, "vector": vector.astype("<f4").tobytes()}
            for name, vector in vectors.items()
        ]
        with self._write() as connection:
            connection.execute(sa.insert(vectors_table).prefix_with("OR REPLACE"), rows)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
        except sa.exc.DBAPIError as error:
            raise self._unavailable(error) from None
        except UnicodeEncodeError:
            raise InvalidExample(_SURROGATE) from None

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise self._unavailable(error) from None
        except UnicodeEncodeError:
            raise InvalidExample(_SURROGATE) from None

    def _unavailable(self, error: sa.exc.DBAPIError) -> StoreUnavailable:
        # The driver's own words ("database or disk is full"), never SQLAlchemy's, which quote the parameters.
        return StoreUnavailable(f"the example store {self._path.name} cannot be used: {error.orig}")


def _refuse_foreign(path: Path) -> None:
    """Leave another program's database as it is."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the example store {path.name} cannot be used: {error}") from None
    if names and "meta" not in names:
        raise StoreUnavailable(f"{path.name} is another program's database: name another file")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the store begins and ends its transactions by itself
    deadline = time.monotonic() + _PATIENCE
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


def _labels(example: Example) -> list[object]:
    """An example's labels as its row holds them."""
    return [example.label.value, example.technique, capabilities_text(example.capabilities)]


def _bytes_of(row: sa.Row[Any]) -> int:
    return _ROW_BYTES + sum(len(value.encode()) for value in row if isinstance(value, str))


def _revision(connection: Connection) -> int:
    return int(connection.scalar(sa.select(meta_table.c.value).where(meta_table.c.key == "revision")) or 0)


def _by_hash(connection: Connection, hashes: Sequence[str]) -> dict[str, Example]:
    found: dict[str, Example] = {}
    for start in range(0, len(hashes), _CHUNK):
        query = sa.select(examples_table).where(examples_table.c.content_hash.in_(hashes[start : start + _CHUNK]))
        found.update((row.content_hash, as_example(row)) for row in connection.execute(query))
    return found
