"""What it takes for a file or a name to outlive a crash."""

import os
from pathlib import Path


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
