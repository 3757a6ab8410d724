"""What a check of the doctor found."""

from collections.abc import Callable
from dataclasses import dataclass

from classifier.errors import StillwatchError
from index.errors import IndexRoomError


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    good: bool
    detail: str


def find(name: str, test: Callable[[], str]) -> Finding:
    """Run one check.

    Args:
        name: The check's name.
        test: Returns what it found, or raises a domain error that says the mend.

    Returns:
        The finding.
    """
    try:
        return Finding(name, True, test())
    except (StillwatchError, IndexRoomError) as error:
        return Finding(name, False, str(error))
