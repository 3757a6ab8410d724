"""A row of JSON as an example that a client adds."""

from collections.abc import Mapping

from stillwatch.v1 import examples_pb2

from classifier.transfer.messages import message_of
from classifier.transfer.schema import RowRefused, example_of
from index.errors import InvalidExample


def example_row(row: Mapping[str, object]) -> examples_pb2.Example:
    """A row of JSON as an example.

    Args:
        row: text, label, technique, capabilities, language, source, author, note, licence.

    Returns:
        The wire message, checked; the store's rules decide its state.

    Raises:
        InvalidExample: When a field is of the wrong type, missing or not allowed.
    """
    try:
        return message_of(example_of(row), None)
    except RowRefused as refused:
        raise InvalidExample(refused.detail) from None
