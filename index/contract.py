"""What every example store does; `index.store.open_store` opens the one that an address names."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.change import Act, Change, Decision
from index.example import Example, Label, State


@dataclass(frozen=True, slots=True)
class Filter:
    """Which examples are wanted: those for which everything that is set holds.

    Attributes:
        label: Of this label.
        state: In this state; None for any.
        source: Of this source; "" for any.
        as_of: As they were at this revision; None for now.
    """

    label: Label | None = None
    state: State | None = None
    source: str = ""
    as_of: int | None = None


@dataclass(frozen=True, slots=True)
class Relabel:
    """Other labels for an example.

    Attributes:
        example_id: Whose.
        label: The new label.
        technique: The new technique; None for a benign example.
        capabilities: The new capabilities.
    """

    example_id: str
    label: Label
    technique: str | None
    capabilities: tuple[str, ...]


class ExampleStore(Protocol):
    """The source of truth for labelled examples. Every method is safe to call from any thread and any process.

    Every write is one transaction, one revision, durable before it returns; it happens wholly or not at all. A write
    that changes nothing makes no revision. A request id that was used before returns what that write returned, and is
    refused (InvalidExample) for another write. All raise StoreUnavailable when the store cannot be used.
    """

    def revision(self) -> int:
        """The number of the last write; 0 for an empty store."""

    def add(self, examples: Sequence[Example], act: Act) -> list[Example]:
        """Store all of the examples or none, in the state that each carries (pending or active).

        A text that is stored with the same labels is returned as it is. Raises ExampleConflict for a text that is
        stored with other labels (relabel it) or was revoked (restore it).
        """

    def accept(self, ids: Sequence[str], act: Act, *, by_another: bool = False) -> list[Example]:
        """Make pending examples active. With by_another, NotAllowed when the actor proposed or last relabelled one."""

    def reject(self, ids: Sequence[str], act: Act) -> list[Example]:
        """Make pending examples revoked."""

    def revoke(self, ids: Sequence[str], act: Act) -> list[Example]:
        """Make active or pending examples revoked; those that are revoked already stay so."""

    def revoke_source(self, source: str, act: Act) -> list[Example]:
        """Revoke every example of a source, as one revision."""

    def restore(self, ids: Sequence[str], act: Act, state: State = State.PENDING) -> list[Example]:
        """Bring revoked examples back, as pending ones or at once as active ones."""

    def relabel(self, relabels: Sequence[Relabel], act: Act) -> list[Example]:
        """Give examples other labels; their state stays."""

    def supersede(self, example_id: str, replacement: Example, act: Act) -> Example:
        """Revoke an example and add the one that takes its place, in one revision; returns the new one."""

    def replace_source(self, source: str, examples: Sequence[Example], act: Act) -> None:
        """Make the active examples of a source exactly these, in one revision; nothing happens when they are.

        A text that is stored under another source, in whatever state, stays as it is; and so does one of this source
        that somebody accepted, revoked, restored or relabelled by hand. What is no longer wanted is revoked; what was
        revoked so and is wanted again is restored.
        """

    def get(self, example_id: str) -> Example:
        """Return one example, in whatever state; ExampleNotFound."""

    def page(self, size: int, token: str = "", wanted: Filter = Filter()) -> tuple[list[Example], str]:
        """A page of examples, oldest first, of bounded bytes, and the token of the next page ("" on the last)."""

    def history(self, example_id: str) -> list[Change]:
        """Every change of one example, oldest first; ExampleNotFound."""

    def changes(self, after: int, size: int) -> list[Change]:
        """At most so many changes whose number is over `after`, oldest first."""

    def since(self, revision: int) -> list[Example]:
        """Every example that changed after a revision, as it is now and in whatever state, in the order of change.

        since(0) leaves out revoked ones: nobody needs to be told to forget what he never knew.
        """

    def at_revision(self, revision: int) -> list[Example]:
        """The examples that were active at a revision, as they were, oldest first."""

    def vectors(self, encoder: str, *, since: int = 0) -> dict[str, NDArray[np.float32]]:
        """The embeddings kept for an encoder, of examples that changed after a revision, by example id."""

    def unembedded(self, encoder: str) -> set[str]:
        """The ids of the examples that are not revoked and of which no embedding is kept for an encoder."""

    def keep_vectors(self, encoder: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep embeddings, so that a restart need not encode the examples again."""

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Keep reviewers' decisions; the last one on a prompt counts."""

    def decided(self, hashes: Collection[str]) -> dict[str, Decision]:
        """The decisions on prompts, by content hash."""

    def close(self) -> None:
        """Let go of every connection."""
