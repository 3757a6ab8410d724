"""What was done to an example, by whom and why: the store's history."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from index.example import Label, State


class Action(StrEnum):
    """What a change does."""

    ADD = "add"
    ACCEPT = "accept"
    REJECT = "reject"
    REVOKE = "revoke"
    RESTORE = "restore"
    RELABEL = "relabel"
    SUPERSEDE = "supersede"


@dataclass(frozen=True, slots=True)
class Act:
    """Who writes, and why.

    Attributes:
        actor: Who.
        reason: Why, in free words.
        request_id: The writer's own name for this write, so that a repeated one changes nothing; None for a write that
            is never repeated.
    """

    actor: str
    reason: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one example. Changes are only ever appended.

    Attributes:
        number: Its place among all changes, from 1.
        revision: The store's revision that it belongs to; one write makes one revision, of one or many changes.
        example_id: Whose.
        action: What was done.
        state: The example's state after it.
        label: Its label after it.
        technique: Its technique after it.
        capabilities: Its capabilities after it, sorted.
        actor: Who did it.
        reason: Why.
        at: When (UTC).
        request_id: The writer's own name for the write, or "".
        replacement: The id of the example that supersedes it, or "".
    """

    number: int
    revision: int
    example_id: str
    action: Action
    state: State
    label: Label
    technique: str | None
    capabilities: tuple[str, ...]
    actor: str
    reason: str
    at: datetime
    request_id: str = ""
    replacement: str = ""


class Choice(StrEnum):
    """What a reviewer made of a prompt that was shown to him."""

    ACCEPT = "accept"
    REJECT = "reject"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Decision:
    """A reviewer's decision about a prompt, kept without the prompt's text.

    Attributes:
        content_hash: SHA-256 of the prompt's UTF-8 bytes, in hexadecimal.
        choice: What was decided.
        actor: Who decided.
        reason: Why.
        at: When (UTC).
        example_id: The example that came of it, or "".
    """

    content_hash: str
    choice: Choice
    actor: str
    reason: str
    at: datetime
    example_id: str = ""
