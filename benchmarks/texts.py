"""Texts of a wanted number of tokens, cut from the seed corpus."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from classifier.corpus import SeedRow, load_corpus
from classifier.encoder import Encoder
from classifier.text import canonical

_CHARS_A_TOKEN = 4.7
_CHUNK, _MOST_CHARS = 10_000, 100_000
_SCALE = 48.8
"""Of the exponential distribution whose values, cut at 240 and rounded down, are 48 in the mean."""


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


def mixed_texts(rows: Sequence[SeedRow], encoder: Encoder, count: int, seed: int = 0) -> list[str]:
    """English texts of 16 to 256 tokens, 64 in the mean, most of them short; of many, some are equal.

    Args:
        rows: Seed rows whose words are used.
        encoder: Its tokenizer counts.
        count: How many texts.
        seed: Of the lengths and the places.

    Returns:
        The texts.
    """
    random = np.random.default_rng(seed)
    lengths = 16 + np.minimum(random.exponential(_SCALE, count), 240).astype(int)
    words = [word for row in rows if row.example.language == "en" for word in row.example.text.split()]
    starts = random.integers(0, len(words) - 512, count)
    long = [" ".join(words[start : start + 2 * n]) for start, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    found = encoder.tokenise(long)
    return [
        text[: tokens.spans[min(n - 2, len(tokens.ids)) - 1][1]]
        for text, tokens, n in zip(long, found, lengths.tolist(), strict=True)
    ]


def distinct_texts(rows: Sequence[SeedRow], encoder: Encoder, count: int, seed: int = 0) -> Iterator[str]:
    """Mixed texts of which no two have one canonical form, so that none is a repeat.

    Args:
        rows: Seed rows whose words are used.
        encoder: Its tokenizer counts.
        count: How many texts.
        seed: Of the lengths and the places.

    Yields:
        The texts; they are made as they are taken.
    """
    seen: set[str] = set()
    while len(seen) < count:
        for text in mixed_texts(rows, encoder, min(_CHUNK, count), seed):
            form = canonical(text, _MOST_CHARS)
            if form not in seen and len(seen) < count:
                seen.add(form)
                yield text
        seed += 1


def rough_texts(count: int, seed: int = 0) -> list[str]:
    """English texts of some 16 to 256 tokens, 64 in the mean, by their characters: for callers that do not tokenise.

    Args:
        count: How many.
        seed: Of the choice.

    Returns:
        The texts.
    """
    random = np.random.default_rng(seed)
    words = _words()
    lengths = np.clip(16 + random.exponential(50, count), 16, 256) * _CHARS_A_TOKEN
    starts = random.integers(0, len(words) - 2_000, count)
    return [words[start : start + int(length)] for start, length in zip(starts, lengths, strict=True)]


@cache
def _words() -> str:
    return " ".join(row.example.text for row in load_corpus() if row.example.language == "en")
