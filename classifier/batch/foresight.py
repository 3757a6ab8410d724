"""How a row group of Parquet can be read in bounded memory, told by the headers of its pages before any is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from classifier.batch.names import shown
from classifier.batch.pages import Page, largest_cell, pages
from classifier.batch.reasons import Reason, RowFault
from classifier.batch.thrift import BrokenHeader

_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 2_048
_HELD_BYTES = 512 * 2**20
"""Of the needed columns' largest pages together, one of each being held at a time, and of the largest cells in them."""
_CELL_COPIES = 2
"""A cell is copied into an array, which doubles while it grows."""
_REPEATED_BYTES = 128 * 2**20
"""Of a batch in which every row repeats the largest value that there can be."""
_PREFIXED = "DELTA_BYTE_ARRAY"


@dataclass(frozen=True, slots=True)
class Foresight:
    """How a row group is read.

    Attributes:
        rows: How many of its rows can be.
        at_once: How many are decoded at once; where there is a fault, a divisor of rows.
        fault: Why the others cannot be.
    """

    rows: int
    at_once: int
    fault: RowFault | None


def foresee(table: Any, file: IO[bytes], group: int, names: Sequence[str]) -> Foresight:
    """Look through the headers of a row group's pages.

    Args:
        table: pyarrow's Parquet file.
        file: The same file.
        group: The row group's number.
        names: The columns that are needed.

    Returns:
        How it can be read: up to the first page that is too large to be decoded, or whose header is damaged.

    Raises:
        OSError: When the file cannot be read.
    """
    meta = table.metadata.row_group(group)
    rows, fault = meta.num_rows, None
    total = held = repeated = 0
    inside = tuple(f"{name}." for name in names)
    for number in range(meta.num_columns):
        kind, chunk = table.schema.column(number), meta.column(number)
        if kind.path not in names and not kind.path.startswith(inside):
            continue
        largest, first = 0, 0
        values_of_a_row = -(-chunk.num_values // max(1, meta.num_rows))
        try:
            for page in pages(file, chunk, nested=kind.max_repetition_level > 0):
                first = page.first
                largest = max(largest, _needed(file, kind, chunk, page, _HELD_BYTES - held))
                total += page.unpacked
                if page.is_dictionary:
                    repeated = max(repeated, values_of_a_row * largest_cell(file, chunk, page))
                elif _PREFIXED in chunk.encodings:
                    repeated = max(repeated, values_of_a_row * page.unpacked)
        except (RowFault, BrokenHeader) as found:
            if first <= rows:
                rows, fault = first, found if isinstance(found, RowFault) else _damaged()
        held += largest
    at_once = min(_BATCH_ROWS, _BATCH_BYTES * meta.num_rows // max(1, total), _REPEATED_BYTES // max(1, repeated))
    at_once = max(1, at_once)
    if fault:  # a batch that goes over the last good row would decode the page behind it
        at_once = next(size for size in range(min(at_once, max(1, rows)), 0, -1) if rows % size == 0)
    return Foresight(rows, at_once, fault)


def _needed(file: IO[bytes], kind: Any, chunk: Any, page: Page, left: int) -> int:
    """The memory that a page takes while it is decoded, if that is left."""
    nested = kind.max_repetition_level > 0
    size, cell = page.held(nested=nested), page.unpacked
    if size <= left < size + _CELL_COPIES * cell:  # whether it is one large cell or many small ones, it tells itself
        cell = largest_cell(file, chunk, page, optional=kind.max_definition_level > 0, nested=nested)
    needed = size + _CELL_COPIES * cell
    if needed > left:
        what = "dictionary" if page.is_dictionary else "page"
        raise RowFault(
            Reason.LINE_TOO_LONG,
            f"a {what} of {page.unpacked:,} bytes, with a cell of up to {cell:,}, in the column {shown(kind.path)} is too "
            "large to be read, and what is behind it in its row group is lost: leave out large cells, or write smaller "
            "pages and row groups",
        )
    return needed


def _damaged() -> RowFault:
    return RowFault(Reason.BROKEN_PARQUET, "the row group is damaged here: write it anew")
