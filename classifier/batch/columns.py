"""Rows of Parquet: row group by row group, in batches of bounded size, and only the columns that are needed."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import IO, Any

from classifier.batch.cells import rows_of
from classifier.batch.delimited import Content, RawRow
from classifier.batch.foresight import foresee
from classifier.batch.inputs import Source
from classifier.batch.reasons import Reason, RowFault
from classifier.batch.streams import opened, unreadable
from classifier.errors import MissingExtra

_DAMAGE = (OSError, ValueError, OverflowError, LookupError, MemoryError, NotImplementedError, TypeError)
"""What pyarrow raises for damaged files beside its own errors; a damaged size asks for any memory."""
_BUFFER_BYTES = 2**18
"""Makes pyarrow read column chunks page by page instead of whole."""
_FOOTER_BYTES = 64 * 2**20
"""Of a footer, which is read whole and takes some times its size."""
_MAGIC = b"PAR1"
_NO_FOOTER = "the file has no readable footer: copy or write it anew"


def parquet_rows(source: Source, row: int, choose: Callable[[Sequence[str]], list[str]], most: int) -> Iterator[RawRow]:
    """Read Parquet from a row on; row groups before it are not touched.

    Args:
        source: The file.
        row: The first row.
        choose: Of the file's columns, those that are needed.
        most: The most bytes of a row in these columns.

    Yields:
        The rows, with offsets of -1. Of a row group that cannot be decoded, every row that is left is a fault.

    Raises:
        MissingExtra: When pyarrow is not installed.
        DataRejected: When the file cannot be read.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "batch") from None
    damage = (pa.ArrowException, *_DAMAGE)
    with closing(opened(source)) as file:
        try:
            table = _footer(file)
        except (RowFault, *damage) as error:
            _raise_if_of_the_system(source, error)
            if row == 0:
                yield 0, -1, -1, error if isinstance(error, RowFault) else _fault(_NO_FOOTER)
            return
        names = choose(table.schema_arrow.names)
        first = 0
        for group in range(table.num_row_groups):
            last = first + table.metadata.row_group(group).num_rows
            if row < last:
                rest = _fault("the row group is damaged: write it anew")
                try:
                    for content in islice(_group(table, file, group, names, row - first, most), last - row):
                        yield row, -1, -1, content
                        row += 1
                except RowFault as fault:
                    rest = fault
                except damage as error:
                    _raise_if_of_the_system(source, error)
                while row < last:
                    yield row, -1, -1, rest
                    row += 1
            first = last


def _fault(detail: str) -> RowFault:
    return RowFault(Reason.BROKEN_PARQUET, detail)


def _footer(file: IO[bytes]) -> Any:
    """The file, opened; its footer is held."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] == _MAGIC and _FOOTER_BYTES < length < size:
        raise RowFault(
            Reason.LINE_TOO_LONG,
            f"the footer has {length:,} bytes, over {_FOOTER_BYTES:,}: write more and smaller files",
        )
    table = ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    _ = table.schema_arrow  # may be what is damaged
    groups = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
    if sum(groups) != table.metadata.num_rows or min(groups, default=0) < 0:  # else damage counts endless rows
        raise pa.ArrowInvalid("the footer contradicts itself")
    return table


def _group(table: Any, file: IO[bytes], group: int, names: list[str], skip: int, most: int) -> Iterator[Content]:
    """A row group's rows, up to its damage, or to a page that is too large to be decoded."""
    if not names:  # there is nothing to decode, yet every row counts
        for _ in range(skip, table.metadata.row_group(group).num_rows):
            yield {}
        return
    plan = foresee(table, file, group, names)
    if plan.rows > skip:
        batches = table.iter_batches(plan.at_once, row_groups=[group], columns=names, use_threads=False)
        for batch in islice(batches, plan.rows // plan.at_once if plan.fault else None):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield from rows_of(batch.slice(skip), most)
            skip = 0
    if plan.fault:
        raise plan.fault


def _raise_if_of_the_system(source: Source, error: Exception) -> None:
    """Damage is a fault of the rows; a disk or network that fails, which has a number, is not."""
    if isinstance(error, OSError) and error.errno is not None:
        raise unreadable(source, error) from None
