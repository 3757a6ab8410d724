"""What requests are held to before anything is done: counts, sizes, names, page tokens."""

from classifier.errors import InvalidRequest, TooManyItems
from index.errors import InvalidPageToken

_MOST_ID = 128


def check_count(count: int, name: str, most: int) -> None:
    """Refuse a list that is empty or too long.

    Args:
        count: Its entries.
        name: The field.
        most: The most that are allowed.

    Raises:
        InvalidRequest: When it is empty.
        TooManyItems: When it is too long.
    """
    if count == 0:
        raise InvalidRequest(f"{name} is empty: send at least one")
    if count > most:
        raise TooManyItems(f"{name} has {count} entries, at most {most} are allowed: split the request")


def check_id(name: str) -> None:
    """Refuse what is no example's id.

    Args:
        name: What the request names.

    Raises:
        InvalidRequest: When it is empty or too long.
    """
    if not 0 < len(name) <= _MOST_ID:
        raise InvalidRequest(f"id is missing or over {_MOST_ID} characters: name the example")


def limited(value: int, name: str, default: int, most: int) -> int:
    """A size that was asked for, or the default.

    Args:
        value: What the request says; 0 for the default.
        name: The field.
        default: The default.
        most: The most that is allowed.

    Returns:
        The size.

    Raises:
        InvalidRequest: When it is out of bounds.
    """
    if not 0 <= value <= most:
        raise InvalidRequest(f"{name} is {value}: give 1 to {most}, or 0 for {default}")
    return value or default


def number_of(token: str) -> int:
    """The number that a page token stands for; 0 for none.

    Args:
        token: The page token.

    Returns:
        The number.

    Raises:
        InvalidPageToken: When this server did not give it.
    """
    if token and not (token.isascii() and token.isdigit() and len(token) < 19):
        raise InvalidPageToken("page_token is not one that this server gave: start again without one")
    return int(token or 0)
