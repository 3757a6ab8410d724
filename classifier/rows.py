"""Reads files of rows: JSON Lines, plain or gzip, with bounds, naming file and line of what is wrong."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from classifier.errors import DataRejected

MAX_LINE_BYTES = 16 * 2**20
MAX_BYTES = 4 * 2**30


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Read a .jsonl or .jsonl.gz file.

    Args:
        path: The file.

    Yields:
        Line number, from 1, and the line's object. Empty lines are passed over.

    Raises:
        DataRejected: When the file cannot be read, or a line is no JSON object.
    """
    try:
        with _opened(path) as file:
            yield from parse_rows(file, path.name)
    except (OSError, EOFError, zlib.error) as error:
        raise DataRejected(f"{path} cannot be read ({type(error).__name__}): check the name and the file") from None


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]  # reads alike


def parse_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Read an open file of JSON Lines.

    Args:
        file: Bytes.
        name: What to call it in messages.

    Yields:
        Line number, from 1, and the line's object.

    Raises:
        DataRejected: When a line is over the limit, no UTF-8, or no JSON object.
    """
    number = total = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        total += len(line)
        if len(line) > MAX_LINE_BYTES or total > MAX_BYTES:
            raise DataRejected(f"{name}, line {number}: over {MAX_LINE_BYTES} bytes (file: {MAX_BYTES}): split it")
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            raise DataRejected(f"{name}, line {number}: not valid JSON in UTF-8: mend or remove the line") from None
        if not isinstance(row, dict):
            raise DataRejected(f"{name}, line {number}: must be a JSON object")
        yield number, row
