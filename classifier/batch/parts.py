"""Parts of a run's output: written under a temporary name, synced and renamed, so that a part that is there is whole."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from classifier.batch.inputs import Source
from classifier.batch.reading import Position
from classifier.batch.record import Reject
from classifier.batch.tables import REJECTS, Columns, Row, reject_table
from classifier.durable import TEMPORARY, sync_folder, whole_file
from classifier.errors import RunRefused

SCORES, REJECTED = "scores", "rejects"
_KEY = b"stillwatch.part"
_GROUP_ROWS = 16_384
_GROUP_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """What a part says of itself, in its Parquet metadata.

    Attributes:
        fingerprint: Of the run's bundle, examples and settings.
        source: The input's name.
        stamp: The input's, as it was read.
        number: The part's among those of its input, from 0.
        first: Where its first row begins.
        next: Where the row after its last one begins.
        last: Whether the input ends here.
        cut: Whether it ends here because of a limit alone; a run that may read on scores it anew.
        scored: Requests with a row in this part.
        skipped: Requests that neither sample nor conditions took.
        repeats: Scored requests that were scored for an earlier one of this part.
        untimed: Scored requests without a time that could be read.
        decisions: How many requests have which decision.
        rejects: How many rows were rejected for which reason.
    """

    fingerprint: str
    source: str
    stamp: str
    number: int
    first: Position
    next: Position
    last: bool
    cut: bool = False
    scored: int = 0
    skipped: int = 0
    repeats: int = 0
    untimed: int = 0
    decisions: Mapping[str, int] = field(default_factory=dict)
    rejects: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """How many rows were rejected."""
        return sum(self.rejects.values())

    @property
    def taken(self) -> int:
        """How many requests and rejected rows count for a limit."""
        return self.scored + self.rejected

    @property
    def read(self) -> int:
        """How many requests and rejected rows were read."""
        return self.taken + self.skipped

    @property
    def name(self) -> str:
        """The file's name."""
        return part_name(self.source, self.number, self.fingerprint)


def part_name(source: str, number: int, fingerprint: str) -> str:
    """A part's file name.

    Args:
        source: The input's name.
        number: The part's among those of its input.
        fingerprint: The run's.

    Returns:
        A name that no other input, part or run has, and that sorts by input and number.
    """
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", source.rpartition("/")[2])[:48].strip("-") or "input"
    return f"{stem}-{digest}-{number:06}-{fingerprint[:8]}.parquet"


class PartWriter:
    """Writes one part, with its rejects beside it. What is not finished leaves nothing but temporary files."""

    def __init__(self, folder: Path, columns: Columns, source: Source, fingerprint: str, number: int) -> None:
        """Begin a part; no file is made before there is something to write.

        Args:
            folder: The run's output.
            columns: What the scores' table holds.
            source: The input.
            fingerprint: The run's.
            number: The part's among those of its input.
        """
        self._folder, self._columns, self._source = folder, columns, source
        self._fingerprint, self._number = fingerprint, number
        self._name = part_name(source.name, number, fingerprint)
        self._rows: list[pa.Table] = []
        self._waiting_bytes = 0
        self._scores: _File | None = None
        self._rejects: list[Reject] = []
        self._rejects_file: _File | None = None
        self._decisions: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._scored = self._skipped = self._repeats = self._untimed = 0

    def add(self, rows: list[Row], rejects: list[Reject], skipped: int) -> None:
        """Take what comes next in the input's order.

        Args:
            rows: Scored requests.
            rejects: Rows that could not be.
            skipped: How many requests were not to be scored.
        """
        self._scored += len(rows)
        self._skipped += skipped
        self._repeats += sum(row.repeat for row in rows)
        self._untimed += sum(row.time is None for row in rows)
        self._decisions.update(row.outcome.decision for row in rows)
        self._reasons.update(str(reject.reason) for reject in rejects)
        if rows:
            table = self._columns.table(rows)
            self._rows.append(table)
            self._waiting_bytes += table.nbytes
            if sum(map(len, self._rows)) >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
                self._flush_scores()
        self._rejects += rejects
        if len(self._rejects) >= _GROUP_ROWS:
            self._flush_rejects()

    def finish(self, first: Position, next: Position, *, last: bool, cut: bool = False) -> Part:
        """Make the part durable under its own name; its rejects are there before it is.

        Args:
            first: Where its first row begins.
            next: Where the row after its last one begins.
            last: Whether the input ends here.
            cut: Whether it ends here because of the limit alone.

        Returns:
            The part.
        """
        part = Part(
            fingerprint=self._fingerprint,
            source=self._source.name,
            stamp=self._source.stamp,
            number=self._number,
            first=first,
            next=next,
            last=last,
            cut=cut,
            scored=self._scored,
            skipped=self._skipped,
            repeats=self._repeats,
            untimed=self._untimed,
            decisions=dict(sorted(self._decisions.items())),
            rejects=dict(sorted(self._reasons.items())),
        )
        if self._rejects:
            self._flush_rejects()
        if self._rejects_file:
            self._rejects_file.finish(part)
        self._flush_scores()
        if self._scores:
            self._scores.finish(part)
        return part

    def discard(self) -> None:
        """Remove what was written so far."""
        for file in (self._scores, self._rejects_file):
            if file:
                file.discard()

    def _flush_scores(self) -> None:
        schema = self._columns.schema
        self._scores = self._scores or _File(self._folder / SCORES / self._name, schema)
        # A part of no rows is a file, too: it says how far its input was read.
        self._scores.write(pa.concat_tables(self._rows) if self._rows else schema.empty_table())
        self._rows, self._waiting_bytes = [], 0

    def _flush_rejects(self) -> None:
        self._rejects_file = self._rejects_file or _File(self._folder / REJECTED / self._name, REJECTS)
        self._rejects_file.write(reject_table(self._rejects))
        self._rejects = []


class _File:
    """A Parquet file under a temporary name."""

    def __init__(self, final: Path, schema: pa.Schema) -> None:
        self._final = final
        self._path = final.with_name(f"{TEMPORARY}{os.getpid()}-{final.name}")
        self._file: IO[bytes] = self._path.open("wb")
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def finish(self, part: Part) -> None:
        said = json.dumps(asdict(part), ensure_ascii=True).encode()
        self._writer.add_key_value_metadata({_KEY: said})
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(self._final)
        sync_folder(self._path.parent)

    def discard(self) -> None:
        # A disk that is full refuses what closing would write as well; the file goes anyway.
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside a run's parts; it is durable, and never seen half written.

    Args:
        path: Where it shall stand.
        data: What it holds.
    """
    with whole_file(path) as file:
        file.write(data)


def read_parts(output: Path, *, mend: bool = False) -> Iterator[Part]:
    """What the finished parts of a run say of themselves.

    Args:
        output: The run's output.
        mend: Whether a part that a limit cut short is removed where a kill came while a longer one took its place, so
            that it is scored again.

    Yields:
        The parts, by file name.

    Raises:
        RunRefused: When a file among them is no part, or a part's rejects are not there.
    """
    for path in sorted((output / SCORES).glob("[!.]*.parquet")):
        part, rows = _read(path)
        if rows != part.scored:
            raise RunRefused(f"{path} has {rows} rows and should have {part.scored}: remove it, and run again")
        beside = output / REJECTED / path.name
        if part.cut and mend and (_read(beside) if beside.exists() else (part, 0)) != (part, part.rejected):
            path.unlink()  # the longer part's rejects came, the part itself did not
            sync_folder(path.parent)
            continue
        if part.rejected and _read(beside) != (part, part.rejected):
            raise RunRefused(f"{beside} does not fit its part: remove it and {path}, and run again")
        yield part


def _read(path: Path) -> tuple[Part, int]:
    try:
        footer = pq.read_metadata(path)
        said = json.loads((footer.metadata or {})[_KEY])
        for name in ("first", "next"):
            said[name] = Position(**said[name])
        part = Part(**said)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        kind = type(error).__name__
        raise RunRefused(
            f"{path} is no part of a run ({kind}): remove it and the file of the same name beside it"
        ) from None
    if part.name != path.name:
        raise RunRefused(f"{path} is a part under another name ({part.name}): rename or remove it")
    return part, footer.num_rows


def load(output: Path) -> ds.Dataset:
    """A run's scored rows.

    Args:
        output: The run's output.

    Returns:
        All finished parts as one dataset, which reads what is asked of it and no more.
    """
    return ds.dataset(output / SCORES, format="parquet")


def load_rejects(output: Path) -> ds.Dataset:
    """A run's rows that could not be scored.

    Args:
        output: The run's output.

    Returns:
        All of them as one dataset.
    """
    return ds.dataset(output / REJECTED, format="parquet", schema=REJECTS)
