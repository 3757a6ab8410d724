"""Which of many scored prompts are worth a reviewer's time: uncertain, unlike each other, and drawn by chance."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from classifier.batch.record import Place
from classifier.desk.sample import Floats
from classifier.errors import InvalidSetting
from classifier.policy import Thresholds
from classifier.verdict import Decision

POOL = 6
"""So many times as many prompts are held ready as are wanted: some of them are decided or known already."""
MOST = 1_000


class Why(StrEnum):
    """Why a prompt is shown."""

    UNCERTAIN = "uncertain"
    DIVERSE = "diverse"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Shares:
    """How a queue is mixed; only the proportions count.

    Attributes:
        uncertain: Prompts near a threshold.
        diverse: Prompts of templates unlike each other.
        random: Prompts drawn from all traffic, so that what the model is sure of is seen as well.
    """

    uncertain: float = 0.5
    diverse: float = 0.3
    random: float = 0.2

    def __post_init__(self) -> None:
        """Refuse shares that say nothing.

        Raises:
            InvalidSetting: When one is below 0 or none is over it.
        """
        values = [getattr(self, why) for why in Why]
        if not min(values) >= 0.0 or not 0.0 < sum(values) < float("inf"):
            raise InvalidSetting("the shares of a queue are numbers from 0, at least one of them over 0: mend them")

    def counts(self, size: int) -> dict[Why, int]:
        """How many prompts of each kind a queue of this size has; they add up to it."""
        total = sum(getattr(self, why) for why in Why)
        exact = {why: size * getattr(self, why) / total for why in Why}
        found = {why: int(share) for why, share in exact.items()}
        for why in sorted(Why, key=lambda why: found[why] - exact[why])[: size - sum(found.values())]:
            found[why] += 1
        return found


@dataclass(frozen=True, slots=True)
class Seen:
    """A scored prompt.

    Attributes:
        name: What tells it from all others: its place, or its text's hash.
        probability: Its extraction probability, in [0, 1].
        decision: What was decided.
        template: Its template's fingerprint.
        prompt: Its text; None where it must be looked up.
        place: Where it stands in its log; None where it has no log.
    """

    name: str
    probability: float
    decision: Decision
    template: str
    prompt: str | None = None
    place: Place | None = None


class Chooser:
    """Goes once over any number of prompts and holds the best of each kind, in bounded memory."""

    def __init__(self, size: int, thresholds: Thresholds, *, shares: Shares | None = None, seed: int = 0) -> None:
        """Begin with none.

        Args:
            size: How many prompts the queue shall have.
            thresholds: Near which a prompt is uncertain.
            shares: How the queue is mixed.
            seed: Of the drawing.

        Raises:
            InvalidSetting: When the size is not from 1 to MOST.
        """
        if not 1 <= size <= MOST:
            raise InvalidSetting(f"a queue holds 1 to {MOST:,} prompts: ask for so many")
        self.size = size
        self.counts = (shares or Shares()).counts(size)
        self.thresholds = thresholds
        self._salt = str(seed)
        self._pools = {why: _Lowest(POOL * count) for why, count in self.counts.items()}

    def add(self, seen: Seen) -> None:
        """Look at a prompt."""
        if seen.decision != Decision.ABSTAIN:
            bounds = (self.thresholds.review, self.thresholds.flag)
            margin = min(abs(seen.probability - bound) for bound in bounds)
            self._pools[Why.UNCERTAIN].add((margin, self._draw(seen.name)), seen.template, seen)
        self._pools[Why.DIVERSE].add((0.0, self._draw(seen.template)), seen.template, seen)
        self._pools[Why.RANDOM].add((0.0, self._draw(seen.name)), seen.name, seen)

    def pools(self) -> dict[Why, list[Seen]]:
        """The best prompts of each kind, best first; of one template an uncertain and a diverse one at most."""
        return {why: pool.best() for why, pool in self._pools.items()}

    def _draw(self, name: str) -> bytes:
        return hashlib.blake2b(f"{self._salt}\n{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


_Key = tuple[float, bytes]


class _Lowest:
    """Of each group the value with the lowest key, of all groups the lowest ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, tuple[_Key, Seen]] = {}
        self._bar: _Key | None = None

    def add(self, key: _Key, group: str, value: Seen) -> None:
        if not self._most or (self._bar is not None and key >= self._bar):
            return
        held = self._held.get(group)
        if held is None or key < held[0]:
            self._held[group] = (key, value)
        if len(self._held) >= 2 * self._most:
            self._cut()

    def best(self) -> list[Seen]:
        self._cut()
        return [value for _, value in self._held.values()]

    def _cut(self) -> None:
        ordered = sorted(self._held.items(), key=lambda item: item[1][0])
        self._held = dict(ordered[: self._most])
        if len(ordered) > self._most:
            self._bar = ordered[self._most][1][0]


def farthest_first(vectors: Floats) -> Iterator[int]:
    """Rows in an order in which each is as unlike all before it as can be (greedy k-centre).

    Args:
        vectors: (n, d) float32 unit rows.

    Yields:
        Row numbers, the first row first.
    """
    nearest = np.full(len(vectors), -np.inf, np.float32)
    row = 0
    for _ in range(len(vectors)):
        yield row
        nearest = np.maximum(nearest, vectors @ vectors[row])
        nearest[row] = np.inf
        row = int(nearest.argmin())


def mixed(pools: Mapping[Why, Sequence[Seen]], counts: Mapping[Why, int], size: int) -> list[tuple[Why, Seen]]:
    """Take the first prompts of each kind, none twice; a kind that has too few is made up for by the others.

    Args:
        pools: The prompts of each kind, best first, with their text.
        counts: How many of each kind are wanted.
        size: How many in all.

    Returns:
        At most so many, the kinds by turns.
    """
    taken: set[str] = set()
    rests = {why: iter(pool) for why, pool in pools.items()}

    def next_of(why: Why) -> Seen | None:
        for seen in rests[why]:
            if seen.prompt is not None and seen.prompt not in taken:
                taken.add(seen.prompt)
                return seen
        return None

    found: dict[Why, list[Seen]] = {why: [] for why in Why}
    for why in Why:
        while len(found[why]) < counts[why] and (seen := next_of(why)):
            found[why].append(seen)
    for why in Why:
        while sum(map(len, found.values())) < size and (seen := next_of(why)):
            found[why].append(seen)
    # Spread evenly, so that whoever stops early has seen the same mixture.
    places = [((number + 0.5) / len(own), why, seen) for why, own in found.items() for number, seen in enumerate(own)]
    return [(why, seen) for _, why, seen in sorted(places, key=lambda place: (place[0], place[1]))]
