"""What can go wrong with examples and their index.

::

    IndexRoomError
    ├── InvalidExample      a field of an example is missing or not allowed
    ├── ExampleConflict     the text is stored already, with other labels
    ├── ExampleNotFound     no example has this id
    ├── InvalidPageToken    a page token that this store did not give
    └── StoreUnavailable    the store's file cannot be read or written
"""


class IndexRoomError(Exception):
    """The root of this room's errors; its text never holds an example's text."""


class InvalidExample(IndexRoomError):
    """Raised when a field of an example is missing or not allowed."""


class ExampleConflict(IndexRoomError):
    """Raised when the same text is stored already, with other labels."""


class ExampleNotFound(IndexRoomError):
    """Raised when no example has the id."""


class InvalidPageToken(IndexRoomError):
    """Raised for a page token that this store did not give."""


class StoreUnavailable(IndexRoomError):
    """Raised when the store's file cannot be opened, read or written."""
