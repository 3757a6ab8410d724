"""The tables of the example store, and examples as their rows."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from index.example import Example, Label

SCHEMA_VERSION = 1

metadata = sa.MetaData()
meta_table = sa.Table(
    "meta", metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.BigInteger, nullable=False)
)
examples_table = sa.Table(
    "examples",
    metadata,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("content_hash", sa.Text, nullable=False, unique=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("technique", sa.Text),
    sa.Column("capabilities", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
vectors_table = sa.Table(
    "vectors",
    metadata,
    sa.Column("encoder", sa.Text, primary_key=True),
    sa.Column("example_id", sa.Text, sa.ForeignKey("examples.id"), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)
requests_table = sa.Table(
    "requests",
    metadata,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)


def as_row(example: Example) -> dict[str, object]:
    """An example as the row that is stored."""
    return {
        "id": example.id,
        "content_hash": example.content_hash,
        "text": example.text,
        "label": example.label.value,
        "technique": example.technique,
        "capabilities": capabilities_text(example.capabilities),
        "language": example.language,
        "source": example.source,
        "author": example.author,
        "note": example.note,
        "created": example.created.astimezone(UTC).isoformat(),
        "revision": example.revision,
    }


def as_example(row: Sequence[Any]) -> Example:
    """A row with all columns of the examples' table as an example."""
    # In the columns' order: thousands are read at every start, and asking a row by name is slow.
    _, _, _, text, label, technique, capabilities, language, source, author, note, created, revision = row
    return Example(
        text,
        Label(label),
        technique,
        _capabilities(capabilities),
        language,
        source,
        author,
        note,
        datetime.fromisoformat(created),
        revision,
    )


@lru_cache(1_024)
def capabilities_text(capabilities: tuple[str, ...]) -> str:
    """An example's capabilities as they are stored."""
    return json.dumps(capabilities)


@lru_cache(1_024)
def _capabilities(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
