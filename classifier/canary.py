"""The canary prompts: their side is clear, and a bundle that does not see it is not put to work."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classifier.bundle import Bundle
from classifier.errors import CanaryFailed
from classifier.runtime import Runtime
from classifier.scorer import Scorer
from index.example import Label
from index.live import empty_snapshot

_FILE = Path(__file__).parent / "canaries.jsonl"
_EVEN = 0.5
"""Sides are told by the calibrated probability, not by thresholds: those are the operator's to move."""
_TOLERANCE = 1e-3
_EMBEDDED = 4
_AT_ONCE = 3
"""Canaries of one batch: few, so that a server that is checking a bundle can go on serving."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A prompt and the side on which it clearly stands."""

    name: str
    label: Label
    text: str


def load_canaries() -> tuple[Canary, ...]:
    """The canary prompts that ship: both sides, several languages, a long one, disguised ones."""
    rows = map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
    return tuple(Canary(row["name"], Label(row["label"]), row["text"]) for row in rows)


def check(runtime: Runtime) -> tuple[str, ...]:
    """See that a runtime's embeddings are sound and that it decides every canary rightly.

    Args:
        runtime: What is to be put to work.

    Returns:
        The names of canaries that the bundle decides rightly by itself, but wrongly beside the examples that were
        added to the store: analysts' examples may be wrong, but they must not keep a sound bundle from work.

    Raises:
        CanaryFailed: When the bundle's embeddings are no finite unit vectors, or it decides a canary wrongly.
    """
    canaries, model = load_canaries(), runtime.scorer.model
    shortest = sorted((canary.text for canary in canaries), key=len)[:_EMBEDDED]
    rows = runtime.scorer.embed(shortest)
    lengths = np.linalg.norm(rows, axis=1)
    if not np.all(np.abs(lengths - 1.0) <= _TOLERANCE):  # what is not finite compares false
        raise CanaryFailed(
            f"bundle {model.version} gives embeddings that are no finite unit vectors: build the bundle again"
        )
    moved = misjudged(runtime.scorer, canaries)
    if moved:
        wrong = misjudged(alone(runtime.bundle), canaries)
        if wrong:
            raise CanaryFailed(
                f"bundle {model.version} decides {len(wrong)} of {len(canaries)} canary prompts wrongly "
                f"({', '.join(wrong)}): build or train it again"
            )
    return moved


def misjudged(scorer: Scorer, canaries: tuple[Canary, ...]) -> tuple[str, ...]:
    """The names of the canaries that a scorer puts on the wrong side, or does not judge."""
    wrong = []
    groups = [canaries[start : start + _AT_ONCE] for start in range(0, len(canaries), _AT_ONCE)]
    verdicts = [verdict for group in groups for verdict in scorer.score([found.text for found in group]).verdicts]
    for canary, verdict in zip(canaries, verdicts, strict=True):
        extraction, benign = verdict.extraction_probability >= _EVEN, verdict.extraction_probability < _EVEN
        right = extraction if canary.label == Label.EXTRACTION else benign
        if verdict.abstention is not None or not right:
            wrong.append(canary.name)
    return tuple(wrong)


def alone(bundle: Bundle) -> Scorer:
    """A scorer that knows no examples but the bundle's own."""
    empty = empty_snapshot(bundle.model.encoder.dimensions)
    seeds = empty.extended(bundle.examples, bundle.vectors, 0)
    return Scorer(bundle.model, lambda: seeds)
