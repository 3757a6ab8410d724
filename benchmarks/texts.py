"""Texts of a wanted number of tokens, cut from the seed corpus."""

from collections.abc import Sequence

import numpy as np

from classifier.corpus import SeedRow
from classifier.encoder import Encoder


def texts_of_length(rows: Sequence[SeedRow], encoder: Encoder, tokens: int, count: int, seed: int = 0) -> list[str]:
    """English texts of exactly so many tokens, the two special ones counted.

    Args:
        rows: Seed rows whose words are used.
        encoder: Its tokenizer counts.
        tokens: The length wanted.
        count: How many texts.
        seed: Of the shuffling.

    Returns:
        The texts.
    """
    random = np.random.default_rng(seed)
    words = [word for row in rows if row.example.language == "en" for word in row.example.text.split()]
    texts: list[str] = []
    while len(texts) < count:
        start = int(random.integers(0, len(words) - 2 * tokens))
        text = " ".join(words[start : start + 2 * tokens])
        (found,) = encoder.tokenise([text])
        text = text[: found.spans[tokens - 3][1]]
        if len(encoder.tokenise([text])[0].ids) == tokens - 2:
            texts.append(text)
    return texts
