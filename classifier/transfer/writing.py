"""Writes examples as JSON Lines, CSV or Parquet: whole or not at all, the same bytes for the same examples."""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from classifier.batch.inputs import FORMATS, kind_of
from classifier.durable import whole_file
from classifier.errors import DataRejected, InvalidSetting, MissingExtra
from classifier.transfer.schema import COLUMNS, NAMES, SCHEMA_VERSION, VERSION, Kind, cells_of, row_of
from index.example import Example

_BATCH_ROWS = 64
"""Rows of Parquet that are converted at once: of the longest texts 25 MB."""
_GROUP_BYTES = 16 * 2**20
"""Of an open row group, as Arrow holds it."""


def write_examples(path: Path, examples: Iterable[Example], format: str | None = None) -> int:
    """Write examples to a file, in the order given.

    Args:
        path: The file; one that is there is replaced when all is written.
        examples: The examples; they are taken one by one.
        format: jsonl, csv or parquet; None tells by the name's suffix. JSON Lines and CSV are compressed where the
            name ends in .gz or .zst.

    Returns:
        How many examples were written.

    Raises:
        InvalidSetting: When the format is unknown, or the file cannot stand there.
        DataRejected: When an example cannot be written in this format.
        MissingExtra: When pyarrow or zstandard is not installed.
    """
    chosen, compression = check_output(path, format)
    write = {"jsonl": _write_lines, "csv": _write_records, "parquet": _write_table}[chosen]
    with whole_file(path) as file, _compressed(file, compression) as stream:
        return write(stream, examples)


def check_output(path: Path, format: str | None = None) -> tuple[str, str]:
    """See that a file can be written, before anything is read for it.

    Args:
        path: The file.
        format: jsonl, csv or parquet; None tells by the name's suffix.

    Returns:
        The format, and the compression: "gz", "zst" or "".

    Raises:
        InvalidSetting: When the format is unknown, or the file cannot stand there.
    """
    known, compression = kind_of(path.name)
    chosen = format or known
    if chosen not in FORMATS:
        raise InvalidSetting(f"{path} has no known suffix: name the format ({', '.join(FORMATS)})")
    if chosen == "parquet" and compression:
        raise InvalidSetting(f"{path}: Parquet is compressed within: leave out .{compression}")
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidSetting(f"{path} is no file that can be made: name a file in a folder that exists")
    return chosen, compression


def _write_lines(file: IO[bytes], examples: Iterable[Example]) -> int:
    count = 0
    for example in examples:
        count += 1
        file.write(json.dumps(row_of(example), ensure_ascii=False, default=datetime.isoformat).encode() + b"\n")
    return count


def _write_records(file: IO[bytes], examples: Iterable[Example]) -> int:
    count = 0
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(NAMES)
    for example in examples:
        count += 1
        cells = cells_of(row_of(example))
        if any("\0" in cell for cell in cells):
            raise DataRejected(
                f"{example.id} holds a NUL character, which CSV cannot: write JSON Lines or Parquet, or revoke it"
            )
        writer.writerow(cells)
    text.detach()
    return count


def _write_table(file: IO[bytes], examples: Iterable[Example]) -> int:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "batch") from None
    kinds = {
        Kind.TEXT: pa.string(),
        Kind.NAMES: pa.list_(pa.string()),
        Kind.NUMBER: pa.int64(),
        Kind.TIME: pa.timestamp("us", "UTC"),
    }
    fields = [pa.field(column.name, kinds[column.kind], nullable=not column.needed) for column in COLUMNS]
    schema = pa.schema(fields, metadata={VERSION: str(SCHEMA_VERSION)})
    count = size = 0
    waiting: list[Any] = []
    rest = iter(examples)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rest, _BATCH_ROWS)):
            waiting.append(pa.RecordBatch.from_pylist([row_of(example) for example in group], schema=schema))
            count += len(group)
            size += waiting[-1].nbytes
            if size >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema))
    return count


@contextmanager
def _compressed(file: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    if compression == "gz":
        # Neither name nor time, so that the same examples give the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
            yield stream  # type: ignore[misc]  # writes alike
    elif compression == "zst":
        try:
            import zstandard
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "batch") from None
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as stream:
            yield stream
    else:
        yield file
