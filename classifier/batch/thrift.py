"""Thrift's compact protocol, in which Parquet writes the headers of its pages: numbers, and the structs that hold them."""

from typing import Any

_DEPTH = 8
_BITS = 63
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12


class BrokenHeader(ValueError):
    """Says that bytes are no struct of Thrift's; it is taken for damage and never leaves the reader."""


def read_struct(data: bytes) -> tuple[dict[int, Any], int]:
    """Read a struct.

    Args:
        data: Bytes that begin with it.

    Returns:
        Its numbers and structs by their fields' numbers, and its length; texts are passed over.

    Raises:
        IndexError: When it goes on behind the bytes' end.
        BrokenHeader: When the bytes are none, or hold what no header of a page does.
    """
    reader = _Reader(data)
    return reader.struct(0), reader.at


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEPTH:
            raise BrokenHeader("a page's header is nested too deep")
        found: dict[int, Any] = {}
        name = 0
        while mark := self._byte():
            name = name + (mark >> 4) if mark >> 4 else self._number()
            found[name] = self._value(mark & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._number()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind not in (_BYTE, _DOUBLE, _BINARY):
            raise BrokenHeader("a page's header holds what no header does")
        length = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self._unsigned()
        self.at += length
        if self.at > len(self._data):
            raise IndexError(self.at)
        return None

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if not byte & 128:
                return number
            shift += 7
            if shift > _BITS:
                raise BrokenHeader("a page's header holds a number that is too long")

    def _number(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)
