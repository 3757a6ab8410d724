"""Reads files of examples row by row: JSON Lines, CSV and Parquet, in bounded memory; a bad row is a rejection."""

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.batch.columns import parquet_rows
from classifier.batch.delimited import RawRow, csv_rows, json_rows, parse_line
from classifier.batch.inputs import KNOWN, Source, kind_of
from classifier.batch.reasons import Reason as ReadingReason
from classifier.batch.reasons import RowFault
from classifier.errors import DataRejected
from classifier.transfer.schema import AS_WRITTEN, NAMES, NEEDED, Choices, RowRefused, example_of, row_of_cells
from index.example import Example, State

MAX_ROW_BYTES = 4 * 2**20
"""The longest text takes 1.2 MB where every character is escaped, and the other fields less than that."""
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MOST_NAMES = 20


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is not imported.

    Attributes:
        file: The file, as it was named.
        row: The row's number, from 1; headers and blank lines are no rows.
        reason: A code: one of schema.Reason or batch.reasons.Reason.
        detail: How to mend it; never the row's text.
        content: The row, where it could be read.
    """

    file: str
    row: int
    reason: str
    detail: str
    content: Mapping[str, Any] | None = None


def source_of(path: Path, format: str | None = None) -> Source:
    """Find a file of examples.

    Args:
        path: The file.
        format: jsonl, csv or parquet, where the name's suffix does not tell.

    Returns:
        What the readers take.

    Raises:
        DataRejected: When the file is missing or no plain file, or its format is unknown.
    """
    known, compression = kind_of(path.name)
    chosen = format or known
    if not chosen or (chosen == "parquet" and compression):
        raise DataRejected(f"{path} has an unknown suffix: name it by what it is, one of {KNOWN}")
    try:
        found = path.expanduser().resolve(strict=True)
        status = found.stat()
    except (OSError, RuntimeError) as error:
        raise DataRejected(f"{path} cannot be read ({type(error).__name__}): check its name and rights") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataRejected(f"{path} is no plain file: name a file")
    return Source(str(path), str(found), status.st_size, chosen, compression, "")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that is an example.

    Attributes:
        row: The row's number, from 1.
        example: The example.
        state: Pending or active where the row or the importer names it; None leaves it to where it is imported.
        content: The row's known columns.
    """

    row: int
    example: Example
    state: State | None
    content: Mapping[str, Any]


class ExampleFile:
    """The rows of one file.

    Attributes:
        name: The file, as it was named.
        unknown: Names of columns that were passed over, as far as they look like names; at most a few.
    """

    def __init__(self, source: Source, choices: Choices = AS_WRITTEN) -> None:
        """Read when iterated.

        Args:
            source: The file, from source_of.
            choices: What the importer decides about rows.
        """
        self._source, self._choices = source, choices
        self.name = source.name
        self.unknown: set[str] = set()

    def __iter__(self) -> Iterator[Entry | Rejection]:
        """Read the file from its beginning.

        Yields:
            Each row's example, or why it has none.

        Raises:
            DataRejected: When the file cannot be read, or has not the columns that every row needs.
            MissingExtra: When pyarrow or zstandard is not installed.
        """
        for number, _, _, content in self._rows():
            row = number + 1
            if isinstance(content, RowFault):
                yield Rejection(self._source.name, row, content.reason.value, content.detail)
                continue
            try:
                yield self._entry(row, content)
            except RowRefused as refused:
                yield Rejection(self._source.name, row, refused.reason.value, refused.detail, content)

    def _rows(self) -> Iterator[RawRow]:
        match self._source.format:
            case "parquet":
                return parquet_rows(self._source, 0, self._chosen, MAX_ROW_BYTES)
            case "csv":
                return self._records()
            case _:
                return json_rows(self._source, 0, 0, MAX_ROW_BYTES, parse_line)

    def _records(self) -> Iterator[RawRow]:
        checked = False
        for number, begin, after, content in csv_rows(self._source, 0, 0, MAX_ROW_BYTES):
            if isinstance(content, RowFault):
                yield number, begin, after, content
                continue
            if not checked:
                self._chosen(list(content))
                checked = True
            if any(cell and "\0" in cell for cell in content.values()):
                fault = RowFault(
                    ReadingReason.BROKEN_CSV, "a cell holds a NUL character, which no CSV does: use JSON Lines"
                )
                yield number, begin, after, fault
            else:
                yield number, begin, after, row_of_cells(content)

    def _chosen(self, names: Sequence[str]) -> list[str]:
        """The columns that are read, of a file that names them once for all rows."""
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise DataRejected(
                f"{self._source.name} has no column {missing[0]}: name its columns as docs/interchange.md does"
            )
        self._pass_over(names)
        return [name for name in names if name in NAMES]

    def _entry(self, row: int, content: Mapping[str, Any]) -> Entry:
        self._pass_over(content)
        example = example_of(content, self._choices)
        known = {name: content[name] for name in NAMES if content.get(name) is not None}
        return Entry(row, example, example.state if self._choices.state or content.get("state") else None, known)

    def _pass_over(self, names: Sequence[str] | Mapping[str, Any]) -> None:
        for name in names:
            if name not in NAMES and len(self.unknown) < _MOST_NAMES and _PLAIN_NAME.fullmatch(name):
                self.unknown.add(name)
