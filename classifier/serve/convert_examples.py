"""Between the wire messages of examples and domain values."""

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from stillwatch.v1 import examples_pb2

from classifier.corpus import SOURCE as SEED_SOURCE
from classifier.errors import InvalidRequest
from index.change import Action, Change
from index.contract import Filter, Relabel
from index.errors import InvalidExample
from index.example import Example, Label, State

_LABELS: dict[int, Label | None] = {
    examples_pb2.LABEL_UNSPECIFIED: None,
    examples_pb2.LABEL_EXTRACTION: Label.EXTRACTION,
    examples_pb2.LABEL_BENIGN: Label.BENIGN,
}
_LABELS_OUT = {Label.EXTRACTION: examples_pb2.LABEL_EXTRACTION, Label.BENIGN: examples_pb2.LABEL_BENIGN}
_STATES: dict[int, State | None] = {
    examples_pb2.EXAMPLE_STATE_UNSPECIFIED: None,
    examples_pb2.EXAMPLE_STATE_PENDING: State.PENDING,
    examples_pb2.EXAMPLE_STATE_ACTIVE: State.ACTIVE,
    examples_pb2.EXAMPLE_STATE_REVOKED: State.REVOKED,
}
_STATES_OUT = {
    State.PENDING: examples_pb2.EXAMPLE_STATE_PENDING,
    State.ACTIVE: examples_pb2.EXAMPLE_STATE_ACTIVE,
    State.REVOKED: examples_pb2.EXAMPLE_STATE_REVOKED,
}
_ACTIONS = {
    Action.ADD: examples_pb2.CHANGE_ACTION_ADD,
    Action.ACCEPT: examples_pb2.CHANGE_ACTION_ACCEPT,
    Action.REJECT: examples_pb2.CHANGE_ACTION_REJECT,
    Action.REVOKE: examples_pb2.CHANGE_ACTION_REVOKE,
    Action.RESTORE: examples_pb2.CHANGE_ACTION_RESTORE,
    Action.RELABEL: examples_pb2.CHANGE_ACTION_RELABEL,
    Action.SUPERSEDE: examples_pb2.CHANGE_ACTION_SUPERSEDE,
}


def label_filter(number: int) -> Label | None:
    """A filter's label; None for any.

    Args:
        number: The wire enum.

    Returns:
        The label.

    Raises:
        InvalidRequest: When the number is unknown.
    """
    if number not in _LABELS:
        raise InvalidRequest(f"label {number} is unknown: use a value of Label")
    return _LABELS[number]


def label_in(number: int) -> Label:
    """An example's label.

    Args:
        number: The wire enum.

    Returns:
        The label.

    Raises:
        InvalidRequest: When it is missing or unknown.
    """
    label = label_filter(number)
    if label is None:
        raise InvalidRequest("label is missing: set LABEL_EXTRACTION or LABEL_BENIGN")
    return label


def state_in(number: int) -> State | None:
    """A state; None where none is named.

    Args:
        number: The wire enum.

    Returns:
        The state.

    Raises:
        InvalidRequest: When the number is unknown.
    """
    if number not in _STATES:
        raise InvalidRequest(f"state {number} is unknown: use a value of ExampleState")
    return _STATES[number]


def wanted_state(number: int) -> State | None:
    """The state in which a writer wants an example: pending or active; None where none is named.

    Args:
        number: The wire enum.

    Returns:
        The state.

    Raises:
        InvalidRequest: When it is revoked, or unknown.
    """
    state = state_in(number)
    if state is State.REVOKED:
        raise InvalidRequest("state is revoked: give EXAMPLE_STATE_PENDING or EXAMPLE_STATE_ACTIVE, or none")
    return state


def check_source(source: str) -> None:
    """Keep writers away from the bundle's own examples.

    Args:
        source: What the writer names.

    Raises:
        InvalidExample: When it is the bundle's own.
    """
    if source == SEED_SOURCE:
        # The next start or reload would make the examples of this source exactly those of the bundle.
        raise InvalidExample(
            f'source "{SEED_SOURCE}" is kept for the bundle\'s own examples: name another one, or none'
        )


def example_in(message: examples_pb2.Example, author: str = "", state: State = State.ACTIVE) -> Example:
    """A wire example as a domain example, without what the server sets.

    Args:
        message: The wire message.
        author: Who is known to have sent it, in place of whom the message names.
        state: Pending or active.

    Returns:
        The checked example.

    Raises:
        InvalidRequest: When the label is missing or unknown.
        InvalidExample: When a field is missing or not allowed, or the source is the bundle's own.
    """
    label = label_in(message.label)
    check_source(message.source)
    return Example(
        text=message.text,
        label=label,
        technique=message.technique or None,
        capabilities=tuple(message.capabilities),
        language=message.language,
        source=message.source,
        author=author or message.author,
        note=message.note,
        licence=message.licence,
        state=state,
    )


def example_out(example: Example, *, text: bool = True) -> examples_pb2.Example:
    """A domain example on the wire, with its text or without."""
    return examples_pb2.Example(
        id=example.id,
        text=example.text if text else "",
        label=_LABELS_OUT[example.label],
        technique=example.technique or "",
        capabilities=example.capabilities,
        language=example.language,
        source=example.source,
        author=example.author,
        note=example.note,
        create_time=time_out(example.created),
        content_hash=example.content_hash,
        revision=example.revision,
        licence=example.licence,
        state=_STATES_OUT[example.state],
        change_revision=example.changed,
    )


def without_texts(examples: Iterable[Example]) -> list[examples_pb2.Example]:
    """Domain examples on the wire, without their texts: the answer to a write is bounded, however long they are."""
    return [example_out(example, text=False) for example in examples]


def relabel_in(message: examples_pb2.Relabel) -> Relabel:
    """New labels for an example.

    Args:
        message: The wire message.

    Returns:
        The labels; the store checks that they go together.

    Raises:
        InvalidRequest: When id or label is missing.
    """
    if not message.id:
        raise InvalidRequest("id is missing: name the example")
    capabilities = tuple(sorted(set(message.capabilities)))
    return Relabel(message.id, label_in(message.label), message.technique or None, capabilities)


def filter_in(request: examples_pb2.ListExamplesRequest) -> Filter:
    """Which examples a list asks for.

    Args:
        request: The wire message.

    Returns:
        The filter: of active examples, where the request names no state.

    Raises:
        InvalidRequest: When a field is unknown or contradicts another one.
    """
    state = state_in(request.state)
    if request.any_state and state is not None:
        raise InvalidRequest("state and any_state are both set: set one of them")
    if request.HasField("as_of_revision") and request.as_of_revision < 0:
        raise InvalidRequest("as_of_revision is negative: give a revision, or none for now")
    return Filter(
        label=label_filter(request.label),
        state=state if state is not None or request.any_state else State.ACTIVE,
        source=request.source,
        as_of=request.as_of_revision if request.HasField("as_of_revision") else None,
    )


def change_out(change: Change) -> examples_pb2.Change:
    """A change on the wire."""
    return examples_pb2.Change(
        number=change.number,
        revision=change.revision,
        example_id=change.example_id,
        action=_ACTIONS[change.action],
        state=_STATES_OUT[change.state],
        label=_LABELS_OUT[change.label],
        technique=change.technique or "",
        capabilities=change.capabilities,
        actor=change.actor,
        reason=change.reason,
        create_time=time_out(change.at),
        request_id=change.request_id,
        replacement_id=change.replacement,
    )


def time_out(moment: datetime) -> Timestamp:
    """A moment on the wire."""
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC))
    return stamp
