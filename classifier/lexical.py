"""Lexical evidence: which words and word pairs a window holds, hashed into a fixed number of buckets.

The embedding says what a text is about; the words say how it asks ("json lines", "seed task", "step 1:").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEXICAL_VERSION = 3
"""Counts the forms of this hashing; a head fits only the one it was trained on."""
_BITS = 17
BUCKETS = 2**_BITS
_SHIFT = np.uint64(64 - _BITS)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_LEFT = np.uint64(0xC2B2AE3D27D4EB4F)
_RIGHT = np.uint64(0x165667B19E3779F9)


@dataclass(frozen=True, slots=True)
class Terms:
    """The words and word pairs of n windows, row by row, each row filled up with weight 0.

    Attributes:
        buckets: (n, most) int64, ascending in each row; 0 where there is no term.
        counts: (n, most) float32, 1 + ln(how often the window holds it); 0 where there is no term.
    """

    buckets: NDArray[np.int64]
    counts: NDArray[np.float32]


def terms(sequences: Sequence[Sequence[int]]) -> Terms:
    """Hash the tokens and token pairs of windows.

    Args:
        sequences: Token ids of each window.

    Returns:
        The terms of every window.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    ids = np.array([token for sequence in sequences for token in sequence], np.uint64)
    owners = np.repeat(np.arange(len(sequences)), lengths)
    paired = np.flatnonzero(owners[:-1] == owners[1:])
    rows = np.concatenate([owners, owners[paired]])
    keys, repeats = np.unique((rows << _BITS) | _hashed(ids, paired), return_counts=True)
    rows, held = keys >> _BITS, np.bincount(keys >> _BITS, minlength=len(sequences))
    columns = np.arange(len(keys)) - (np.cumsum(held) - held)[rows]
    shape = (len(sequences), int(held.max(initial=1)))
    buckets, counts = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    buckets[rows, columns] = keys & (BUCKETS - 1)
    counts[rows, columns] = 1.0 + np.log(repeats)
    return Terms(buckets, counts)


def occurrences(sequence: Sequence[int]) -> list[tuple[int, int, int]]:
    """Where a window's terms stand.

    Args:
        sequence: Its token ids.

    Returns:
        Of each token and each pair its bucket and the half-open range of its tokens.
    """
    ids = np.array(sequence, np.uint64)
    pairs = np.arange(max(0, len(ids) - 1))
    buckets = _hashed(ids, pairs).tolist()
    places = [(place, place + 1) for place in range(len(ids))] + [(place, place + 2) for place in pairs.tolist()]
    return [(bucket, *place) for bucket, place in zip(buckets, places, strict=True)]


def _hashed(ids: NDArray[np.uint64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The buckets of all tokens, then of the pairs that begin at the given places."""
    mixed = np.concatenate([ids, ids[pairs] * _LEFT + ids[pairs + 1] * _RIGHT])
    return ((mixed * _SPREAD) >> _SHIFT).astype(np.int64)
