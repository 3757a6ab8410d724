"""Why a prompt scored as it did, in the words of an analyst: its strongest part, its wording, its build, its neighbours."""

from dataclasses import dataclass

import numpy as np

from classifier import evidence, lexical
from classifier.lexical import Terms
from classifier.runtime import Runtime
from classifier.scorer import Scorer
from classifier.structure import NAMES, structure
from classifier.text import canonical
from classifier.verdict import Verdict
from index.example import Example

_WORDS = 8
_MARKS = 5
_EXCERPT = 400


@dataclass(frozen=True, slots=True)
class Word:
    """A word or a pair of words of the strongest window.

    Attributes:
        text: As it stands in the canonical text.
        effect: What it adds to the extraction logit: the logit less what it would be without the word.
    """

    text: str
    effect: float


@dataclass(frozen=True, slots=True)
class Near:
    """A known example near the strongest window, with its text."""

    example: Example
    cosine: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explained verdict. It holds prompt text: it is for the eyes of whoever has the prompt.

    Attributes:
        verdict: The verdict.
        excerpt: The beginning of the strongest window.
        words: What speaks for extraction and against it, the strongest first.
        marks: How the text is built: what is counted, and how often; the most frequent first.
        nearest: The nearest known examples, highest cosine first.
    """

    verdict: Verdict
    excerpt: str
    words: tuple[Word, ...]
    marks: tuple[tuple[str, int], ...]
    nearest: tuple[Near, ...]


def explain(text: str, runtime: Runtime) -> Explanation:
    """Score a prompt and say why.

    Args:
        text: The prompt.
        runtime: What scores.

    Returns:
        The explanation.

    Raises:
        InvalidPrompt: When the prompt cannot be scored.
    """
    (verdict,) = runtime.scorer.score([text]).verdicts
    first, last = verdict.inspected.strongest_window
    part = text[first:last]
    counts = np.expm1(structure([canonical(text, len(text))])[0]).round().astype(int)
    marks = [(name, int(count)) for name, count in zip(NAMES[2:], counts[2:], strict=True) if count > 0]
    return Explanation(
        verdict=verdict,
        excerpt=part if len(part) <= _EXCERPT else f"{part[: _EXCERPT - 1]}…",
        words=tuple(_words(part, runtime.scorer)),
        marks=tuple(sorted(marks, key=lambda mark: -mark[1])[:_MARKS]),
        nearest=tuple(Near(match.example, match.cosine) for match in verdict.nearest_examples),
    )


def _words(part: str, scorer: Scorer) -> list[Word]:
    """Leave out each term of the strongest window in turn, and see what the head says."""
    prompt = scorer.prepare([part])[0]
    view = prompt.views[-1]
    sequence, spans = view.sequences[0], view.tokens.spans
    terms = lexical.terms([sequence])
    count = terms.buckets.shape[1]
    buckets = np.repeat(terms.buckets, count + 1, axis=0)
    counts = np.repeat(terms.counts, count + 1, axis=0)
    counts[np.arange(count), np.arange(count)] = 0.0
    embedding = scorer.model.encoder.encode([sequence])
    labels = scorer.model.labels
    found = evidence.search(scorer.snapshot, embedding)
    features = np.hstack([embedding, evidence.features(found, labels.techniques, labels.capabilities)])
    logits = scorer.model.head.logits(np.repeat(features, count + 1, axis=0), Terms(buckets, counts))[:, 0]
    effects = dict(zip(terms.buckets[0].tolist(), (logits[-1] - logits[:-1]).tolist(), strict=True))
    words: dict[str, float] = {}
    for bucket, start, end in lexical.occurrences(sequence):
        words[view.text[spans[start][0] : spans[end - 1][1]].replace("\n", " ")] = effects[bucket]
    return [Word(text, effect) for text, effect in sorted(words.items(), key=lambda item: -abs(item[1]))[:_WORDS]]
