"""The rows whose decision changed between two runs, as a table and as a Parquet file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from classifier.batch.compare import Joined, Run
from classifier.batch.output import check_local
from classifier.durable import TEMPORARY, sync_folder
from classifier.errors import InvalidSetting

SHARED = ("offset", "account", "key", "request_id", "time", "template")
COMPARED = (
    "decision",
    "extraction_probability",
    "extraction_logit",
    "technique",
    "abstention",
    "nearest_ids",
    "nearest_similarities",
)


def changed_rows(joined: Joined, places: pa.Array) -> pa.Table:
    """Some rows of a stretch, with what both runs say of them.

    Args:
        joined: The stretch.
        places: Which of its rows.

    Returns:
        File, row, item and SHARED as in the first run; each of COMPARED with _a for the first run and _b for the second.
    """
    before, after = joined.before.take(places), joined.after.take(places)
    name = joined.source.encode("utf-8", "surrogateescape").decode(errors="replace")
    columns = {"file": pa.array([name] * len(places), pa.string())}
    columns |= {one: before[one] for one in ("row", "item", *SHARED)}
    for one in COMPARED:
        columns |= {f"{one}_a": before[one], f"{one}_b": after[one]}
    return pa.table(columns)


class ChangedRows:
    """Writes changed rows under a temporary name until all are there; without an output it writes nothing."""

    def __init__(self, output: Path | None) -> None:
        """Begin; no file is made before there are rows.

        Args:
            output: The file, or None.
        """
        self._output = output
        self._fresh = None if output is None else output.with_name(f"{TEMPORARY}{os.getpid()}-{output.name}")
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Take rows, none at first among them: then the file has columns and no rows."""
        if self._fresh is None:
            return
        self._writer = self._writer or pq.ParquetWriter(self._fresh, rows.schema, compression="zstd")
        if len(rows):
            self._writer.write_table(rows)

    def finish(self) -> None:
        """Make the file durable under its own name."""
        if self._writer is None or self._fresh is None or self._output is None:
            return
        self._writer.close()
        with self._fresh.open("rb") as file:
            os.fsync(file.fileno())
        self._fresh.replace(self._output)
        sync_folder(self._output.parent)

    def discard(self) -> None:
        """Remove what was not finished."""
        if self._writer is not None and self._fresh is not None and self._fresh.exists():
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
            self._fresh.unlink(missing_ok=True)


@contextmanager
def written(output: Path | None) -> Iterator[ChangedRows]:
    """Write changed rows; nothing stays of a file that was not finished.

    Args:
        output: The file, or None.

    Yields:
        What writes them.
    """
    file = ChangedRows(output)
    try:
        yield file
        file.finish()
    finally:
        file.discard()


def check_output(output: Path, runs: tuple[Run, Run]) -> None:
    """Refuse an output that would harm a run or cannot be made.

    Args:
        output: The file.
        runs: The runs that are compared.

    Raises:
        InvalidSetting: When the output is a URL, lies in one of the runs, is a folder, or in none.
    """
    check_local(output)
    for run in runs:
        if output.resolve().is_relative_to(run.folder.resolve()):
            raise InvalidSetting(f"the output {output} lies in a run: name a file elsewhere")
    if output.is_dir() or not output.parent.is_dir():
        raise InvalidSetting(f"the output {output} is no file that can be made: name a file in a folder that exists")
