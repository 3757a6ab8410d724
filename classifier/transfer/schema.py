"""The interchange row: its columns, and the way from an example to a row and back. docs/interchange.md describes it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from classifier.corpus import SOURCE as SEED_SOURCE
from index.errors import InvalidExample
from index.example import Example, State, content_hash, example_id, is_unicode

SCHEMA_VERSION = 1
SEPARATOR = ";"
"""Between the capabilities of a cell of CSV; no name of a capability holds it."""
_MOST_NUMBER = 2**63 - 1
_NUMBER = re.compile(r"[0-9]{1,19}")


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    NAMES = "names"
    NUMBER = "number"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the interchange row.

    Attributes:
        name: Its name.
        kind: What it holds.
        needed: Whether every row must have it.
    """

    name: str
    kind: Kind
    needed: bool = False


VERSION = "stillwatch_schema"
COLUMNS = (
    Column(VERSION, Kind.NUMBER),
    Column("text", Kind.TEXT, needed=True),
    Column("label", Kind.TEXT, needed=True),
    Column("technique", Kind.TEXT),
    Column("capabilities", Kind.NAMES),
    Column("language", Kind.TEXT),
    Column("source", Kind.TEXT),
    Column("author", Kind.TEXT),
    Column("note", Kind.TEXT),
    Column("licence", Kind.TEXT),
    Column("state", Kind.TEXT),
    Column("id", Kind.TEXT),
    Column("content_hash", Kind.TEXT),
    Column("created", Kind.TIME),
    Column("revision", Kind.NUMBER),
    Column("changed", Kind.NUMBER),
)
NAMES = tuple(column.name for column in COLUMNS)
NEEDED = tuple(column.name for column in COLUMNS if column.needed)


class Reason(StrEnum):
    """Why a row that could be read is no example, or not stored; the reader has reasons of its own."""

    MISSING_FIELD = "missing_field"
    """A column that every row needs is not there, or empty."""
    WRONG_TYPE = "wrong_type"
    """A column holds another type than its own."""
    UNKNOWN_SCHEMA = "unknown_schema"
    """The row is of another version of the schema."""
    OTHER_TEXT = "other_text"
    """The row's id or content hash belongs to another text than the row's."""
    INVALID_EXAMPLE = "invalid_example"
    """A column holds a value that is not allowed."""
    REVOKED = "revoked"
    """The row shows an example that was taken back."""
    RESERVED_SOURCE = "reserved_source"
    """The row's source is that of the bundle's own examples."""
    CONFLICT = "conflict"
    """The store holds the text with other labels, or as one that was taken back."""
    TOO_LARGE = "too_large"
    """The row alone is over the server's limits."""


class RowRefused(Exception):
    """Says why a row is no example; it is made a Rejection and never leaves the room.

    Attributes:
        reason: What is wrong.
        detail: How to mend it; never the row's text.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        """Hold reason and detail."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Choices:
    """What the importer decides about rows.

    Attributes:
        source: The source of rows that name none; "" takes `file` for rows without a schema version.
        file: The file's name. Rows that state their schema were exported, and an empty source of theirs stays empty.
        state: The state of every row, whatever it says; None takes its own, or active.
        licence: The licence of rows that name none.
    """

    source: str = ""
    file: str = ""
    state: State | None = None
    licence: str = ""


AS_WRITTEN = Choices()


def row_of(example: Example) -> dict[str, object]:
    """An example as a row.

    Args:
        example: The example.

    Returns:
        Its columns in the order of COLUMNS: str, int, list of str, datetime or None.
    """
    return {
        VERSION: SCHEMA_VERSION,
        **{name: getattr(example, name) for name in NAMES[1:]},
        "label": example.label.value,
        "capabilities": list(example.capabilities),
        "state": example.state.value,
        "created": example.created.astimezone(UTC),
    }


def example_of(row: Mapping[str, object], choices: Choices = AS_WRITTEN) -> Example:
    """A row as an example.

    Args:
        row: Columns by name, as row_of gives them; a time may be text of RFC 3339. Others are passed over; None and
            a column that is not there are the same.
        choices: What the importer decides.

    Returns:
        The checked example, with the row's own time and revisions.

    Raises:
        RowRefused: When the row is no example that may be imported.
    """
    given = {column.name: _checked(column, row.get(column.name)) for column in COLUMNS}
    version = given[VERSION]
    if version not in (None, SCHEMA_VERSION):
        raise RowRefused(
            Reason.UNKNOWN_SCHEMA, f"{VERSION} must be {SCHEMA_VERSION}: import it with the Stillwatch that wrote it"
        )
    text = given["text"]
    if not text or not given["label"]:
        missing = "label" if text else "text"
        raise RowRefused(Reason.MISSING_FIELD, f"{missing} is missing: every row needs text and label")
    _check_identity(text, given)
    source = given["source"] or choices.source or (choices.file if version is None else "")
    if source == SEED_SOURCE:
        raise RowRefused(
            Reason.RESERVED_SOURCE, f'source "{SEED_SOURCE}" is kept for the bundle\'s own examples: name another one'
        )
    fields: dict[str, Any] = {name: given[name] or "" for name in ("label", "technique", "language", "author", "note")}
    times = {name: given[name] for name in ("created", "revision", "changed") if given[name] is not None}
    try:
        return Example(
            text=text,
            source=source,
            licence=given["licence"] or choices.licence,
            capabilities=given["capabilities"] or (),
            state=choices.state or _state(given["state"]),
            **fields,
            **times,
        )
    except InvalidExample as error:
        raise RowRefused(Reason.INVALID_EXAMPLE, str(error)) from None


def _checked(column: Column, value: object) -> Any:
    """A column's value, None for an empty one."""
    if value is None:
        return None
    match column.kind:
        case Kind.TEXT if isinstance(value, str):
            return value
        case Kind.NAMES if isinstance(value, list) and all(isinstance(name, str) for name in value):
            return tuple(value)
        case Kind.NUMBER if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_NUMBER:
            return value
        case Kind.TIME:
            return _time(value)
    wanted = {
        Kind.TEXT: "must be text",
        Kind.NAMES: "must be a list of names",
        Kind.NUMBER: "must be a whole number that is not negative",
    }
    raise RowRefused(Reason.WRONG_TYPE, f"{column.name} {wanted[column.kind]}: see docs/interchange.md")


def _time(value: object) -> datetime:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(found, datetime) and found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise RowRefused(Reason.WRONG_TYPE, "created must be a time with its zone, such as 2026-01-31T09:30:00+00:00")


def _check_identity(text: str, given: Mapping[str, Any]) -> None:
    if not is_unicode(text):
        raise RowRefused(Reason.INVALID_EXAMPLE, "text holds an unpaired surrogate: give valid Unicode")
    own = content_hash(text)
    for name, wanted in (("id", example_id(own)), ("content_hash", own)):
        if given[name] and given[name] != wanted:
            raise RowRefused(
                Reason.OTHER_TEXT, f"{name} belongs to another text: leave {name} out if the text was changed"
            )


def _state(given: object) -> State:
    if given == State.REVOKED:
        raise RowRefused(
            Reason.REVOKED,
            "the example was taken back where it was exported: leave the row out, or give it another state",
        )
    if given and given not in frozenset(State):
        raise RowRefused(Reason.INVALID_EXAMPLE, 'state must be "pending" or "active"')
    return State(str(given)) if given else State.ACTIVE


def row_of_cells(cells: Mapping[str, str | None]) -> dict[str, object]:
    """A record of CSV as a row.

    Args:
        cells: The cells by column; None for an empty one.

    Returns:
        The columns, typed as far as the cells allow it: what is left a text is refused by example_of.
    """
    row: dict[str, object] = dict(cells)
    for column in COLUMNS:
        cell = cells.get(column.name)
        if cell is None:
            continue
        if column.kind is Kind.NUMBER and _NUMBER.fullmatch(cell):
            row[column.name] = int(cell)
        elif column.kind is Kind.NAMES:
            row[column.name] = [name.strip() for name in cell.split(SEPARATOR) if name.strip()]
    return row


def cells_of(row: Mapping[str, object]) -> list[str]:
    """A row as a record of CSV.

    Args:
        row: What row_of gave.

    Returns:
        The cells in the order of COLUMNS.
    """
    return [_cell(row[name]) for name in NAMES]


def _cell(value: object) -> str:
    if isinstance(value, list):
        return SEPARATOR.join(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else str(value)
