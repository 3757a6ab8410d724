"""Lexical evidence: which words and word pairs a window holds, hashed into a fixed number of buckets.

The embedding says what a text is about; the words say how it asks ("json lines", "seed task", "step 1:").
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEXICAL_VERSION = 1
"""Counts the forms of this hashing; a head fits only the one it was trained on."""
BUCKETS = 2**15
_SHIFT = np.uint64(64 - 15)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_LEFT = np.uint64(0xC2B2AE3D27D4EB4F)
_RIGHT = np.uint64(0x165667B19E3779F9)


def terms(tokens: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The buckets of a window's tokens and token pairs.

    Args:
        tokens: Token ids.

    Returns:
        Ascending bucket numbers, and 1 + ln(count) of each, float32.
    """
    ids = np.asarray(tokens, np.uint64)
    mixed = np.concatenate([ids, ids[:-1] * _LEFT + ids[1:] * _RIGHT])
    buckets, counts = np.unique((mixed * _SPREAD) >> _SHIFT, return_counts=True)
    return buckets.astype(np.int64), (1.0 + np.log(counts)).astype(np.float32)


def bags(sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """The terms of several windows as rows.

    Args:
        sequences: Token ids of each window.

    Returns:
        (n, BUCKETS) float32.
    """
    rows = np.zeros((len(sequences), BUCKETS), np.float32)
    for row, sequence in zip(rows, sequences, strict=True):
        buckets, values = terms(sequence)
        row[buckets] = values
    return rows
