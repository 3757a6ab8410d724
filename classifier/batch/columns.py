"""Rows of Parquet: row group by row group, in batches of bounded size, and only the columns that are needed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from classifier.batch.delimited import Content, RawRow
from classifier.batch.inputs import Source
from classifier.batch.reasons import Reason, RowFault
from classifier.batch.streams import opened, unreadable
from classifier.errors import MissingExtra

_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 2_048
_DAMAGE = (OSError, ValueError, OverflowError, LookupError, MemoryError, NotImplementedError, TypeError)
"""What pyarrow raises for damaged files beside its own errors; a damaged size asks for any memory."""
_BUFFER_BYTES = 2**18
"""Makes pyarrow read column chunks page by page instead of whole."""


def parquet_rows(source: Source, row: int, choose: Callable[[Sequence[str]], list[str]]) -> Iterator[RawRow]:
    """Read Parquet from a row on; row groups before it are not touched.

    Args:
        source: The file.
        row: The first row.
        choose: Of the file's columns, those that are needed.

    Yields:
        The rows, with offsets of -1. Of a row group that cannot be decoded, every row that is left is a fault.

    Raises:
        MissingExtra: When pyarrow is not installed.
        DataRejected: When the file cannot be read.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "batch") from None
    damage = (pa.ArrowException, *_DAMAGE)
    with closing(opened(source)) as file:
        try:
            table = ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            names = choose(table.schema_arrow.names)
            groups = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
            if sum(groups) != table.metadata.num_rows or min(groups, default=0) < 0:  # else damage counts endless rows
                raise pa.ArrowInvalid("the footer contradicts itself")
        except damage as error:
            _raise_if_of_the_system(source, error)
            if row == 0:
                yield 0, -1, -1, _fault("the file has no readable footer: copy or write it anew")
            return
        first = 0
        for group, count in enumerate(groups):
            last = first + count
            if row < last:
                try:
                    for content in islice(_group(table, group, names, row - first), last - row):
                        yield row, -1, -1, content
                        row += 1
                except damage as error:
                    _raise_if_of_the_system(source, error)
                while row < last:
                    yield row, -1, -1, _fault("the row group is damaged: write it anew")
                    row += 1
            first = last


def _fault(detail: str) -> RowFault:
    return RowFault(Reason.BROKEN_PARQUET, detail)


def _group(table: Any, group: int, names: list[str], skip: int) -> Iterator[Content]:
    """A row group's rows, up to its damage."""
    meta = table.metadata.row_group(group)
    if not names:  # there is nothing to decode, yet every row counts
        for _ in range(skip, meta.num_rows):
            yield {}
        return
    at_once = _BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)
    batches = table.iter_batches(
        max(1, min(_BATCH_ROWS, at_once)), row_groups=[group], columns=names, use_threads=False
    )
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        yield from _rows(batch.slice(skip))
        skip = 0


def _raise_if_of_the_system(source: Source, error: Exception) -> None:
    """Damage is a fault of the rows; a disk or network that fails, which has a number, is not."""
    if isinstance(error, OSError) and error.errno is not None:
        raise unreadable(source, error) from None


def _rows(batch: Any) -> Iterator[Content]:
    columns = [_plain(column) for column in batch.columns]
    names = batch.schema.names
    try:
        cells = [column.to_pylist(maps_as_pydicts="lossy") for column in columns]
    except (UnicodeDecodeError, ValueError, OverflowError):
        yield from (_careful(names, columns, index) for index in range(batch.num_rows))
        return
    for values in zip(*cells, strict=True):
        yield {name: _lean(value) for name, value in zip(names, values, strict=True)}


def _plain(column: Any) -> Any:
    """Times in microseconds: pandas, which finer ones ask for, is no part of this."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def _careful(names: list[str], columns: list[Any], index: int) -> Content:
    """One row of a batch in which some cell is no text or no Python value."""
    try:
        values = [column[index].as_py(maps_as_pydicts="lossy") for column in columns]
    except UnicodeDecodeError:
        return RowFault(Reason.BROKEN_UTF8, "a cell is not UTF-8: re-encode the column as UTF-8")
    except (ValueError, OverflowError):
        return _fault("a cell is out of its type's range: write the row anew")
    return {name: _lean(value) for name, value in zip(names, values, strict=True)}


def _lean(value: Any) -> Any:
    """A value without the nulls that a column of structs gives to fields which a row has not."""
    if isinstance(value, dict):
        return {name: _lean(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_lean(inner) for inner in value]
    return value
