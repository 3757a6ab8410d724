"""Which rows of a log are scored: a deterministic sample, and conditions on account, key and time."""

import hashlib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from classifier.batch.record import Record
from classifier.errors import InvalidSetting

_FORM = re.compile(r"\s*(account|key|time)\s*(==|!=|<=|>=|=|<|>)\s*(.+?)\s*", re.DOTALL)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison that a row must pass.

    Attributes:
        field: account, key or time.
        sign: How it is compared.
        value: With what: text, or microseconds since 1970 UTC.
    """

    field: str
    sign: str
    value: str | int

    def holds(self, record: Record) -> bool:
        """Whether a row passes; one without a time passes no comparison of times."""
        found = getattr(record, self.field)
        return found is not None and _SIGNS[self.sign](found, self.value)

    def __str__(self) -> str:
        """The condition in one form, whatever form it was written in."""
        return f"{self.field} {'=' if self.sign == '==' else self.sign} {self.value}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are scored.

    Attributes:
        sample: The share of rows, in (0, 1].
        seed: Of the sample.
        conditions: All of them must hold.
    """

    sample: float = 1.0
    seed: int = 0
    conditions: tuple[Condition, ...] = ()

    def takes(self, record: Record) -> bool:
        """Whether a row is scored: the same row in every run, however the run was cut."""
        return all(condition.holds(record) for condition in self.conditions) and self._sampled(record)

    def _sampled(self, record: Record) -> bool:
        if self.sample >= 1.0:
            return True
        place = f"{self.seed}\n{record.place.row}\n{record.place.file}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest()) < self.sample * 2**64


def parse_conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Read conditions as an operator writes them.

    Args:
        texts: Each like "account = acct_1", "key != batch" or "time >= 2026-01-05T12:00".

    Returns:
        The conditions.

    Raises:
        InvalidSetting: When a text is no such comparison.
    """
    return tuple(map(_condition, texts))


def _condition(text: str) -> Condition:
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidSetting(
            f"the condition {text[:80]!a} is no comparison: write it like  account = acct_1  or  time >= 2026-01-05"
        )
    field, sign, value = found.groups()
    if field == "time":
        return Condition(field, sign, _microseconds(value))
    if sign not in ("=", "==", "!="):
        raise InvalidSetting(f"{field} can be compared by = and != only, not by {sign}")
    return Condition(field, sign, value)


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidSetting(f"the time {text[:40]!a} is not in ISO 8601: write it like 2026-01-05T12:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)
