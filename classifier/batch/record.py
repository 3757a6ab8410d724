"""What is read from a log: a record to score, or a row that cannot be."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in its input.

    Attributes:
        file: The input's name as it was given or found: a path or a URL.
        row: Its number in the file, from 0.
        offset: The byte at which it begins, after decompression; -1 in a format of columns.
        item: Which of the row's requests, from 0: a line of OpenTelemetry holds many.
    """

    file: str
    row: int
    offset: int
    item: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One logged request.

    Attributes:
        place: Where it was read.
        prompt: The text to score: all messages, the system prompt first, as `classifier.conversation` joins them.
        account: The account, or "".
        key: A name of the API key, or "".
        request_id: The request's id, or "".
        time: Microseconds since 1970 UTC, or None.
    """

    place: Place
    prompt: str = field(repr=False)
    account: str = ""
    key: str = ""
    request_id: str = ""
    time: int | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot be scored.

    Attributes:
        place: Where it was read.
        reason: What is wrong: a `classifier.batch.reasons.Reason`; never the row's text.
        detail: How to mend it, for people; never the row's text.
    """

    place: Place
    reason: str
    detail: str
