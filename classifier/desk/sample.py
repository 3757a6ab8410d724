"""Scored prompts as the reservoir keeps them: enough to score them again among other examples, and no text."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from classifier.verdict import Decision

Floats = NDArray[np.float32]


class Group(StrEnum):
    """What became of a prompt when it was scored."""

    ALLOWED = "allowed"
    CAUGHT = "caught"


def group_of(decision: Decision) -> Group | None:
    """The group of a decision; None of a prompt that was not judged."""
    if decision == Decision.ABSTAIN:
        return None
    return Group.ALLOWED if decision == Decision.ALLOW else Group.CAUGHT


@dataclass(frozen=True, slots=True)
class Entry:
    """One prompt.

    Attributes:
        mark: What stands for its text: a hash under the home's key.
        views: Of each view how many windows it has, and how many finer ones.
        foreign: Whether it is surely in a language that the bundle does not know.
        embeddings: (w, d) float32 unit rows, its windows'.
        words: (w,) float32, what the words add to each window's extraction logit, whatever its neighbours are.
    """

    mark: bytes
    views: tuple[tuple[int, int], ...]
    foreign: bool
    embeddings: Floats
    words: Floats


@dataclass(frozen=True, slots=True)
class Sample:
    """Some prompts of one group, frozen.

    Attributes:
        entries: The prompts.
        seen: How many of the group were scored in all.
        embeddings: (w, d) float32 unit rows, of all windows.
        words: (w,) float32, theirs.
        starts: (n + 1,) the number of each prompt's first window; the last one is w.
    """

    entries: tuple[Entry, ...]
    seen: int
    embeddings: Floats
    words: Floats
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, entries: Sequence[Entry], seen: int, dimensions: int) -> "Sample":
        """Bring entries together.

        Args:
            entries: The prompts.
            seen: How many of the group were scored in all.
            dimensions: The encoder's d.

        Returns:
            The sample.
        """
        empty = np.zeros((0, dimensions), np.float32)
        return cls(
            tuple(entries),
            seen,
            np.concatenate([empty, *(entry.embeddings for entry in entries)]),
            np.concatenate([empty[:, :0].ravel(), *(entry.words for entry in entries)]),
            np.cumsum([0, *(len(entry.words) for entry in entries)]),
        )
