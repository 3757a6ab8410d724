"""Scores for a run: one bundle and one state of the examples from its beginning to its end."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from classifier import evidence
from classifier.batch.template import template
from classifier.encoder import Embeddings, Encoder
from classifier.runtime import Runtime
from classifier.scorer import Model, Scorer
from classifier.verdict import Verdict
from classifier.views import Prepared
from index.live import Snapshot


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of a verdict: only what the output holds, because many wait in memory for their repeats.

    Attributes:
        decision: The decision.
        probability: The extraction probability, in [0, 1].
        logit: The raw score behind it.
        technique: The likeliest technique, or "".
        technique_probability: Its probability, given that the prompt is extraction-style.
        capabilities: A probability for each capability, in the bundle's order.
        nearest: Id, label and cosine of the nearest examples, highest cosine first.
        reasons: Codes of the reasons, strongest first.
        extent: How much was read.
        tokens_read: Tokens inside the windows.
        tokens_total: Tokens of the prompt.
        windows: How many windows were scored.
        span: The strongest window in the scored text, as a half-open range of code points.
        abstention: The code of why it was not judged, or None.
        disguises: What was undone.
        template: The template's fingerprint.
        embedding: (d,) float32 unit vector of the first window, where it is wanted.
    """

    decision: str
    probability: float
    logit: float
    technique: str
    technique_probability: float
    capabilities: tuple[float, ...]
    nearest: tuple[tuple[str, str, float], ...]
    reasons: tuple[str, ...]
    extent: str
    tokens_read: int
    tokens_total: int
    windows: int
    span: tuple[int, int]
    abstention: str | None
    disguises: tuple[str, ...]
    template: str
    embedding: NDArray[np.float32] | None = None


class Scoring:
    """The scorer of a run, over examples that do not change meanwhile. Safe to call from any thread."""

    def __init__(self, runtime: Runtime, *, embeddings: bool = False) -> None:
        """Hold the examples as they are now.

        Args:
            runtime: What scores.
            embeddings: Whether outcomes carry their embedding.
        """
        self._hold(runtime.scorer.model, runtime.examples.snapshot, runtime.scorer.max_chars, embeddings=embeddings)

    @classmethod
    def of(cls, model: Model, snapshot: Snapshot, max_chars: int, *, embeddings: bool = False) -> "Scoring":
        """A scorer of parts that came from elsewhere.

        Args:
            model: What scores.
            snapshot: The examples.
            max_chars: The most characters of a prompt.
            embeddings: Whether outcomes carry their embedding.

        Returns:
            The scorer.
        """
        made = cls.__new__(cls)
        made._hold(model, snapshot, max_chars, embeddings=embeddings)  # noqa: SLF001  # it is its own
        return made

    def _hold(self, model: Model, snapshot: Snapshot, max_chars: int, *, embeddings: bool) -> None:
        self.snapshot = snapshot
        self.max_chars = max_chars
        self._tap = _Tap(model.encoder) if embeddings else None
        self.model = replace(model, encoder=self._tap) if self._tap else model
        self._scorer = Scorer(self.model, lambda: self.snapshot, max_chars=self.max_chars)

    def score(self, texts: Sequence[str]) -> list[Outcome]:
        """Score texts; equal calls give equal results, to the bit.

        Args:
            texts: Texts that can be scored.

        Returns:
            An outcome for each, in order.

        Raises:
            InvalidPrompt: When a text is empty, too long or no valid Unicode.
        """
        prepared = self._scorer.prepare(texts)
        verdicts = self._scorer.score_prepared(prepared).verdicts
        rows: Sequence[NDArray[np.float32] | None] = [None] * len(prepared)
        if self._tap:
            starts = np.cumsum([0, *(prompt.windows for prompt in prepared)])[:-1]
            rows = list(self._tap.last[starts])
        return [_outcome(verdict, prompt, row) for verdict, prompt, row in zip(verdicts, prepared, rows, strict=True)]

    def repetition(self, text: str) -> float:
        """What it adds to a text's logit that it is a known example's, to the letter."""
        return evidence.repetition(self.snapshot, text)


class _Tap:
    """An encoder that leaves its last answer for the thread that asked."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._local = threading.local()
        self.dimensions, self.fingerprint, self.ranks = encoder.dimensions, encoder.fingerprint, encoder.ranks
        self.tokenise = encoder.tokenise

    @property
    def last(self) -> Embeddings:
        rows: Embeddings = self._local.rows
        return rows

    def encode(self, sequences: Sequence[Sequence[int]]) -> Embeddings:
        self._local.rows = self._encoder.encode(sequences)
        return self.last


def _outcome(verdict: Verdict, prompt: Prepared, embedding: NDArray[np.float32] | None) -> Outcome:
    best = verdict.techniques[0] if verdict.techniques else None
    inspected = verdict.inspected
    return Outcome(
        decision=verdict.decision.value,
        probability=verdict.extraction_probability,
        logit=verdict.extraction_logit,
        technique=best.name if best else "",
        technique_probability=best.probability if best else 0.0,
        capabilities=tuple(score.probability for score in verdict.capabilities),
        nearest=tuple((near.example.id, near.example.label.value, near.cosine) for near in verdict.nearest_examples),
        reasons=tuple(reason.code for reason in verdict.reasons),
        extent=inspected.extent.value,
        tokens_read=inspected.tokens_inspected,
        tokens_total=inspected.tokens_total,
        windows=inspected.windows,
        span=inspected.strongest_window,
        abstention=verdict.abstention.code if verdict.abstention else None,
        disguises=prompt.disguises,
        template=template(prompt.views[0].text),
        # A row of its own, so that it does not hold its batch's in memory.
        embedding=None if embedding is None else embedding.copy(),
    )
