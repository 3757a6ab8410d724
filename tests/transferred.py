"""What the tests of import and export share: made examples, files of them, and a keeper that holds them in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import strategies as st
from stillwatch.v1 import examples_pb2

from classifier.serve.convert_examples import example_in, example_out, filter_in, wanted_state
from classifier.transfer.reading import Entry, ExampleFile, Rejection, source_of
from classifier.transfer.schema import AS_WRITTEN, Choices
from index.errors import ExampleConflict
from index.example import Example, Label, State

FORMATS = ("jsonl", "csv", "parquet")
SUFFIXES = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "parquet")
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
TRICKY = st.sampled_from(
    [
        "\r",
        "\n",
        "\r\n",
        '"',
        '""',
        ",",
        ";",
        "=1+1",
        "-2",
        "@a",
        "\0",
        "\ufeff",
        "\u2028",
        "\U0001f600",
        " ",
        "\t",
        "é",
    ]
)


def texts(most: int = 40, *, forbidden: str = "") -> st.SearchStrategy[str]:
    """Texts that formats could break, without some characters."""
    letters = st.characters(codec="utf-8", exclude_characters=forbidden)
    parts = st.text(letters, max_size=8) | TRICKY.filter(lambda part: part not in forbidden or not part)
    return st.lists(parts, max_size=most // 4).map("".join)


def examples(forbidden: str = "") -> st.SearchStrategy[Example]:
    """Examples with every field, whatever a store may hold."""
    free = texts(forbidden=forbidden)
    return st.builds(
        _built,
        text=free.filter(lambda text: bool(text.strip())),
        technique=st.none() | NAMES,
        capabilities=st.lists(NAMES, max_size=3).map(tuple),
        language=st.sampled_from(["", "en", "pt-BR", "zh"]),
        source=free.filter(lambda text: text != "seed"),
        author=free,
        note=free,
        licence=free,
        state=st.sampled_from([State.ACTIVE, State.PENDING]),
        created=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001  # the bounds of a strategy with zones have none
        revision=st.integers(0, 2**63 - 1),
        changed=st.integers(0, 2**63 - 1),
    )


def _built(technique: str | None, **fields: object) -> Example:
    label = Label.EXTRACTION if technique else Label.BENIGN
    return Example(label=label, technique=technique, **fields)  # type: ignore[arg-type]  # as the strategies make them


def read(path: Path, choices: Choices = AS_WRITTEN) -> tuple[list[Example], list[Rejection]]:
    """A file's examples, and its rejected rows."""
    found = list(ExampleFile(source_of(path), choices))
    good = [one.example for one in found if isinstance(one, Entry)]
    return good, [one for one in found if isinstance(one, Rejection)]


class MemoryKeeper:
    """Keeps examples as a store does, behind the calls of a client; remembers how they came.

    Attributes:
        held: The examples by id.
        revision: Of the last write.
        writes: The number of examples of each write that was asked for.
    """

    def __init__(self, most_items: int = 256) -> None:
        """Begin empty."""
        self.held: dict[str, Example] = {}
        self.revision = 0
        self.writes: list[int] = []
        self._requests: dict[str, list[str]] = {}
        self._most = most_items

    def add_examples(
        self, examples: Sequence[examples_pb2.Example], request_id: str = "", *, reason: str = "", actor: str = ""
    ) -> examples_pb2.AddExamplesResponse:
        """Store all or none; a request id that comes again changes nothing."""
        assert 0 < len(request_id) <= 128
        assert len(reason) < 2_000
        self.writes.append(len(examples))
        if request_id not in self._requests:
            self._add(examples)
            self._requests[request_id] = [example_in(example).id for example in examples]
        stored = [example_out(self.held[name]) for name in self._requests[request_id]]
        return examples_pb2.AddExamplesResponse(examples=stored, revision=self.revision)

    def _add(self, messages: Sequence[examples_pb2.Example]) -> None:
        fresh: dict[str, Example] = {}
        for message in messages:
            state = wanted_state(message.state) or State.ACTIVE
            example = example_in(message, state=state).at_revision(self.revision + 1)
            held = (self.held | fresh).get(example.id)
            if held is not None and (not held.same_labels(example) or held.state is State.REVOKED):
                raise ExampleConflict(f"{example.id} holds this text with other labels: relabel or leave it out")
            if held is None:
                fresh[example.id] = example
        self.held |= fresh
        self.revision += bool(fresh)

    def revoke(self, id: str) -> None:
        """Take an example back."""
        self.held[id] = replace(self.held[id], state=State.REVOKED)

    def list_examples(
        self,
        page_size: int = 0,
        page_token: str = "",
        label: examples_pb2.Label.ValueType = examples_pb2.LABEL_UNSPECIFIED,
        source: str = "",
        *,
        state: examples_pb2.ExampleState.ValueType = examples_pb2.EXAMPLE_STATE_UNSPECIFIED,
        any_state: bool = False,
        as_of: int | None = None,
    ) -> examples_pb2.ListExamplesResponse:
        """A page, oldest first."""
        wanted = filter_in(
            examples_pb2.ListExamplesRequest(label=label, source=source, state=state, any_state=any_state)
        )
        found = [
            example
            for example in self.held.values()
            if wanted.label in (None, example.label)
            and wanted.state in (None, example.state)
            and (not source or example.source == source)
            and (as_of is None or example.revision <= as_of)
        ]
        first = int(page_token or 0)
        page = found[first : first + page_size]
        token = str(first + page_size) if first + page_size < len(found) else ""
        return examples_pb2.ListExamplesResponse(
            examples=map(example_out, page), next_page_token=token, revision=self.revision
        )
