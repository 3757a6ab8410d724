"""The pages of a Parquet column: what their headers say, and how large the cells are that a page holds.

A footer tells the size of a whole column chunk only, and may be wrong.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from classifier.batch.thrift import BrokenHeader, read_struct

_HEADER_BYTES = 2**12
_MOST_HEADER_BYTES = 16 * 2**20
"""Headers hold the least and largest value of their page; pyarrow reads no longer ones either."""
_LEVEL_BYTES = 16
"""Of a value in a column of lists, however little it takes in the file: its levels, its place, its number."""
_MOST_LOOKED_AT = 2**20
_PLAIN = 0
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_KIND, _UNPACKED, _PACKED = 1, 2, 3
_DETAILS = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
_VALUES = 1
_ROWS, _ENCODING_V2, _DEFINITIONS, _REPETITIONS, _IS_PACKED = 3, 4, 5, 6, 7
_ENCODING = 2


@dataclass(frozen=True, slots=True)
class Page:
    """A page, by its header.

    Attributes:
        first: The row of its row group at which it begins, or 0, where its header cannot tell.
        packed: Its bytes as stored.
        unpacked: Its bytes in memory.
        values: How many values it holds, or the rows that it counts.
        is_dictionary: Whether it holds the values that the other pages repeat.
        details: The header's part that is of its kind alone, by the fields' numbers.
        body: Where it begins in the file, behind its header.
    """

    first: int
    packed: int
    unpacked: int
    values: int
    is_dictionary: bool
    details: Mapping[int, Any]
    body: int

    def held(self, *, nested: bool) -> int:
        """Bytes that are held of it while it is decoded: it as stored, and unpacked."""
        return self.packed + self.unpacked + (_LEVEL_BYTES * self.values if nested else 0)


def pages(file: IO[bytes], chunk: Any, *, nested: bool) -> Iterator[Page]:
    """Read the headers of a column chunk's pages.

    Args:
        file: The Parquet file.
        chunk: What pyarrow's footer says of the chunk.
        nested: Whether a row may hold many values of the column.

    Yields:
        The pages, up to the chunk's number of values.

    Raises:
        BrokenHeader: When a header cannot be read.
        OSError: When the file cannot.
    """
    offset = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < offset:
        offset = chunk.dictionary_page_offset
    values = rows = 0
    while values < chunk.num_values:
        header, length = _header(file, offset)
        kind, packed, unpacked = (_number(header, name) for name in (_KIND, _PACKED, _UNPACKED))
        offset += length
        if kind in _DETAILS:
            details = header.get(_DETAILS[kind])
            if not isinstance(details, dict):
                raise BrokenHeader("a page's header has no details")
            own, is_dictionary = _number(details, _VALUES), kind == _DICTIONARY
            first = 0 if nested and kind != _DATA_V2 else rows
            yield Page(first, packed, unpacked, own, is_dictionary, details, offset)
            if not is_dictionary:
                values += own
                rows += _number(details, _ROWS) if kind == _DATA_V2 else own
        offset += packed


def largest_cell(file: IO[bytes], chunk: Any, page: Page, *, optional: bool = False, nested: bool = False) -> int:
    """The size of a page's largest text.

    Args:
        file: The Parquet file.
        chunk: What pyarrow's footer says of the page's chunk.
        page: The page. It is unpacked.
        optional: Whether values may be missing.
        nested: Whether a row may hold many values of the column.

    Returns:
        Bytes; those of the whole page where its encoding does not tell.

    Raises:
        BrokenHeader: When the page is not what its header says.
        OSError: When the file cannot be read.
    """
    is_v2 = _REPETITIONS in page.details
    encoding = page.details.get(_ENCODING_V2 if is_v2 else _ENCODING)
    told = chunk.physical_type == "BYTE_ARRAY" and (encoding == _PLAIN or page.is_dictionary)
    if not told or page.values > _MOST_LOOKED_AT:
        return page.unpacked
    levels = _number(page.details, _REPETITIONS) + _number(page.details, _DEFINITIONS) if is_v2 else 0
    data = _unpacked(file, chunk.compression, page, levels)
    if data is None:
        return page.unpacked
    at = 0
    if not is_v2 and not page.is_dictionary:
        for is_there in (nested, optional):
            at += 4 + int.from_bytes(data[at : at + 4], "little") if is_there else 0
    largest = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        largest = max(largest, size)
        at += 4 + size
    return largest


def _unpacked(file: IO[bytes], compression: str, page: Page, levels: int) -> memoryview | None:
    """A page's values, or None, where this does not know its compression."""
    import pyarrow as pa

    file.seek(page.body + levels)
    stored = file.read(page.packed - levels)
    if compression == "UNCOMPRESSED" or not page.details.get(_IS_PACKED, True):
        return memoryview(stored)
    if compression not in ("SNAPPY", "GZIP", "ZSTD", "BROTLI"):  # what is called LZ4 has two forms
        return None
    try:
        return memoryview(pa.Codec(compression.lower()).decompress(stored, page.unpacked - levels))
    except (pa.ArrowException, OSError, ValueError):
        raise BrokenHeader("a page is not what its header says") from None


def _number(fields: Mapping[int, Any], name: int) -> int:
    number = fields.get(name)
    if type(number) is not int or number < 0:
        raise BrokenHeader("a page's header lacks a number")
    return number


def _header(file: IO[bytes], offset: int) -> tuple[dict[int, Any], int]:
    """A page's header and its length."""
    size = _HEADER_BYTES
    while True:
        file.seek(offset)
        data = file.read(size)
        try:
            return read_struct(data)
        except IndexError:
            if len(data) < size or size >= _MOST_HEADER_BYTES:
                raise BrokenHeader("a page's header is cut off") from None
            size *= 8
