"""Streams a source's rows as records and rejects, each with the position from which the rest can be read."""

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from classifier.batch.columns import parquet_rows
from classifier.batch.delimited import Content, RawRow, csv_rows, json_rows
from classifier.batch.inputs import Source
from classifier.batch.payloads import Taken
from classifier.batch.reasons import Reason, RowFault
from classifier.batch.record import Place, Record, Reject
from classifier.batch.shapes import DETECTED_ROWS, Shape
from classifier.errors import EmptyPrompt, NotUnicode, PromptTooLong
from classifier.text import canonical
from index.example import is_unicode

_VISIBLE = re.compile(r"[!-~]")
_MOST_GROWTH = 17
"""How many characters NFKC adds to one at most."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next row begins.

    Attributes:
        row: Its number.
        offset: Its byte after decompression; 0 begins the file; -1 in Parquet, where the row alone tells.
        item: Which of the row's requests is next; not 0 only within a line of OpenTelemetry that holds many.
    """

    row: int = 0
    offset: int = 0
    item: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a row may have at most, and what ends the reading within one.

    Attributes:
        line_bytes: Bytes of a line of JSON, a record of CSV, or a row of Parquet in the columns that are needed.
        prompt_chars: Characters of a prompt, as the scorer's own limit.
        stop: When it is set, reading raises Stopped.
    """

    line_bytes: int = 16 * 2**20
    prompt_chars: int = 100_000
    stop: threading.Event | None = None


START = Position()
DEFAULTS = Limits()


def read(
    source: Source, shape: Shape, *, start: Position = START, limits: Limits = DEFAULTS
) -> Iterator[tuple[Record | Reject, Position]]:
    """Stream a source's rows.

    Every row gives at least one record or reject, in the file's order; blank lines are no rows. A record's prompt is
    one that a scorer with the same limit takes.

    Args:
        source: The file.
        shape: How its rows become requests.
        start: A position that an earlier reading of the same file gave; whatever the shape and limits, the rest follows.
        limits: What a row may have at most.

    Yields:
        What was read, and where the next begins.

    Raises:
        DataRejected: When the file cannot be read: a missing file, a failing disk or network. Damage is a reject.
        MissingExtra: When a package of the extra is not installed.
    """
    for row, offset, after, content in _rows(source, shape, start, limits):
        taken = _taken(shape, content)
        last = len(taken) - 1
        for item, one in enumerate(taken):
            if item < start.item and row == start.row:
                continue
            following = Position(row + 1, after) if item == last else Position(row, offset, item + 1)
            yield _judged(one, Place(source.name, row, offset, item), limits.prompt_chars), following


def first_rows(source: Source, count: int = DETECTED_ROWS, *, limits: Limits = DEFAULTS) -> list[object]:
    """A source's first rows as parsed, without those that cannot be, for `Shape.detect`.

    Args:
        source: The file.
        count: How many rows are looked at.
        limits: What a row may have at most.

    Returns:
        At most count rows.

    Raises:
        DataRejected: When the file cannot be read.
        MissingExtra: When a package of the extra is not installed.
    """
    rows = islice(_rows(source, None, START, limits), count)
    return [content for _, _, _, content in rows if not isinstance(content, RowFault)]


def detect(source: Source, *, limits: Limits = DEFAULTS) -> Shape:
    """Recognise a source's shape by its first rows.

    Args:
        source: The file.
        limits: What a row may have at most.

    Returns:
        The shape.

    Raises:
        DataRejected: When no row has a known shape, or the file cannot be read.
        MissingExtra: When a package of the extra is not installed.
    """
    return Shape.detect(first_rows(source, limits=limits), source.name)


def _rows(source: Source, shape: Shape | None, start: Position, limits: Limits) -> Iterator[RawRow]:
    if source.format == "parquet":
        return parquet_rows(source, start.row, list if shape is None else shape.columns, limits.line_bytes)
    rows = json_rows if source.format == "jsonl" else csv_rows
    return rows(source, start.row, start.offset, limits.line_bytes, stop=limits.stop)


def _taken(shape: Shape, content: Content) -> Sequence[Taken | RowFault]:
    if isinstance(content, RowFault):
        return (content,)
    try:
        return shape.take(content)
    except RowFault as fault:
        return (fault,)
    except RecursionError:
        return (RowFault(Reason.NESTED_TOO_DEEP, "a field is nested too deep: flatten it or remove the row"),)


def _judged(taken: Taken | RowFault, place: Place, most: int) -> Record | Reject:
    if isinstance(taken, RowFault):
        return Reject(place, taken.reason.value, taken.detail)
    prompt = taken.prompt
    # Most prompts are plainly fit; only the others are folded here, because the scorer does it again.
    if not (prompt.isascii() and len(prompt) <= most and _VISIBLE.search(prompt)):
        fault = _unfit(prompt, most)
        if fault is not None:
            return Reject(place, fault.reason.value, fault.detail)
    for name in (taken.account, taken.key, taken.request_id):
        if not is_unicode(name):
            return Reject(
                place, Reason.LONE_SURROGATE.value, "an identity holds half a surrogate pair: write valid Unicode"
            )
    return Record(place, prompt, taken.account, taken.key, taken.request_id, taken.time)


def _unfit(prompt: str, most: int) -> RowFault | None:
    try:
        foreign = len(prompt.encode()) - len(prompt)  # at least the characters that are not ASCII
        if len(prompt) + foreign * _MOST_GROWTH <= most and _VISIBLE.search(prompt):
            return None
        canonical(prompt, most)
    except EmptyPrompt:
        return RowFault(Reason.EMPTY_PROMPT, "the prompt holds nothing visible")
    except (NotUnicode, UnicodeEncodeError):
        return RowFault(Reason.LONE_SURROGATE, "the prompt holds half a surrogate pair: write valid Unicode")
    except PromptTooLong as error:
        return RowFault(Reason.PROMPT_TOO_LONG, str(error))
    return None
