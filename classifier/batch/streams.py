"""Opens sources and decompresses them in bounded pieces, up to the byte at which they break."""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Protocol

from classifier.batch.inputs import Source, file_system
from classifier.batch.names import spelt
from classifier.errors import DataRejected, MissingExtra

PIECE_BYTES = 2**20
"""Bytes that are read at once from a plain file, and that one step of gzip gives at most."""
_STORED_BYTES = 2**16
_ZSTD_STEP = 2**10
"""A block of zstd may be 4 bytes that stand for 128 KiB, so that a step gives at most 32 MiB."""
_ZSTD_WINDOW = 2**27
"""The window that the zstd program takes without --long=31: 128 MiB."""


class Stopped(Exception):
    """Says that the run was told to stop within a row; it never leaves the run."""


class BrokenStream(Exception):
    """Says that a compressed source breaks after what was read; it is made a Reject and never leaves the reader."""


def opened(source: Source) -> IO[bytes]:
    """Open a source as it is stored.

    Args:
        source: The file.

    Returns:
        Its bytes.

    Raises:
        DataRejected: When it cannot be opened.
    """
    try:
        if "://" not in source.url:
            return Path(source.url).open("rb")
        files, path = file_system(source.url)
        return files.open(path, "rb")  # type: ignore[no-any-return]  # fsspec has no types
    except OSError as error:
        raise unreadable(source, error) from None


def unreadable(source: Source, error: OSError) -> DataRejected:
    """What to raise when a source cannot be opened or read on.

    Args:
        source: The file.
        error: What the system said.

    Returns:
        The error, which names the file.
    """
    return DataRejected(
        f"{spelt(source.name)} cannot be read ({type(error).__name__}): check name, rights and network, and run again"
    )


def pieces(source: Source, offset: int = 0, stop: threading.Event | None = None) -> Iterator[bytes]:
    """A source's bytes after decompression.

    Args:
        source: The file.
        offset: The byte to begin with. A plain file is read from there; a compressed one is decompressed up to it.
        stop: Ends the reading when it is set, because a row, or what is decompressed before it, may have no end.

    Yields:
        Pieces that are not empty.

    Raises:
        Stopped: When it was told to stop.
        BrokenStream: When the compressed file breaks at or after the offset, after all that could be read.
        DataRejected: When the file cannot be read.
        MissingExtra: When zstandard is not installed.
    """
    try:
        with closing(opened(source)) as file:
            if not source.compression:
                file.seek(offset)
                yield from _until(stop, iter(lambda: file.read(PIECE_BYTES), b""))
                return
            start = _Gzip if source.compression == "gz" else _zstd()
            yield from _from(offset, _until(stop, _decompressed(file, start)))
    except OSError as error:
        raise unreadable(source, error) from None


def _until(stop: threading.Event | None, whole: Iterator[bytes]) -> Iterator[bytes]:
    for piece in whole:
        if stop is not None and stop.is_set():
            raise Stopped
        yield piece


def _from(offset: int, whole: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    try:
        for piece in whole:
            total += len(piece)
            if total > offset:
                yield piece[max(0, len(piece) - (total - offset)) :]
    except BrokenStream:
        if total >= offset:  # else the position to begin with lies behind the break
            raise


class _Inflater(Protocol):
    step: int
    errors: tuple[type[Exception], ...]

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> tuple[bytes, bool]: ...


class _Gzip:
    """Members of gzip, one after another."""

    step = _STORED_BYTES
    errors: tuple[type[Exception], ...] = (zlib.error,)

    def __init__(self) -> None:
        self._member: Any = None
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                if self._members and not (data := data.lstrip(b"\0")):  # tapes and some tools pad with zeros
                    return
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
                self._members += 1
            piece = self._member.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            if self._member.eof:
                data, self._member = self._member.unused_data, None
            else:
                data = self._member.unconsumed_tail

    def finish(self) -> tuple[bytes, bool]:
        if self._member is None:
            return b"", self._members > 0
        return self._member.flush(), self._member.eof


def _zstd() -> Callable[[], _Inflater]:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "batch") from None

    class Zstd:
        """Frames of zstd, one after another."""

        step = _ZSTD_STEP
        errors: tuple[type[Exception], ...] = (zstandard.ZstdError,)

        def __init__(self) -> None:
            self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            self._frame: Any = None
            self._frames = 0

        def feed(self, data: bytes) -> Iterator[bytes]:
            while data:
                if self._frame is None:
                    self._frame = self._context.decompressobj()
                    self._frames += 1
                piece = self._frame.decompress(data)
                if self._frame.eof:
                    data, self._frame = self._frame.unused_data, None
                else:
                    data = b""
                if piece:
                    yield piece

        def finish(self) -> tuple[bytes, bool]:
            return b"", self._frame is None and self._frames > 0

    return Zstd


def _decompressed(file: IO[bytes], start: Callable[[], _Inflater]) -> Iterator[bytes]:
    inflater, stored = start(), 0
    while data := file.read(_STORED_BYTES):
        for first in range(0, len(data), inflater.step):
            step, given = data[first : first + inflater.step], 0
            try:
                for piece in inflater.feed(step):
                    given += len(piece)
                    yield piece
            except inflater.errors:
                yield from _last_bytes(file, start, stored, step, given)
                raise BrokenStream("the file is damaged here: compress or copy it anew") from None
            stored += len(step)
    piece, complete = inflater.finish()
    if piece:
        yield piece
    if not complete:
        raise BrokenStream("the file ends too early: copy it anew, or wait until it is closed")


def _last_bytes(
    file: IO[bytes], start: Callable[[], _Inflater], stored: int, step: bytes, given: int
) -> Iterator[bytes]:
    """What the step that failed held before its damage: the libraries drop it, so it is read again byte by byte."""
    file.seek(0)
    inflater = start()
    for first in range(0, stored, inflater.step):
        for _ in inflater.feed(file.read(min(inflater.step, stored - first))):
            pass
    try:
        for index in range(len(step)):
            for piece in inflater.feed(step[index : index + 1]):
                fresh = piece[min(given, len(piece)) :]
                given -= len(piece) - len(fresh)
                if fresh:
                    yield fresh
    except inflater.errors:
        return
