"""What was done to an example, by whom and why: the store's history."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from index.errors import InvalidExample
from index.example import MAX_FIELD_CHARS, Label, State, is_unicode

MAX_REQUEST_ID_CHARS = 256
_HASH = re.compile(r"[0-9a-f]{64}")


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

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidExample: When one is not allowed.
        """
        _check_words(actor=self.actor, reason=self.reason)
        if self.request_id is not None:
            _check_words(request_id=self.request_id)
            if not 0 < len(self.request_id) <= MAX_REQUEST_ID_CHARS:
                raise InvalidExample(f"request_id is empty or over {MAX_REQUEST_ID_CHARS} characters: name this write")


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

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidExample: When one is not allowed.
        """
        _check_words(actor=self.actor, reason=self.reason, example_id=self.example_id)
        if not _HASH.fullmatch(self.content_hash):
            raise InvalidExample("content_hash is no SHA-256 in hexadecimal: give the prompt's own")
        if self.at.tzinfo is None:
            raise InvalidExample("at has no time zone: give one")


def _check_words(**fields: str) -> None:
    for name, value in fields.items():
        if not is_unicode(value):
            raise InvalidExample(f"{name} holds an unpaired surrogate: give valid Unicode")
        if len(value) > MAX_FIELD_CHARS:
            raise InvalidExample(f"{name} is over {MAX_FIELD_CHARS} characters: shorten it")
