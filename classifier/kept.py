"""Kept embeddings: what prompts share, such as a long system prompt, is encoded once."""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from classifier.encoder import Embeddings, Encoder, Tokens

LEAST_TOKENS = 126
"""Shorter windows are whole prompts or their ends, which seldom come back; the verdict cache holds repeated prompts."""


class KeptEmbeddings:
    """An encoder that remembers the embeddings of full windows, the most recently used ones. Safe from any thread.

    Attributes:
        spared: Tokens, in all, that were not encoded because their window was known or came twice.
        dimensions: The encoder's.
        fingerprint: The encoder's.
        ranks: The encoder's.
    """

    def __init__(self, encoder: Encoder, *, entries: int) -> None:
        """Begin empty.

        Args:
            encoder: What encodes; its embeddings are never mixed with another one's.
            entries: The most windows that are remembered; one takes some 2.5 kB with 384 dimensions.
        """
        self._encoder = encoder
        self._most = entries
        self._held: OrderedDict[bytes, Embeddings] = OrderedDict()
        self._lock = threading.Lock()
        self.spared = 0
        self.dimensions: int = encoder.dimensions
        self.fingerprint: str = encoder.fingerprint
        self.ranks: Mapping[str, int] = encoder.ranks

    def __len__(self) -> int:
        """How many windows are remembered."""
        return len(self._held)

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """The texts' tokens, none cut off."""
        return self._encoder.tokenise(texts)

    def encode(self, sequences: Sequence[Sequence[int]]) -> Embeddings:
        """Embed token sequences; full windows that are known, or come twice, are encoded once.

        Args:
            sequences: Token ids without special tokens, each within one window.

        Returns:
            (n, dimensions) float32 unit rows, in the order given.
        """
        keys = [_key(sequence) if len(sequence) >= LEAST_TOKENS else None for sequence in sequences]
        if not any(keys):
            return self._encoder.encode(sequences)
        rows = np.zeros((len(sequences), self.dimensions), np.float32)
        known: dict[bytes, Embeddings] = {}
        with self._lock:
            for key in keys:
                if key is not None and key in self._held:
                    self._held.move_to_end(key)
                    known[key] = self._held[key]
        first: dict[bytes, int] = {}
        missing = [
            place
            for place, key in enumerate(keys)
            if key is None or (key not in known and first.setdefault(key, place) == place)
        ]
        if missing:
            rows[missing] = self._encoder.encode([sequences[place] for place in missing])
        fresh = {key: rows[place].copy() for key, place in first.items()}
        known |= fresh
        for place, key in enumerate(keys):
            if key is not None:
                rows[place] = known[key]
        with self._lock:
            self.spared += sum(map(len, sequences)) - sum(len(sequences[place]) for place in missing)
            self._held |= fresh
            while len(self._held) > self._most:
                self._held.popitem(last=False)
        return rows


def _key(sequence: Sequence[int]) -> bytes:
    """The ids themselves as bytes: no two windows share one, and 254 ids take a kilobyte."""
    return array("I", sequence).tobytes()
