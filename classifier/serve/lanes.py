"""The two lanes of the queue: single prompts, which somebody waits for, and bulk, which may wait longer."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Weighed(Protocol):
    """What waits in a lane."""

    @property
    def cost(self) -> int:
        """Window tokens, by estimate."""


T = TypeVar("T", bound=Weighed)


class Lane(Generic[T]):
    """Jobs in the order in which they came; any of them leaves in constant time."""

    def __init__(self) -> None:
        """Begin empty."""
        self._jobs: OrderedDict[T, None] = OrderedDict()
        self._tokens = 0

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def __iter__(self) -> Iterator[T]:
        """The jobs, the oldest first."""
        return iter(self._jobs)

    @property
    def tokens(self) -> int:
        """Window tokens that wait."""
        return self._tokens

    def add(self, job: T) -> None:
        """Put a job at the end."""
        self._jobs[job] = None
        self._tokens += job.cost

    def put_back(self, job: T) -> None:
        """Put a job that was taken out at the beginning."""
        self.add(job)
        self._jobs.move_to_end(job, last=False)

    def discard(self, job: T) -> None:
        """Take a job out, if it is still there."""
        if job in self._jobs:
            del self._jobs[job]
            self._tokens -= job.cost


class Lanes(Generic[T]):
    """Both lanes. While both hold jobs each gets half of a batch, so that neither starves."""

    def __init__(self) -> None:
        """Begin empty."""
        self.single: Lane[T] = Lane()
        self.bulk: Lane[T] = Lane()
        self._bulk_first = False

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self.single) + len(self.bulk)

    def __iter__(self) -> Iterator[T]:
        """All jobs."""
        yield from self.single
        yield from self.bulk

    @property
    def tokens(self) -> int:
        """Window tokens that wait."""
        return self.single.tokens + self.bulk.tokens

    def ahead(self, lane: Lane[T], cost: int = 0) -> int:
        """What of the waiting jobs is scored before the end of something that comes now.

        Args:
            lane: Where it will wait.
            cost: Its own window tokens; 0 tells what is scored before its beginning.

        Returns:
            Window tokens.
        """
        other = self.bulk if lane is self.single else self.single
        return lane.tokens + min(other.tokens, lane.tokens + cost)

    def until(self, lane: Lane[T], cost: int, most: float) -> int:
        """What is scored until the answer to something that comes now: a batch is answered as a whole.

        Args:
            lane: Where it will wait.
            cost: Its own window tokens.
            most: Window tokens of a batch.

        Returns:
            Window tokens until the end of its last batch, with what of the other lane will ride in that.
        """
        own = self.ahead(lane, cost) + cost
        return own if len(lane) == len(self) else min(self.tokens + cost, math.ceil(math.ceil(own / most) * most))

    def discard(self, job: T) -> None:
        """Take a job out of its lane, if it is still there."""
        self.single.discard(job)
        self.bulk.discard(job)

    def take(self, most: float) -> list[T]:
        """Take out the next batch.

        Args:
            most: Window tokens of a batch; a job that costs more comes alone.

        Returns:
            Jobs, none only when nothing waits. The lanes take turns in being first.
        """
        first, second = (self.bulk, self.single) if self._bulk_first else (self.single, self.bulk)
        self._bulk_first = not self._bulk_first
        jobs: list[T] = []
        taken = 0
        for lane, limit in ((first, most / 2 if second else most), (second, most), (first, most)):
            while lane and (not jobs or taken + next(iter(lane)).cost <= limit):
                job = next(iter(lane))
                lane.discard(job)
                jobs.append(job)
                taken += job.cost
        return jobs
