"""Stores the rows of files lot by lot; a lot that is refused is halved until the rows at fault stand alone."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stillwatch.v1 import examples_pb2

from classifier.errors import DataRejected, ServiceFailed, TooManyItems
from classifier.remote import patiently
from classifier.transfer.messages import message_of
from classifier.transfer.reading import Entry, ExampleFile, Rejection
from classifier.transfer.schema import Reason, row_of
from index.errors import ExampleConflict, InvalidExample

MOST_REJECTED = 100_000
"""A file with more is no file of examples."""
_MOST_ITEMS = 128
_MOST_BYTES = 2**22
_ROW_BYTES = 256
"""Of a row, beside its texts."""
_MOST_NAME = 200
"""Characters of a file's name in the history."""
_TOLD_BY_STORE = {"id", "content_hash", "created", "revision", "changed"}


class Keeper(Protocol):
    """Where examples are kept: a client of a server, or of the local store."""

    def add_examples(
        self, examples: Sequence[examples_pb2.Example], request_id: str = "", *, reason: str = "", actor: str = ""
    ) -> examples_pb2.AddExamplesResponse:
        """Store examples, all or none."""


@dataclass(slots=True)
class Counts:
    """What came of an import.

    Attributes:
        stored: Rows whose example is in the store now.
        added: Those among them that this import brought.
        rejects: How many rows were rejected for which reason.
        unknown: Columns that were passed over.
    """

    stored: int = 0
    added: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)

    @property
    def rejected(self) -> int:
        """How many rows were rejected."""
        return self.rejects.total()


class Import:
    """One import of some files. To run it again with the same files changes nothing."""

    def __init__(self, keeper: Keeper, known: int | None, reject: Callable[[Rejection], None], actor: str = "") -> None:
        """Begin.

        Args:
            keeper: Where the examples are stored.
            known: The store's revision before the import: what is of it or earlier was there already; None where
                the importer may not read it, and the first lot's revision is taken for its own.
            reject: Takes each row that is not stored.
            actor: Who imports.
        """
        self._keeper, self._known, self._take, self._actor = keeper, known, reject, actor
        self.counts = Counts()

    def run(self, file: ExampleFile) -> None:
        """Store a file's examples; rows that cannot be are rejected, and the others go on.

        Args:
            file: The file.

        Raises:
            DataRejected: When the file cannot be read, or too many rows are rejected; what was stored stays.
            ServiceFailed: When a server cannot be asked, or refuses all; what was stored stays.
            StoreUnavailable: When the local store cannot be written; what was stored stays.
        """
        for lot in _lots(self._entries(file)):
            self._store(file.name, lot)
        self.counts.unknown |= file.unknown

    def _entries(self, file: ExampleFile) -> Iterator[Entry]:
        for found in file:
            if isinstance(found, Entry):
                yield found
            else:
                self._reject(found)

    def _reject(self, rejection: Rejection) -> None:
        self.counts.rejects[rejection.reason] += 1
        self._take(rejection)
        if self.counts.rejected > MOST_REJECTED:
            raise DataRejected(
                f"{rejection.file}: over {MOST_REJECTED:,} rows are rejected: see whether it holds examples at all; the "
                "rows that were stored stay"
            )

    def _store(self, file: str, lot: Sequence[Entry]) -> None:
        messages = [message_of(entry.example, entry.state) for entry in lot]
        why = f"import of {Path(file).name[-_MOST_NAME:]}"
        try:
            answer = patiently(
                lambda: self._keeper.add_examples(messages, _request_id(lot), reason=why, actor=self._actor)
            )
        except (ExampleConflict, InvalidExample, TooManyItems, ServiceFailed) as error:
            reason = _reason(error)
            if len(lot) > 1 and (reason or _is_late(error)):
                half = len(lot) // 2
                self._store(file, lot[:half])
                self._store(file, lot[half:])
            elif reason:
                self._reject_entry(file, lot[0], reason, str(error))
            else:
                raise
        else:
            self._count(file, lot, answer)

    def _count(self, file: str, lot: Sequence[Entry], answer: examples_pb2.AddExamplesResponse) -> None:
        known = answer.revision - 1 if self._known is None else self._known
        fresh = set()
        for entry, example in zip(lot, answer.examples, strict=True):
            if example.state == examples_pb2.EXAMPLE_STATE_REVOKED:  # it was imported so before, and taken back since
                detail = f"{example.id} was taken back: restore it, or leave the row out"
                self._reject_entry(file, entry, Reason.CONFLICT, detail)
                continue
            self.counts.stored += 1
            if example.revision > known:
                fresh.add(example.id)
        self.counts.added += len(fresh)
        self._known = max([known, *(example.revision for example in answer.examples)])

    def _reject_entry(self, file: str, entry: Entry, reason: Reason, detail: str) -> None:
        self._reject(Rejection(file, entry.row, reason.value, detail, entry.content))


def _lots(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Examples in requests that fit a server's limits; each is stored wholly or not at all."""
    lot: list[Entry] = []
    size = 0
    for entry in entries:
        example = entry.example
        texts = (example.text, example.source, example.author, example.note, example.licence)
        own = _ROW_BYTES + sum(len(text.encode()) for text in texts)
        if lot and (len(lot) == _MOST_ITEMS or size + own > _MOST_BYTES):
            yield lot
            lot, size = [], 0
        lot.append(entry)
        size += own
    if lot:
        yield lot


def _request_id(lot: Sequence[Entry]) -> str:
    """The lot's own name, by which the store knows it when it comes again."""
    digest = hashlib.sha256()
    for entry in lot:
        row = {name: value for name, value in row_of(entry.example).items() if name not in _TOLD_BY_STORE}
        digest.update(json.dumps([row, entry.state]).encode() + b"\n")
    return f"import-{digest.hexdigest()}"


def _is_late(error: Exception) -> bool:
    return isinstance(error, ServiceFailed) and error.code == "DEADLINE_EXCEEDED"


def _reason(error: Exception) -> Reason | None:
    """Why one of the rows is refused; None when the fault is not a row's."""
    if isinstance(error, ExampleConflict):
        return Reason.CONFLICT
    if isinstance(error, InvalidExample):
        return Reason.INVALID_EXAMPLE
    if isinstance(error, TooManyItems):
        return Reason.TOO_LARGE
    if not isinstance(error, ServiceFailed):
        return None
    if error.code == "RESOURCE_EXHAUSTED" and not error.reason:  # gRPC itself refuses a message over its limit so
        return Reason.TOO_LARGE
    return _WIRE_REASONS.get(error.reason)


_WIRE_REASONS = {
    "EXAMPLE_CONFLICT": Reason.CONFLICT,
    "INVALID_EXAMPLE": Reason.INVALID_EXAMPLE,
    "TOO_MANY_ITEMS": Reason.TOO_LARGE,
}
