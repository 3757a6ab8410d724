"""Logs for tests: how they are written, read as a whole, and read by a process whose memory is measured."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import zstandard

from classifier.batch.inputs import Source, find
from classifier.batch.reading import Position, read
from classifier.batch.record import Record, Reject
from classifier.batch.shapes import Shape

AUTO = Shape.named("auto")


Read = list[tuple[Record | Reject, Position]]


def pack(data: bytes, suffix: str) -> bytes:
    if suffix.endswith(".gz"):
        return gzip.compress(data)
    return zstandard.compress(data) if suffix.endswith(".zst") else data


def source_of(folder: Path, data: bytes, suffix: str = "jsonl") -> Source:
    path = folder / f"log.{suffix}"
    path.write_bytes(data)
    (source,) = find([str(path)])
    return source


def read_all(source: Source, shape: Shape = AUTO, **arguments: Any) -> Read:
    return list(read(source, shape, **arguments))


def reasons_of(found: Read) -> list[str]:
    return ["" if isinstance(one, Record) else one.reason for one, _ in found]


def prompts_of(found: Read) -> list[str]:
    return [one.prompt for one, _ in found if isinstance(one, Record)]


MEASURE = """
import re, sys
from classifier.batch.inputs import find
from classifier.batch.reading import read
from classifier.batch.shapes import Shape
def most():  # what getrusage tells is at least what the parent had when it made this process
    return int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read()).group(1))
(source,) = find([sys.argv[1]])
before = most()
found = [getattr(one, "reason", "record") for one, _ in read(source, Shape.named("auto"))]
print(*found, (most() - before) // 1024)
"""


def measured(path: Path) -> tuple[list[str], int]:
    """What a process of its own reads, and by how many MiB its memory grows."""
    command = [sys.executable, "-c", MEASURE, str(path)]
    *found, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return found, int(grown)
