"""Rows of JSON Lines and of CSV, each with its offsets."""

import csv
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from classifier.batch.inputs import Source
from classifier.batch.lines import LineTooLong, lines
from classifier.batch.reasons import Reason, RowFault
from classifier.batch.streams import pieces
from classifier.errors import MissingExtra

Content = Mapping[str, Any] | RowFault
RawRow = tuple[int, int, int, Content]
"""Its number, its offset, the offset at which the next one begins, and what it holds."""
_BOM = b"\xef\xbb\xbf"
_MOST_VALUES = 2**20
"""Lists and objects of a line, or cells of a record: each takes some hundred bytes of memory, and few of the file."""
_DELIMITERS = (",", "\t", ";", "|")
Parse = Callable[[bytes], object]
"""A line of JSON as a value, or as a RowFault."""


def json_rows(
    source: Source,
    row: int,
    offset: int,
    most: int,
    parse: Parse | None = None,
    stop: threading.Event | None = None,
) -> Iterator[RawRow]:
    """Read JSON Lines from a position on; blank lines are no rows.

    Args:
        source: The file.
        row: The number of the next row.
        offset: Where it begins.
        most: The most bytes of a line.
        parse: How a line is read; None reads it fast, by orjson.
        stop: Ends the reading when it is set.

    Yields:
        The rows.

    Raises:
        MissingExtra: When orjson or zstandard is not installed.
        DataRejected: When the file cannot be read.
    """
    parse = parse or _fast_parser()
    for begin, after, line in lines(pieces(source, offset, stop), offset, most):
        content: Content
        if isinstance(line, RowFault):
            content = line
        elif not line or line.isspace():
            continue
        elif len(line) > _MOST_VALUES and line.count(b"{") + line.count(b"[") > _MOST_VALUES:
            content = RowFault(Reason.TOO_MANY_VALUES, f"over {_MOST_VALUES} lists and objects: leave out large fields")
        else:
            parsed = parse(line)
            content = parsed if isinstance(parsed, dict | RowFault) else _no_object(parsed)
        yield row, begin, after, content
        row += 1


def _no_object(parsed: object) -> RowFault:
    mend = "write one object a line, as  jq -c '.[]'  does" if isinstance(parsed, list) else "write objects"
    return RowFault(Reason.NOT_AN_OBJECT, f"the line is JSON, but no object: {mend}")


def _fast_parser() -> Parse:
    try:
        from orjson import JSONDecodeError, loads
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "batch") from None

    def parse(line: bytes) -> object:
        try:
            return loads(line)
        except JSONDecodeError as error:
            return _too_deep() if _is_of_depth(error.msg) else parse_line(line)

    return parse


def _is_of_depth(message: str) -> bool:
    return "depth limit" in message or "recursion" in message.lower()


def parse_line(line: bytes) -> object:
    """Read a line of JSON as other programs write it, too: with a byte order mark, NaN, half a surrogate.

    Args:
        line: The line.

    Returns:
        What it holds, or a RowFault.
    """
    try:
        text = line.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        return RowFault(Reason.BROKEN_UTF8, f"byte {error.start} of the row is not UTF-8: re-encode the file as UTF-8")
    try:
        return json.loads(text, parse_int=_number)
    except RecursionError:
        return _too_deep()
    except json.JSONDecodeError as error:
        return RowFault(Reason.BROKEN_JSON, f"not valid JSON at character {error.pos}: mend or remove the line")


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def _too_deep() -> RowFault:
    return RowFault(Reason.NESTED_TOO_DEEP, "the JSON is nested over 1,024 deep: flatten it or remove the row")


def csv_rows(source: Source, row: int, offset: int, most: int, stop: threading.Event | None = None) -> Iterator[RawRow]:
    """Read CSV with a header from a position on; blank lines are no rows, empty cells are null.

    Args:
        source: The file.
        row: The number of the next row; the header has none.
        offset: Where it begins; 0 begins behind the header.
        most: The most bytes of a record.
        stop: Ends the reading when it is set.

    Yields:
        The rows. A file without a header that can be read gives one fault.

    Raises:
        MissingExtra: When zstandard is not installed.
        DataRejected: When the file cannot be read.
    """
    # The module's own limit holds for the process and is 128 KiB; records are bounded here before it sees them.
    csv.field_size_limit(max(csv.field_size_limit(), most))
    first = next(_records(lines(pieces(source, stop=stop), 0, most), most, ""), None)
    if first is None:
        return
    begin, after, record = first
    header = _header(record)
    if isinstance(header, RowFault):
        if row == 0:
            yield 0, begin, after, header
        return
    names, delimiter = header
    offset = max(offset, after)
    for begin, after, record in _records(lines(pieces(source, offset, stop), offset, most), most, delimiter):
        yield row, begin, after, record if isinstance(record, RowFault) else _cells(record, names, delimiter)
        row += 1


def _header(record: bytes | RowFault) -> tuple[list[str], str] | RowFault:
    if isinstance(record, RowFault):
        return record
    record = record.removeprefix(_BOM)
    delimiter = max(_DELIMITERS, key=lambda mark: record.count(mark.encode()))
    cells = _split(record, delimiter)
    if isinstance(cells, RowFault):
        return cells
    names = [name.strip() for name in cells]
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name and first.setdefault(name, number) != number:
            # A file without a header begins with a row, so the name itself is not told.
            return RowFault(
                Reason.BROKEN_CSV, f"columns {first[name]} and {number} of the header have one name: rename one of them"
            )
    return names, delimiter


def _records(
    found: Iterator[tuple[int, int, bytes | RowFault]], most: int, delimiter: str
) -> Iterator[tuple[int, int, bytes | RowFault]]:
    """Join lines as long as a quoted field is open; what is over the limit is counted and not held."""
    opening = tuple(f'{mark}"'.encode() for mark in ([delimiter] if delimiter else _DELIMITERS))
    record = bytearray()
    begin, size, inside, after = -1, 0, False, 0
    for offset, after, line in found:
        if begin < 0:
            if isinstance(line, bytes) and (not line or line.isspace()):
                continue
            begin = offset
        if isinstance(line, bytes):
            inside = _is_open(line, opening, inside=inside)
            record += line
            record += b"\n"
        elif isinstance(line, LineTooLong):
            inside ^= bool(line.quotes & 1)
        else:
            yield begin, after, line
            return
        size = after - begin
        if size > most + 1:
            record.clear()
        if not inside:
            yield begin, after, LineTooLong(most) if size > most + 1 else bytes(record[:-1])
            record.clear()
            begin = -1
    if begin >= 0:
        yield begin, after, RowFault(Reason.BROKEN_CSV, "a quoted field is not closed before the end: close the quote")


def _is_open(line: bytes, opening: tuple[bytes, ...], *, inside: bool) -> bool:
    """Whether a quoted field is open after a line; a quote within an unquoted cell, as in 5" pipes, opens nothing."""
    if inside or line.removeprefix(_BOM).startswith(b'"') or any(mark in line for mark in opening):
        return inside ^ bool(line.count(b'"') & 1)
    return False


def _cells(record: bytes, names: list[str], delimiter: str) -> Content:
    cells = _split(record, delimiter)
    if isinstance(cells, RowFault):
        return cells
    if len(cells) != len(names):
        return RowFault(
            Reason.BROKEN_CSV,
            f"the record has {len(cells)} cells, the header {len(names)}: quote cells that hold delimiters",
        )
    return {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _split(record: bytes, delimiter: str) -> list[str] | RowFault:
    if len(record) > _MOST_VALUES and record.count(delimiter.encode()) > _MOST_VALUES:
        return RowFault(Reason.TOO_MANY_VALUES, f"over {_MOST_VALUES} cells: leave out columns")
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        return RowFault(Reason.BROKEN_UTF8, f"byte {error.start} of the row is not UTF-8: re-encode the file as UTF-8")
    try:
        rows = list(csv.reader([text], delimiter=delimiter))
    except csv.Error:
        rows = []
    if len(rows) != 1:
        return RowFault(Reason.BROKEN_CSV, "not one record of CSV: quote cells that hold line breaks")
    return rows[0]
