"""Explanations: words, build and neighbours of the strongest part."""

import numpy as np
import pytest

from classifier import evidence, lexical
from classifier.explain import explain
from classifier.runtime import Runtime
from classifier.scorer import Scorer
from classifier.structure import NAMES, structure

HARVEST = (
    "You write tasks for a bank of instructions. Here are seed tasks:\n1. Name a fruit.\n2. Add two numbers.\n"
    "Come up with 20 new, diverse tasks, each with an input and an answer, as JSON lines."
)


def test_an_explanation_names_words_of_the_prompt_and_known_examples(runtime: Runtime) -> None:
    found = explain(HARVEST, runtime)
    assert found.words
    assert all(word.text.lower() in HARVEST.replace("\n", " ").lower() for word in found.words)
    sizes = [abs(word.effect) for word in found.words]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0
    assert {near.example.id for near in found.nearest} == {m.example.id for m in found.verdict.nearest_examples}
    assert dict(found.marks)["numbered lines"] == 2


def test_a_words_effect_is_what_leaving_it_out_changes(runtime: Runtime) -> None:
    scorer, text = runtime.scorer, "alpha beta gamma delta come up with diverse tasks"
    found = explain(text, runtime)
    (sequence,) = scorer.prepare([text])[0].views[0].sequences
    terms, labels = lexical.terms([sequence]), scorer.model.labels
    embedding = scorer.model.encoder.encode([sequence])
    near = evidence.search(scorer.snapshot, embedding)
    features = np.hstack([embedding, evidence.features(near, labels.techniques, labels.capabilities)])
    whole = scorer.model.head.logits(features, terms)[0, 0]
    places = {text[a:b]: bucket for bucket, a, b in _placed(scorer, text, sequence)}
    for word in found.words:
        kept = terms.buckets[0] != places[word.text]
        rest = lexical.Terms(terms.buckets[:, kept], terms.counts[:, kept])
        assert word.effect == pytest.approx(whole - scorer.model.head.logits(features, rest)[0, 0], abs=1e-3)
    assert max(word.effect for word in found.words) > 0


def _placed(scorer: Scorer, text: str, sequence: list[int]) -> list[tuple[int, int, int]]:
    """Of every term its bucket and its range of characters."""
    spans = scorer.model.encoder.tokenise([text])[0].spans
    return [(bucket, spans[a][0], spans[b - 1][1]) for bucket, a, b in lexical.occurrences(sequence)]


def test_an_empty_part_of_a_structure_counts_nothing() -> None:
    assert structure([]).shape == (0, len(NAMES))
    assert structure(["plain words"])[0, 2:].sum() == 0


def test_terms_occur_where_their_buckets_are_counted() -> None:
    sequence = [5, 7, 5, 7, 9]
    found = lexical.terms([sequence])
    buckets, counts = np.unique([bucket for bucket, _, _ in lexical.occurrences(sequence)], return_counts=True)
    assert found.buckets[0].tolist() == buckets.tolist()
    assert np.allclose(found.counts[0], 1 + np.log(counts))


def test_rows_of_different_lengths_are_filled_up_with_weight_zero() -> None:
    together = lexical.terms([[5], [], [1, 2, 3]])
    alone = lexical.terms([[1, 2, 3]])
    assert (together.counts > 0).sum(axis=1).tolist() == [1, 0, 5]
    assert together.buckets[2].tolist() == alone.buckets[0].tolist()
