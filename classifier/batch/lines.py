"""Cuts bytes into lines with their offsets, in memory that no line's length can exceed."""

from collections.abc import Iterator

from classifier.batch.reasons import Reason, RowFault
from classifier.batch.streams import BrokenStream


class LineTooLong(RowFault):
    """Stands for a line that was passed over.

    Attributes:
        quotes: How many quotation marks it held, by which CSV knows whether a field is still open.
    """

    def __init__(self, most: int, quotes: int = 0) -> None:
        """Name the limit."""
        super().__init__(
            Reason.LINE_TOO_LONG, f"the row has over {most} bytes: leave out large fields, or raise the limit"
        )
        self.quotes = quotes


def lines(pieces: Iterator[bytes], offset: int, most: int) -> Iterator[tuple[int, int, bytes | RowFault]]:
    """Cut pieces into lines.

    Args:
        pieces: Bytes, in order.
        offset: Where the first piece begins.
        most: The most bytes of a line, less its line feed.

    Yields:
        The line's offset, the next one's, and the line without its line feed; or why there is none. After broken
        compression the next offset lies one behind the last byte that could be read, and nothing follows.
    """
    parts: list[bytes] = []
    size = quotes = 0
    try:
        for piece in pieces:
            *whole, rest = piece.split(b"\n")
            for line in whole:
                length = size + len(line)
                after = offset + length + 1
                if length > most:
                    yield offset, after, LineTooLong(most, quotes + _quotes(parts) + line.count(b'"'))
                else:
                    yield offset, after, b"".join([*parts, line]) if size else line
                offset, parts, size, quotes = after, [], 0, 0
            size += len(rest)
            parts.append(rest)
            if size > most:
                quotes += _quotes(parts)
                parts = []
    except BrokenStream as error:
        yield offset, offset + size + 1, RowFault(Reason.BROKEN_COMPRESSION, str(error))
        return
    if size > most:
        yield offset, offset + size, LineTooLong(most, quotes)
    elif size:
        yield offset, offset + size, b"".join(parts)


def _quotes(parts: list[bytes]) -> int:
    return sum(part.count(b'"') for part in parts)
