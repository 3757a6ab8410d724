"""The example verbs, on a server or on the local store."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from stillwatch.v1 import examples_pb2

from classifier.client import Client
from classifier.config import Settings
from classifier.errors import DataRejected, StillwatchError
from classifier.rows import read_rows
from classifier.runtime import Runtime, open_runtime
from classifier.serve import convert
from index.errors import InvalidExample
from index.example import Example, Label

_LABELS = {"extraction": examples_pb2.LABEL_EXTRACTION, "benign": examples_pb2.LABEL_BENIGN}
_PAGE = 50
_MOST_ITEMS = 128
_MOST_BYTES = 2**22


class Examples(Protocol):
    """Where examples are kept."""

    def add(self, examples: list[examples_pb2.Example]) -> list[examples_pb2.Example]:
        """Store all of the examples or none, and return them as they are stored."""

    def list(self, label: str | None, source: str, limit: int) -> list[examples_pb2.Example]:
        """The first examples, oldest first."""


@contextmanager
def open_examples(settings: Settings, server: str | None) -> Iterator[Examples]:
    """Open the examples of a server, or those of the local store.

    Args:
        settings: Where the local store is.
        server: Host and port, or None.

    Yields:
        The opened examples.
    """
    if server is not None:
        with Client(server) as client:
            yield _Remote(client)
    else:
        with open_runtime(settings) as runtime:
            yield _Local(runtime)


def read_examples(file: Path, source: str) -> list[examples_pb2.Example]:
    """Read a file of examples.

    Args:
        file: JSON Lines of {text, label, technique, capabilities, language, source, author, note}.
        source: The source of rows that name none.

    Returns:
        The examples, each of them valid.

    Raises:
        DataRejected: When the file cannot be read or a row is no example; the message names the line.
    """
    examples = []
    for number, row in read_rows(file):
        try:
            example = example_row({**row, "source": row.get("source") or source})
            convert.example_in(example)
        except (StillwatchError, InvalidExample) as error:
            raise DataRejected(f"{file.name}, line {number}: {error}; nothing was imported") from None
        examples.append(example)
    return examples


def example_row(row: Mapping[str, object]) -> examples_pb2.Example:
    """A row of JSON as an example.

    Args:
        row: text, label, technique, capabilities, language, source, author, note.

    Returns:
        The wire message; not yet checked as a whole.

    Raises:
        InvalidExample: When a field is of the wrong type, or the label is unknown.
    """
    capabilities = row.get("capabilities") or []
    if not isinstance(row.get("text"), str):
        raise InvalidExample("text is missing: give the prompt")
    if row.get("label") not in _LABELS:
        raise InvalidExample('label must be "extraction" or "benign"')
    if not isinstance(capabilities, list) or not all(isinstance(name, str) for name in capabilities):
        raise InvalidExample("capabilities must be a list of names")
    try:
        return examples_pb2.Example(
            text=str(row["text"]),
            label=_LABELS[str(row["label"])],
            technique=str(row.get("technique") or ""),
            capabilities=capabilities,
            language=str(row.get("language") or ""),
            source=str(row.get("source") or ""),
            author=str(row.get("author") or ""),
            note=str(row.get("note") or ""),
        )
    except UnicodeEncodeError:
        raise InvalidExample("a field holds an unpaired surrogate: give valid Unicode") from None


class _Remote:
    def __init__(self, client: Client) -> None:
        self._client = client

    def add(self, examples: list[examples_pb2.Example]) -> list[examples_pb2.Example]:
        stored: list[examples_pb2.Example] = []
        for group in _groups(examples):
            stored += self._client.add_examples(group).examples
        return stored

    def list(self, label: str | None, source: str, limit: int) -> list[examples_pb2.Example]:
        found: list[examples_pb2.Example] = []
        token = ""
        while len(found) < limit:
            wanted = min(_PAGE, limit - len(found))
            page = self._client.list_examples(wanted, token, _label(label), source)
            found += page.examples
            token = page.next_page_token
            if not token:
                break
        return found


class _Local:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def add(self, examples: list[examples_pb2.Example]) -> list[examples_pb2.Example]:
        stored = self._runtime.examples.add([convert.example_in(example) for example in examples])
        return [convert.example_out(example) for example in stored]

    def list(self, label: str | None, source: str, limit: int) -> list[examples_pb2.Example]:
        wanted = None if label is None else Label(_known(label))
        found: list[Example] = []
        token = ""
        while len(found) < limit:
            page, token = self._runtime.store.page(min(_PAGE, limit - len(found)), token, wanted, source)
            found += page
            if not token:
                break
        return [convert.example_out(example) for example in found]


def _groups(examples: list[examples_pb2.Example]) -> Iterator[list[examples_pb2.Example]]:
    """Examples in requests that fit a server's limits; each is stored wholly or not at all."""
    group: list[examples_pb2.Example] = []
    size = 0
    for example in examples:
        if group and (len(group) == _MOST_ITEMS or size + example.ByteSize() > _MOST_BYTES):
            yield group
            group, size = [], 0
        group.append(example)
        size += example.ByteSize()
    if group:
        yield group


def _label(label: str | None) -> examples_pb2.Label.ValueType:
    return examples_pb2.LABEL_UNSPECIFIED if label is None else _LABELS[_known(label)]


def _known(label: str) -> str:
    if label not in _LABELS:
        raise InvalidExample('label must be "extraction" or "benign"')
    return label
