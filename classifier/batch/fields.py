"""Single fields of a row: dotted paths, identities, points in time, and texts that may hold JSON."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

from classifier.batch.reasons import Reason, RowFault

Row = Mapping[str, object]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_CHARS = 1_024
"""Characters of an identity that are kept."""
_SECRET = re.compile(r"(?:Bearer\s|sk-|pk-|xai-|gsk_|AIza|hf_|AKIA)")
_LATEST = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""


def found(value: object, path: str) -> object:
    """What stands at a dotted path.

    A name that holds dots itself is found, too; a number picks from a list; a string that is stepped into is read
    as JSON, because columns of text often hold it.

    Args:
        value: A row, or what stands in it.
        path: For example "request.body.messages", "gen_ai.input.messages" or "messages.0.content".

    Returns:
        The value; None when there is none.
    """
    if isinstance(value, str | bytes):
        value = unpacked(value)
    if isinstance(value, list):
        head, _, rest = path.partition(".")
        inner = value[int(head)] if head.isdecimal() and int(head) < len(value) else None
        return found(inner, rest) if rest and inner is not None else inner
    if not isinstance(value, Mapping):
        return None
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    while dot:
        if head in value and (inner := found(value[head], rest)) is not None:
            return inner
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def first(row: Row, paths: Iterable[str]) -> object:
    """The first value that is neither missing nor null nor "", of several paths."""
    for path in paths:
        value = row.get(path)
        if value is None and "." in path:
            value = found(row, path)
        if value is not None and value != "":
            return value
    return None


def unpacked(value: object) -> object:
    """What a text of JSON holds, or the value itself.

    Args:
        value: Any value.

    Returns:
        For a text that is a JSON object or list, what it holds; else the value.
    """
    if not isinstance(value, str | bytes) or value.lstrip()[:1] not in ("{", "[", b"{", b"["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def text(value: object) -> str | None:
    """A value as text, if it is any.

    Args:
        value: Any value.

    Returns:
        The text, or None.

    Raises:
        RowFault: When it is bytes that are not UTF-8.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise RowFault(Reason.BROKEN_UTF8, "the prompt's bytes are not UTF-8: re-encode the column") from None
    return value if isinstance(value, str) else None


def identity(value: object) -> str:
    """An account or a request id.

    Args:
        value: What stands in the field.

    Returns:
        Its text, of at most 1,024 characters; "" for null, lists and objects.

    Raises:
        RowFault: When it is a number that the parser could not hold exactly, so that two accounts might become one.
    """
    if type(value) is str:
        return value if len(value) <= _MOST_CHARS else value[:_MOST_CHARS]
    if value is None or isinstance(value, bool | list | Mapping):
        return ""
    if isinstance(value, float):
        if not abs(value) < 2**53:
            raise RowFault(Reason.WRONG_TYPE, "an id is a number beyond 64 bits: write ids as strings")
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")[:_MOST_CHARS] if value.isascii() else value.hex()[:_MOST_CHARS]
    return str(value)[:_MOST_CHARS]


def key_name(value: object) -> str:
    """A name of an API key; what looks like the key itself is replaced by its hash, so that no secret is carried on.

    Args:
        value: What stands in the field.

    Returns:
        The name, "sha256:" with 16 hexadecimal digits, or "".
    """
    name = identity(value)
    if name and _SECRET.match(name):
        return f"sha256:{hashlib.sha256(name.removeprefix('Bearer ').encode(errors='replace')).hexdigest()[:16]}"
    return name


def moment(value: object) -> int | None:
    """A point in time.

    Args:
        value: ISO 8601 (without a zone it is UTC), or a number since 1970 whose magnitude tells seconds, milli-, micro-
            or nanoseconds, also as text; or a date, time or decimal of Parquet.

    Returns:
        Microseconds since 1970 UTC; None for what is no time between the years 1 and 9999.
    """
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        value = _written(value.strip())
    if isinstance(value, datetime):
        try:
            since = (value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH
        except OverflowError:
            return None
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if isinstance(value, date):
        return (value - _EPOCH.date()).days * 86_400_000_000
    if isinstance(value, Decimal):
        value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _since(value)
    return None


def _written(digits: str) -> datetime | int | float | None:
    """A time or number that is written out."""
    if not digits.isdecimal() or len(digits) == len("20260105"):  # a parser of ISO finds dates in long numbers, too
        try:
            return datetime.fromisoformat(digits.removesuffix(" UTC"))
        except ValueError:
            pass
    try:
        return int(digits) if digits.isdecimal() and len(digits) < 40 else float(digits)
    except ValueError:
        return None


def _since(number: float) -> int | None:
    size = abs(number)
    if not size < 1e20:  # also what is no number
        return None
    if size < 1e11:  # seconds until the year 5138
        micros = round(number * 1_000_000)
    elif size < 1e14:
        micros = round(number * 1_000)
    elif size < 1e17:
        micros = round(number)
    else:
        micros = int(number) // 1_000
    return micros if abs(micros) <= _LATEST else None
