"""Walks over the examples of a store as they were at one revision, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from stillwatch.v1 import examples_pb2

from classifier.corpus import SOURCE as SEED_SOURCE
from classifier.remote import patiently
from classifier.transfer.messages import example_of_message, label_number, state_number
from index.example import Example, Label, State

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which examples are exported: those for which everything that is set holds.

    Attributes:
        label: Of this label.
        state: In this state; None for pending and active ones.
        source: Of this source; "" for any but that of the bundle's own examples.
        as_of: As they were at this revision; None for now.
    """

    label: Label | None = None
    state: State | None = None
    source: str = ""
    as_of: int | None = None


class Lister(Protocol):
    """What gives examples page by page: a client of a server, or of the local store."""

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
        """Return a page of examples, oldest first."""


def stored_examples(lister: Lister, wanted: Wanted) -> Iterator[Example]:
    """The examples that are wanted, whatever is written meanwhile.

    Args:
        lister: Where they are.
        wanted: Which.

    Yields:
        The examples, oldest first.

    Raises:
        ServiceFailed: When a server cannot be asked, or refuses.
        StoreUnavailable: When the local store cannot be read.
    """
    as_of = wanted.as_of if wanted.as_of is not None else revision_of(lister)
    label, state = label_number(wanted.label), state_number(wanted.state)
    token = ""
    while True:
        page = patiently(
            lambda token=token: lister.list_examples(  # type: ignore[misc]  # the token of this turn
                _PAGE, token, label, wanted.source, state=state, any_state=wanted.state is None, as_of=as_of
            )
        )
        for message in page.examples:
            example = example_of_message(message)
            if _is_wanted(example, wanted):
                yield example
        token = page.next_page_token
        if not token:
            return


def revision_of(lister: Lister) -> int:
    """The store's revision now."""
    return patiently(lambda: lister.list_examples(1)).revision


def _is_wanted(example: Example, wanted: Wanted) -> bool:
    if wanted.state is None and example.state is State.REVOKED:
        return False
    return bool(wanted.source) or example.source != SEED_SOURCE
