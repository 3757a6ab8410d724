"""A review in progress: what a reviewer decides, one step of it still to be taken back, and what comes of it."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from classifier.desk.queue import Item
from index.change import Act, Action, Change, Choice, Decision
from index.example import Example, Label, State

SOURCE = "review"
_PROPOSING = (Action.ADD, Action.RESTORE, Action.RELABEL)


class Writer(Protocol):
    """Where decisions go: an example store, or whatever brings its writes into the index as well."""

    def add(self, examples: Sequence[Example], act: Act) -> list[Example]:
        """Store all of the examples or none."""

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Keep reviewers' decisions."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """What an accepted prompt is an example of.

    Attributes:
        label: Extraction-style, or benign.
        technique: The extraction technique; None for a benign example.
        capabilities: The capabilities that it targets.
    """

    label: Label
    technique: str | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """One decision.

    Attributes:
        item: About which prompt.
        choice: To make an example of it, to say that it is none, or to leave it.
        labelling: What it is an example of, where it is accepted.
        reason: Why, in free words.
        at: When (UTC).
        request_id: Of the write that it makes, so that a repeated one changes nothing.
    """

    item: Item
    choice: Choice
    labelling: Labelling | None
    reason: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    request_id: str = field(default_factory=lambda: f"review-{secrets.token_hex(16)}")

    def example(self, actor: str, state: State) -> Example | None:
        """The example that comes of it; None where none does.

        Args:
            actor: Who decides.
            state: In which state it is stored.

        Returns:
            The example.

        Raises:
            InvalidExample: When the labels do not fit each other.
        """
        if self.labelling is None:
            return None
        return Example(
            text=self.item.prompt,
            label=self.labelling.label,
            technique=self.labelling.technique,
            capabilities=self.labelling.capabilities,
            source=SOURCE,
            author=actor,
            note=self.reason,
            created=self.at,
            state=state,
        )


class Review:
    """Steps through a queue. A decision is committed when the next one is made, so that the last one can be taken back.

    Used from one thread.

    Attributes:
        items: What is reviewed.
        committed: How many decisions are committed.
    """

    def __init__(self, items: Sequence[Item], commit: Callable[[Judgement], object]) -> None:
        """Begin at the first item.

        Args:
            items: What is reviewed.
            commit: Makes a decision durable; `write_to` makes one.
        """
        self.items = tuple(items)
        self.committed = 0
        self._commit = commit
        self._place = 0
        self._held: Judgement | None = None

    @property
    def place(self) -> int:
        """The number of the item at which the review stands, from 0; len(items) at the end."""
        return self._place

    @property
    def current(self) -> Item | None:
        """The item at which the review stands; None at the end."""
        return self.items[self._place] if self._place < len(self.items) else None

    @property
    def held(self) -> Judgement | None:
        """The decision that can still be taken back."""
        return self._held

    @staticmethod
    def suggested(item: Item) -> Labelling:
        """What the model would call a prompt."""
        attack = item.label == Label.EXTRACTION
        return Labelling(item.label, item.technique if attack else None, item.capabilities)

    def decide(self, choice: Choice, labelling: Labelling | None = None, reason: str = "") -> Judgement:
        """Decide the current item, and commit the decision before.

        Args:
            choice: What is decided.
            labelling: What an accepted prompt is; None takes what the model suggests. Of no use for other choices.
            reason: Why.

        Returns:
            The decision, which can be taken back until the next one.

        Raises:
            InvalidExample: When the labels do not fit each other; nothing is changed.
            ExampleConflict: From the decision before, as whatever else its commit raises; nothing is changed, and it
                can be tried again, or taken back.
            ValueError: When there is no current item.
        """
        item = self.current
        if item is None:
            raise ValueError("the review is at its end")
        accepted = (labelling or self.suggested(item)) if choice is Choice.ACCEPT else None
        judgement = Judgement(item, choice, accepted, reason)
        judgement.example("", State.PENDING)
        self.flush()
        self._held = judgement
        self._place += 1
        return judgement

    def back(self) -> bool:
        """Take the last decision back and stand at its item again.

        Returns:
            False when there is none that is not committed yet.
        """
        if self._held is None:
            return False
        self._held = None
        self._place -= 1
        return True

    def flush(self) -> None:
        """Commit the decision that is still held; whoever ends a review calls it.

        Raises:
            IndexRoomError: What the commit raises; the decision is still held.
        """
        if self._held is not None:
            self._commit(self._held)
            self._held = None
            self.committed += 1


def write_to(writer: Writer, actor: str, state: State) -> Callable[[Judgement], Example | None]:
    """Make decisions durable in a store.

    Args:
        writer: The store.
        actor: Who decides.
        state: In which state accepted prompts are stored; `state_of` says which.

    Returns:
        Commits a decision and returns the example that came of it. What fails half-way is finished by trying again.
    """

    def commit(judgement: Judgement) -> Example | None:
        example = judgement.example(actor, state)
        if example is not None:
            (example,) = writer.add([example], Act(actor, judgement.reason, judgement.request_id))
        writer.decide(
            [
                Decision(
                    judgement.item.content_hash,
                    judgement.choice,
                    actor,
                    judgement.reason,
                    judgement.at,
                    "" if example is None else example.id,
                )
            ]
        )
        return example

    return commit


def state_of(*, pending_by_default: bool, two_person_rule: bool) -> State:
    """In which state an analyst's example is stored: where two must agree, nobody's own word makes it count."""
    return State.PENDING if pending_by_default or two_person_rule else State.ACTIVE


def may_accept(history: Sequence[Change], actor: str) -> bool:
    """Whether the rule of two lets somebody accept a pending example.

    He may not when he proposed it, last restored it or last relabelled it himself. The store holds to it by itself (`ExampleStore.accept` with by_another); this says so before it is tried.

    Args:
        history: The example's changes, oldest first.
        actor: Who would accept it.

    Returns:
        False where somebody else must.
    """
    words = {change.action: change.actor for change in history if change.action in _PROPOSING}
    return actor not in words.values()
