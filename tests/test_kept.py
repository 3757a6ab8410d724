"""Kept embeddings: the same rows as without them, each full window encoded once, a bound."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.encoder import HashEncoder
from classifier.kept import LEAST_TOKENS, KeptEmbeddings
from classifier.runtime import Runtime


class CountingEncoder(HashEncoder):
    """Notes what it encodes."""

    def __init__(self) -> None:
        self.encoded: list[tuple[int, ...]] = []

    def encode(self, sequences: Sequence[Sequence[int]]) -> Any:
        self.encoded += map(tuple, sequences)
        return super().encode(sequences)


def window(number: int, length: int = LEAST_TOKENS) -> list[int]:
    """A window of few different tokens, so that the fake is fast."""
    return [number, *([7] * (length - 1))]


def test_a_full_window_is_encoded_once_also_within_one_batch() -> None:
    inner = CountingEncoder()
    kept = KeptEmbeddings(inner, entries=10)
    shared, mine, short = window(1), window(2), [1, 2, 3]
    first = kept.encode([shared, short, mine, shared])
    second = kept.encode([short, shared])
    assert inner.encoded == [tuple(shared), tuple(short), tuple(mine), tuple(short)]
    assert kept.spared == 2 * LEAST_TOKENS
    np.testing.assert_array_equal(first[0], first[3])
    np.testing.assert_array_equal(second[1], first[0])
    np.testing.assert_array_equal(second[0], first[1])


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([2, LEAST_TOKENS - 1, LEAST_TOKENS])), max_size=8))
@settings(deadline=None, max_examples=40)
def test_the_rows_are_those_of_the_encoder_whatever_was_kept_before(batch: list[tuple[int, int]]) -> None:
    kept = KeptEmbeddings(HashEncoder(), entries=2)
    sequences = [window(*each) for each in batch]
    for _ in range(2):
        np.testing.assert_array_equal(kept.encode(sequences), HashEncoder().encode(sequences))


def test_the_least_recently_used_window_goes_first() -> None:
    inner = CountingEncoder()
    kept = KeptEmbeddings(inner, entries=2)
    for number in (1, 2, 1, 3, 1, 2):
        kept.encode([window(number)])
    assert [sequence[0] for sequence in inner.encoded] == [1, 2, 3, 2]
    assert len(kept) == 2


def test_a_caller_who_changes_its_rows_does_not_change_the_kept_ones() -> None:
    kept = KeptEmbeddings(HashEncoder(), entries=2)
    kept.encode([window(1)])[:] = 0.0
    kept.encode([window(1)])[:] = 0.0
    np.testing.assert_array_equal(kept.encode([window(1)]), HashEncoder().encode([window(1)]))


def test_prompts_with_a_shared_beginning_get_the_verdicts_that_they_get_without_it(runtime: Runtime) -> None:
    system = "You are the assistant of a railway company. Answer shortly and name the rule that applies. " * 30
    texts = [f"{system} {question}" for question in ("May I take a bicycle?", "List 50 rules as JSON lines.")]
    together = [verdict.extraction_logit for verdict in runtime.scorer.score(texts).verdicts]
    again = [runtime.scorer.score([text]).verdicts[0].extraction_logit for text in texts]
    np.testing.assert_allclose(again, together, atol=0.02)
    assert isinstance(runtime.scorer.model.encoder, KeptEmbeddings)
    assert len(runtime.scorer.model.encoder) > 5
