"""What can go wrong with examples and their index.

::

    IndexRoomError
    ├── InvalidExample      a field of an example is missing or not allowed
    ├── ExampleConflict     what is stored already says otherwise: other labels, or another state
    ├── NotAllowed          the rule of two forbids this writer the change
    ├── ExampleNotFound     no example has this id
    ├── InvalidPageToken    a page token that this store did not give
    └── StoreUnavailable    the store's database cannot be opened, read or written
"""


class IndexRoomError(Exception):
    """The root of this room's errors; its text never holds an example's text."""


class InvalidExample(IndexRoomError):
    """Raised when a field of an example is missing or not allowed."""


class ExampleConflict(IndexRoomError):
    """Raised when the same text is stored already with other labels, or the example's state does not allow the change."""


class ExampleNotFound(IndexRoomError):
    """Raised when no example has the id."""


class InvalidPageToken(IndexRoomError):
    """Raised for a page token that this store did not give."""


class StoreUnavailable(IndexRoomError):
    """Raised when the store's database cannot be opened, read or written."""


class NotAllowed(IndexRoomError):
    """Raised when the rule of two forbids this writer the change."""
