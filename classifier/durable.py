"""What outlives a crash: files that are whole or not there, appended lines, names in folders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

TEMPORARY = ".writing-"
"""Begins the name of every file that is not whole yet; readers of Parquet folders pass over names with a dot."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is durable and never seen half written; an error leaves what stood there before.

    Args:
        path: Where it shall stand.

    Yields:
        The file to write to.
    """
    fresh = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    file = fresh.open("wb")
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        fresh.replace(path)
    except BaseException:
        # A disk that is full refuses what closing would write as well; the file goes anyway.
        with suppress(OSError):
            file.close()
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file, durably; what an interrupted append left of a line is dropped first.

    Args:
        path: The file; it is made when it is not there. Only one writer may append at a time.
        line: The line, without its end.
    """
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(whole_bytes(file.read()))
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def whole_bytes(data: bytes) -> int:
    """How many of the bytes are whole lines."""
    return data.rfind(b"\n") + 1
