"""Why a row cannot be scored: a closed set of words, and the exception that carries one to where rows are judged."""

from enum import StrEnum


class Reason(StrEnum):
    """What is wrong with a row."""

    BROKEN_JSON = "broken_json"
    """The line is no JSON."""
    BROKEN_UTF8 = "broken_utf8"
    """The line or cell is not UTF-8."""
    BROKEN_CSV = "broken_csv"
    """The record has not the header's number of cells, a quote is not closed, or there is no header."""
    BROKEN_PARQUET = "broken_parquet"
    """The footer, or the row group from here on, cannot be decoded."""
    BROKEN_COMPRESSION = "broken_compression"
    """The .gz or .zst is cut off or damaged here; what follows cannot be read."""
    LINE_TOO_LONG = "line_too_long"
    """The row has more bytes than the limit, or its Parquet page is too large to be decoded; it was passed over."""
    NESTED_TOO_DEEP = "nested_too_deep"
    """The JSON is nested deeper than the parser goes."""
    TOO_MANY_VALUES = "too_many_values"
    """The line holds over a million lists and objects, or cells, which would take its size many times over in memory."""
    NOT_AN_OBJECT = "not_an_object"
    """The line is JSON, but no object."""
    UNKNOWN_SHAPE = "unknown_shape"
    """The object belongs to no known shape."""
    WRONG_TYPE = "wrong_type"
    """A field has not the type that the shape gives it."""
    NO_PROMPT = "no_prompt"
    """The prompt's field is missing, null or redacted."""
    EMPTY_PROMPT = "empty_prompt"
    """The prompt holds nothing but white space and invisible characters."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """The prompt has more characters than are scored."""
    LONE_SURROGATE = "lone_surrogate"
    r"""The prompt or an identity holds half a surrogate pair, such as an escaped \ud800."""
    NOT_A_REQUEST = "not_a_request"
    """A whole row that is no request to a model: a span of a tool, a response's event, an embedding."""

    @property
    def is_damage(self) -> bool:
        """Whether the row should have been scored; rows that are no requests are expected in some logs."""
        return self is not Reason.NOT_A_REQUEST


class RowFault(Exception):
    """Says why one row cannot be scored; it is made a Reject and never leaves the reader.

    Attributes:
        reason: What is wrong.
        detail: How to mend it; never the row's text.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        """Hold reason and detail."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
