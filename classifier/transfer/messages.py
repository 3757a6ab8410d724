"""Between examples as they are imported and exported and wire messages."""

from datetime import UTC

from stillwatch.v1 import examples_pb2

from classifier.serve.convert_examples import example_out, label_in, state_in
from index.example import Example, Label, State

_NONE = "UNSPECIFIED"


def label_number(label: Label | None) -> examples_pb2.Label.ValueType:
    """The wire's number of a label; of none the unspecified one."""
    return examples_pb2.Label.Value(f"LABEL_{label.name if label else _NONE}")


def state_number(state: State | None) -> examples_pb2.ExampleState.ValueType:
    """The wire's number of a state; of none the unspecified one."""
    return examples_pb2.ExampleState.Value(f"EXAMPLE_STATE_{state.name if state else _NONE}")


def message_of(example: Example, state: State | None) -> examples_pb2.Example:
    """An example to add.

    Args:
        example: The example.
        state: Pending or active; None leaves it to the store's rules.

    Returns:
        The wire message, without what the store sets by itself.
    """
    message = example_out(example)
    message.state = state_number(state)
    for name in ("id", "create_time", "content_hash", "revision", "change_revision"):
        message.ClearField(name)
    return message


def example_of_message(message: examples_pb2.Example) -> Example:
    """A stored example, with all that the store says of it.

    Args:
        message: The wire message.

    Returns:
        The example.

    Raises:
        InvalidRequest: When label or state are unknown.
        InvalidExample: When a field is not allowed.
    """
    return Example(
        text=message.text,
        label=label_in(message.label),
        technique=message.technique or None,
        capabilities=tuple(message.capabilities),
        language=message.language,
        source=message.source,
        author=message.author,
        note=message.note,
        licence=message.licence,
        state=state_in(message.state) or State.ACTIVE,
        created=message.create_time.ToDatetime(UTC),
        revision=message.revision,
        changed=message.change_revision,
    )
