"""Where the rows go that an import does not store: a file of JSON Lines, and the first ones to the terminal."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from classifier.durable import whole_file
from classifier.errors import InvalidSetting
from classifier.transfer.reading import Rejection

_SHOWN = 10


class Rejects:
    """Takes rejected rows.

    Attributes:
        first: The first few, to be shown.
    """

    def __init__(self, file: IO[bytes] | None, *, include_rows: bool) -> None:
        """Write to an open file; without one keep only the first few."""
        self._file = file
        self._include_rows = include_rows
        self.first: list[Rejection] = []

    def __call__(self, rejection: Rejection) -> None:
        """Take a row."""
        if len(self.first) < _SHOWN:
            self.first.append(rejection)
        if self._file is not None:
            self._file.write(self._line(rejection))

    def _line(self, rejection: Rejection) -> bytes:
        said: dict[str, Any] = {
            "file": rejection.file,
            "row": rejection.row,
            "reason": rejection.reason,
            "detail": rejection.detail,
        }
        if self._include_rows:
            try:
                return _encoded({**said, "content": rejection.content})
            except (RecursionError, ValueError, TypeError):  # as deep as a parser goes, or a key that no JSON has
                said["content"] = None
        return _encoded(said)


def _encoded(said: dict[str, Any]) -> bytes:
    # In ASCII, so that half a surrogate that a row holds can be written.
    return json.dumps(said, default=_plain).encode() + b"\n"


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)


@contextmanager
def open_rejects(path: Path | None, inputs: list[Path], *, include_rows: bool = False) -> Iterator[Rejects]:
    """Open the file of rejected rows; it stands there, whole, when the import has ended.

    Args:
        path: The file; None writes none.
        inputs: The files that are imported.
        include_rows: Whether the rows themselves are written, which hold prompts.

    Yields:
        What takes the rows.

    Raises:
        InvalidSetting: When the file is one of those that are imported, or cannot stand there.
    """
    if path is None:
        yield Rejects(None, include_rows=include_rows)
        return
    if path.resolve() in [one.resolve() for one in inputs]:
        raise InvalidSetting(f"the rejects would replace {path}, which is imported: name another file")
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidSetting(f"{path} is no file that can be made: name a file in a folder that exists")
    with whole_file(path) as file:
        yield Rejects(file, include_rows=include_rows)
