"""A bounded sample of recent traffic, kept without its text, on which an example's impact is measured."""

import hashlib
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import structlog

from classifier.desk.sample import Entry, Floats, Group, Sample, group_of
from classifier.desk.secret import mark_of_text
from classifier.head import Head
from classifier.lexical import Terms
from classifier.scorer import Model, Observed

PROMPTS = 2_000
"""Prompts that were allowed."""
_CAUGHT_SHARE = 4
"""One flagged or reviewed prompt is kept for so many allowed ones."""
HORIZON = 100
"""The sample is of the last so many times as many prompts as it holds, older ones fading out."""
_WINDOWS = 8
"""Windows for each prompt, on average; all of them together are bounded."""
_LARGEST = 16
"""No prompt has more than this part of all windows."""
_log = structlog.get_logger("stillwatch.desk")


@dataclass
class _Stratum:
    """The prompts of one group: Vitter's algorithm R, which forgets what is older than its horizon."""

    most: int
    chance: random.Random
    entries: list[Entry] = field(default_factory=list)
    marks: set[bytes] = field(default_factory=set)
    windows: int = 0
    seen: int = 0

    def takes(self) -> bool:
        """Count a prompt, and draw whether it comes into the sample."""
        self.seen += 1
        among = min(self.seen, HORIZON * self.most)
        return len(self.entries) < self.most or self.chance.randrange(among) < self.most

    def put(self, entry: Entry) -> None:
        """Take a prompt in; by chance others make room for it."""
        if entry.mark in self.marks or len(entry.words) * _LARGEST > self.room:
            return
        while len(self.entries) >= self.most or self.windows + len(entry.words) > self.room:
            place = self.chance.randrange(len(self.entries))
            self.entries[place], self.entries[-1] = self.entries[-1], self.entries[place]
            gone = self.entries.pop()
            self.marks.discard(gone.mark)
            self.windows -= len(gone.words)
        self.entries.append(entry)
        self.marks.add(entry.mark)
        self.windows += len(entry.words)

    @property
    def room(self) -> int:
        """The most windows of all prompts together."""
        return max(_LARGEST, _WINDOWS * self.most)


class Reservoir:
    """Samples what a scorer scores. Safe to call from any thread.

    Prompts that were allowed, and those that were flagged or reviewed, are sampled apart. Neither text nor tokens are
    kept; equal prompts are kept once.

    Attributes:
        scope: What the sample fits: one bundle, whose encoder and head made its numbers.
        dimensions: The encoder's d.
    """

    def __init__(self, model: Model, key: bytes, *, prompts: int = PROMPTS, seed: int | None = None) -> None:
        """Begin empty.

        Args:
            model: What scores; another bundle needs another reservoir.
            key: The home's key, under which texts are hashed.
            prompts: The most allowed prompts that are kept; a quarter as many of the others.
            seed: Of the drawing; None draws differently every time.
        """
        if prompts < 1:
            raise ValueError("a reservoir holds at least one prompt")
        self.scope = scope_of(model)
        self.dimensions = model.encoder.dimensions
        self._head = model.head
        self._key = key
        self._lock = threading.Lock()
        self._failed = False
        chance = random.Random(seed)  # noqa: S311  # a sample, no secret
        sizes = {Group.ALLOWED: prompts, Group.CAUGHT: -(-prompts // _CAUGHT_SHARE)}
        self._strata = {group: _Stratum(size, chance) for group, size in sizes.items()}
        self._changes = 0

    @property
    def key(self) -> bytes:
        """The key under which texts are hashed."""
        return self._key

    @property
    def changes(self) -> int:
        """How often a prompt was taken in: whoever saves the reservoir sees whether he must."""
        return self._changes

    @property
    def limits(self) -> Mapping[Group, tuple[int, int]]:
        """The most prompts and windows of each group."""
        return {group: (stratum.most, stratum.room) for group, stratum in self._strata.items()}

    def observe(self, batch: Observed) -> None:
        """Sample a scored batch; an observer of `Scorer`. Never raises: what fails is logged, once.

        Args:
            batch: What was scored.
        """
        try:
            self._observe(batch)
        except Exception as error:  # noqa: BLE001  # scoring must not fail because sampling does
            if not self._failed:
                self._failed = True
                _log.warning("the reservoir of recent prompts misses some", error=type(error).__name__)

    def sample(self, group: Group) -> Sample:
        """The prompts of a group, as they are now.

        Args:
            group: Which.

        Returns:
            The sample; it does not change any more.
        """
        with self._lock:
            stratum = self._strata[group]
            entries, seen = tuple(stratum.entries), stratum.seen
        return Sample.of(entries, seen, self.dimensions)

    def restore(self, samples: Mapping[Group, Sample]) -> None:
        """Go on with what an earlier process sampled.

        Args:
            samples: What `sample` gave, of a reservoir of the same scope and key.
        """
        with self._lock:
            for group, sample in samples.items():
                stratum = self._strata[group]
                for entry in sample.entries:
                    stratum.put(entry)
                stratum.seen += sample.seen

    def _observe(self, batch: Observed) -> None:
        with self._lock:
            groups = [group_of(verdict.decision) for verdict in batch.verdicts]
            drawn = [(number, g) for number, g in enumerate(groups) if g is not None and self._strata[g].takes()]
        if not drawn:
            return
        starts = np.cumsum([0, *(prompt.windows for prompt in batch.prompts)])
        rows = np.concatenate([np.arange(starts[number], starts[number + 1]) for number, _ in drawn])
        features = batch.features[rows]
        words = batch.logits[rows] - batch.precedents[rows] - wordless(self._head, features)
        place = 0
        for number, group in drawn:
            prompt = batch.prompts[number]
            part = slice(place, place + prompt.windows)
            place += prompt.windows
            entry = Entry(
                mark_of_text(prompt.text, self._key),
                tuple((len(view.windows), len(view.finer)) for view in prompt.views),
                prompt.language is not None,
                features[part, : self.dimensions].copy(),
                words[part].copy(),
            )
            with self._lock:
                self._strata[group].put(entry)
                self._changes += 1


def scope_of(model: Model) -> str:
    """What a sample fits: the bundle and its encoder, as one SHA-256 in hexadecimal."""
    return hashlib.sha256(f"{model.version}\n{model.encoder.fingerprint}".encode()).hexdigest()


def wordless(head: Head, features: Floats) -> Floats:
    """The head's extraction logits of windows without words.

    The head adds the words' part to what embedding and neighbours give, so that the difference of two such logits is
    what other neighbours change.

    Args:
        head: The bundle's.
        features: (w, d + e) float32: unit embedding, then neighbour evidence.

    Returns:
        (w,) float32.
    """
    if not len(features):
        return np.zeros(0, np.float32)
    nothing = Terms(np.zeros((len(features), 1), np.int64), np.zeros((len(features), 1), np.float32))
    return head.logits(features, nothing)[:, 0]
