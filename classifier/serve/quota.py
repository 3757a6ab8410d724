"""Each caller's share: prompt tokens a minute and requests a second, counted in token buckets."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from classifier.errors import QuotaExceeded

MAX_CALLERS = 10_000
"""So many callers are remembered; the one that was silent longest is forgotten first."""
_MINUTE = 60.0
_TICK = 1e-6


@dataclass(frozen=True, slots=True)
class Quota:
    """A caller's share; 0 sets no limit.

    Attributes:
        tokens_per_minute: Prompt tokens, by estimate; a minute's worth may be used at once.
        requests_per_second: Requests; a second's worth, at least one, may be used at once.
    """

    tokens_per_minute: float = 0.0
    requests_per_second: float = 0.0


class _Bucket:
    """Fills at a rate up to its capacity. A cost over the capacity needs a full bucket, and leaves a debt."""

    __slots__ = ("capacity", "held", "rate", "seen")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self.held = capacity
        self.seen = now

    def wait(self, cost: float, now: float) -> float:
        """Seconds until the cost can be paid; 0 when it can be now."""
        self.held = min(self.capacity, self.held + (now - self.seen) * self.rate)
        self.seen = now
        wait = (min(cost, self.capacity) - self.held) / self.rate
        return wait if wait > _TICK else 0.0


class Quotas:
    """The buckets of all callers. Used from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember nobody yet; the clock gives seconds."""
        self._clock = clock
        self._callers: OrderedDict[tuple[str, Quota], tuple[_Bucket | None, _Bucket | None]] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._callers)

    def charge(self, caller: str, tokens: int, share: Quota) -> None:
        """Take one request of so many tokens out of a caller's share, or nothing.

        Args:
            caller: Who asks.
            tokens: What the request costs.
            share: What the caller may ask for.

        Raises:
            QuotaExceeded: When the share is used up; it says how long to wait.
        """
        wait = self.wait(caller, tokens, share)
        if wait > 0:
            raise QuotaExceeded(f"the quota of this caller is used up: try again in {wait:.3f} s", caller, wait)

    def wait(self, caller: str, tokens: int, share: Quota) -> float:
        """As charge, but returns the seconds to wait; 0 when the request was taken out."""
        if not share.tokens_per_minute and not share.requests_per_second:
            return 0.0
        now = self._clock()
        costs = [
            (bucket, cost)
            for bucket, cost in zip(self._buckets(caller, share, now), (tokens, 1), strict=True)
            if bucket is not None
        ]
        wait = max(bucket.wait(cost, now) for bucket, cost in costs)
        if wait <= 0:
            for bucket, cost in costs:
                bucket.held -= cost
        return wait

    def refund(self, caller: str, tokens: int, share: Quota) -> None:
        """Give back what charge took out for a request that was not served; a bucket never holds over its capacity.

        Args:
            caller: Who asked.
            tokens: What the request was charged.
            share: What the caller may ask for.
        """
        for bucket, cost in zip(self._callers.get((caller, share), ()), (tokens, 1), strict=False):
            if bucket is not None:
                bucket.held = min(bucket.capacity, bucket.held + cost)

    def _buckets(self, caller: str, share: Quota, now: float) -> tuple[_Bucket | None, _Bucket | None]:
        key = (caller, share)
        found = self._callers.get(key)
        if found is None:
            tokens, requests = share.tokens_per_minute, share.requests_per_second
            found = (
                _Bucket(tokens / _MINUTE, tokens, now) if tokens else None,
                _Bucket(requests, max(1.0, requests), now) if requests else None,
            )
            self._callers[key] = found
            if len(self._callers) > MAX_CALLERS:
                self._callers.popitem(last=False)
        self._callers.move_to_end(key)
        return found
