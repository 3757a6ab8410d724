"""The tables of the example store as they are now, and their rows as the room's own types.

An example's text and provenance are written once. What may change (state and labels) stands beside them as it is now, so
that a start reads one table; `changes`, to which rows are only ever appended, holds what it was at every revision.
`index.migrations` makes the tables.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from index.change import Action, Change, Choice, Decision
from index.example import Example, Label, State

_MARK = "\x1a"
"""Begins an escape where a text cannot be stored as it is; a substitute character, so ordinary texts stay readable."""


class _Escaped(sa.TypeDecorator[str]):
    """Text for a database that has no U+0000; an id that somebody asks for may hold it, too."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # SQLAlchemy's
        if value is None or not (_MARK in value or "\0" in value):
            return value
        return value.replace(_MARK, f"{_MARK}1").replace("\0", f"{_MARK}0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # SQLAlchemy's
        if value is None or _MARK not in value:
            return value
        return value.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK)


_TEXT = sa.Text().with_variant(_Escaped(), "postgresql")
_METADATA = sa.MetaData()

meta_table = sa.Table(
    "meta", _METADATA, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.BigInteger, nullable=False)
)
examples_table = sa.Table(
    "examples",
    _METADATA,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", _TEXT, nullable=False, unique=True),
    sa.Column("content_hash", sa.Text, nullable=False, unique=True),
    sa.Column("text", _TEXT, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("technique", sa.Text),
    sa.Column("capabilities", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("source", _TEXT, nullable=False),
    sa.Column("author", _TEXT, nullable=False),
    sa.Column("note", _TEXT, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("licence", _TEXT, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("last_change", sa.BigInteger, nullable=False),
    sa.Column("by_hand", sa.Boolean, nullable=False),
)
"""by_hand: somebody changed the example since it was added, so that replacing its source leaves it as it is."""
changes_table = sa.Table(
    "changes",
    _METADATA,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("example_id", _TEXT, sa.ForeignKey("examples.id"), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("technique", sa.Text),
    sa.Column("capabilities", sa.Text, nullable=False),
    sa.Column("actor", _TEXT, nullable=False),
    sa.Column("reason", _TEXT, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("request_id", _TEXT, nullable=False),
    sa.Column("replacement", sa.Text, nullable=False),
)
vectors_table = sa.Table(
    "vectors",
    _METADATA,
    sa.Column("encoder", _TEXT, primary_key=True),
    sa.Column("example_id", _TEXT, sa.ForeignKey("examples.id"), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)
requests_table = sa.Table(
    "requests",
    _METADATA,
    sa.Column("request_id", _TEXT, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
decisions_table = sa.Table(
    "decisions",
    _METADATA,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("content_hash", _TEXT, nullable=False),
    sa.Column("choice", sa.Text, nullable=False),
    sa.Column("actor", _TEXT, nullable=False),
    sa.Column("reason", _TEXT, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("example_id", sa.Text, nullable=False),
)
_LABELS = {label.value: label for label in Label}
_STATES = {state.value: state for state in State}
TABLES = tuple(_METADATA.sorted_tables)
_CHANGING = ("label", "technique", "capabilities", "state")
_READ = (
    *("text", "label", "technique", "capabilities", "language", "source", "author", "note", "created", "revision"),
    *("licence", "state", "changed"),
)
EXAMPLE_COLUMNS = tuple(examples_table.c[name] for name in _READ)
"""What `as_example` reads, in its order."""
EXAMPLE_COLUMNS_AS_OF = tuple(
    changes_table.c.revision.label("changed")
    if name == "changed"
    else (changes_table if name in _CHANGING else examples_table).c[name]
    for name in _READ
)
"""The same of an example joined with one of its changes."""


def as_row(example: Example) -> dict[str, object]:
    """A stored example's fields as the row that is stored."""
    return {
        "id": example.id,
        "content_hash": example.content_hash,
        "text": example.text,
        "language": example.language,
        "source": example.source,
        "author": example.author,
        "note": example.note,
        "created": instant_text(example.created),
        "revision": example.revision,
        "licence": example.licence,
        "changed": example.changed,
        **standing_row(example),
    }


def standing_row(example: Example) -> dict[str, object]:
    """What may change of an example, as its row and those of its changes hold it."""
    return {
        "label": example.label.value,
        "technique": example.technique,
        "capabilities": _capabilities_text(example.capabilities),
        "state": example.state.value,
    }


def as_example(row: Sequence[Any]) -> Example:
    """A row with the example columns, now or as of a revision, as an example; what follows them is left out."""
    # In the columns' order, and enumerations by a table: thousands are read at every start.
    text, label, technique, capabilities, language, source, author, note, created, revision, *rest = row
    licence, state, changed = rest[:3]
    return Example(
        text,
        _LABELS[label],
        technique,
        _capabilities(capabilities),
        language,
        source,
        author,
        note,
        datetime.fromisoformat(created),
        revision,
        licence,
        _STATES[state],
        changed,
    )


def as_change(row: Sequence[Any]) -> Change:
    """A row with all columns of the changes' table as a change."""
    number, revision, example_id, action, state, label, technique, capabilities, actor, reason, at, request, new = row
    return Change(
        number,
        revision,
        example_id,
        Action(action),
        State(state),
        Label(label),
        technique,
        _capabilities(capabilities),
        actor,
        reason,
        datetime.fromisoformat(at),
        request,
        new,
    )


def decision_row(decision: Decision) -> dict[str, object]:
    """A decision as the row that is stored, without its number."""
    return {
        "content_hash": decision.content_hash,
        "choice": decision.choice.value,
        "actor": decision.actor,
        "reason": decision.reason,
        "at": instant_text(decision.at),
        "example_id": decision.example_id,
    }


def as_decision(row: Sequence[Any]) -> Decision:
    """A row with all columns of the decisions' table as a decision."""
    _, content_hash, choice, actor, reason, at, example_id = row
    return Decision(content_hash, Choice(choice), actor, reason, datetime.fromisoformat(at), example_id)


def instant_text(instant: datetime) -> str:
    """An instant as it is stored."""
    return instant.astimezone(UTC).isoformat()


@lru_cache(1_024)
def _capabilities_text(capabilities: tuple[str, ...]) -> str:
    return json.dumps(capabilities)


@lru_cache(1_024)
def _capabilities(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
