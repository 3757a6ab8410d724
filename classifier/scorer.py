"""The scorer: the road that every prompt takes, in the server, the batch job, training and the tests."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier import evidence, lexical, policy
from classifier.encoder import Embeddings, Encoder, Tokens
from classifier.errors import InvalidPrompt
from classifier.head import Head
from classifier.policy import Calibration, Thresholds
from classifier.text import canonical, fold, source_span
from classifier.verdict import Extent, Inspection, LabelScore, Provenance, Scored, StageTimes, Verdict
from classifier.windows import Window, WindowPlan, covered, cut
from index.example import Label
from index.live import Match, Snapshot, merged

Floats = NDArray[np.float32]
_WINDOWS_AT_ONCE = 128
NEAREST = 5
"""How many examples a verdict names."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The head's outputs after the first one, which is extraction."""

    techniques: tuple[str, ...]
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """What a bundle brings to the scorer.

    Attributes:
        version: The bundle's version.
        encoder: Tokens to embeddings.
        head: Features to logits.
        labels: The names of the logits.
        calibration: For extraction first, then for each capability.
        thresholds: From which probability a prompt is reviewed or flagged.
        windows: How long prompts are cut.
    """

    version: str
    encoder: Encoder
    head: Head
    labels: Labels
    calibration: tuple[Calibration, ...]
    thresholds: Thresholds
    windows: WindowPlan


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt that is ready to be encoded.

    Attributes:
        text: The original text.
        canonical_text: What the tokens are of.
        tokens: The canonical text's tokens.
        windows: The parts that are encoded.
    """

    text: str
    canonical_text: str
    tokens: Tokens
    windows: tuple[Window, ...]

    @property
    def sequences(self) -> list[list[int]]:
        """The windows' token ids."""
        return [self.tokens.ids[window.start : window.end] for window in self.windows]

    @property
    def cost(self) -> int:
        """How many tokens the encoder will read."""
        return sum(window.end - window.start for window in self.windows)


class Scorer:
    """Scores prompts. Synchronous, batch-first, without I/O, safe to call from any thread."""

    def __init__(self, model: Model, snapshot: Callable[[], Snapshot], *, max_chars: int = 100_000) -> None:
        """Put the parts together.

        Args:
            model: The bundle's parts.
            snapshot: Returns the examples as they are now; asked once a batch.
            max_chars: The most characters of a prompt.
        """
        self.model = model
        self._snapshot = snapshot
        self._max_chars = max_chars

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Bring texts into canonical form, tokenise and cut them.

        Args:
            texts: Prompts.

        Returns:
            One prepared prompt for each text.

        Raises:
            InvalidPrompt: When a text is empty, too long or no valid Unicode.
        """
        prepared = []
        for outcome in self.prepare_each(texts):
            if isinstance(outcome, InvalidPrompt):
                raise outcome
            prepared.append(outcome)
        return prepared

    def prepare_each(self, texts: Sequence[str]) -> list[Prepared | InvalidPrompt]:
        """Prepare texts as prepare does, but let a bad one spoil none of its neighbours.

        Args:
            texts: Prompts.

        Returns:
            For each text its prepared form, or what is wrong with it.
        """
        folded: list[str | InvalidPrompt] = []
        for text in texts:
            try:
                folded.append(canonical(text, self._max_chars))
            except InvalidPrompt as error:
                folded.append(error)
        tokens = iter(self.model.encoder.tokenise([form for form in folded if isinstance(form, str)]))
        return [
            self._prepared(text, form, next(tokens)) if isinstance(form, str) else form
            for text, form in zip(texts, folded, strict=True)
        ]

    def score(self, texts: Sequence[str]) -> Scored:
        """Score prompts; the same verdicts as one by one.

        Args:
            texts: Prompts.

        Returns:
            One verdict for each prompt, in order, with provenance and stage times.

        Raises:
            InvalidPrompt: When a text is empty, too long or no valid Unicode.
        """
        started = time.perf_counter()
        prepared = self.prepare(texts)
        return self.score_prepared(prepared, tokenise_seconds=time.perf_counter() - started)

    def score_prepared(self, prompts: Sequence[Prepared], *, tokenise_seconds: float = 0.0) -> Scored:
        """Score prompts that are prepared already.

        Args:
            prompts: What prepare returned.
            tokenise_seconds: What preparing took, for the stage times.

        Returns:
            One verdict for each prompt, in order.
        """
        snapshot = self._snapshot()
        clock = [time.perf_counter()]
        embeddings = self._encode(prompts)
        clock.append(time.perf_counter())
        neighbours = evidence.search(snapshot, embeddings)
        clock.append(time.perf_counter())
        logits = self._logits(embeddings, neighbours, [sequence for prompt in prompts for sequence in prompt.sequences])
        verdicts, row = [], 0
        for prompt in prompts:
            rows = slice(row, row + len(prompt.windows))
            verdicts.append(self._verdict(prompt, logits[rows], neighbours, row))
            row = rows.stop
        clock.append(time.perf_counter())
        encode, search, classify = (1_000 * float(seconds) for seconds in np.diff(clock))
        return Scored(
            tuple(verdicts),
            Provenance(self.model.version, snapshot.revision),
            StageTimes(1_000 * tokenise_seconds, encode, search, classify),
        )

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embed the first window of each text, as examples are embedded.

        Args:
            texts: Examples.

        Returns:
            (n, d) float32 unit rows.
        """
        # Examples have a limit of their own; an operator's lower one must not make a stored example unreadable.
        length = self.model.windows.length
        return self.model.encoder.encode(
            [t.ids[:length] for t in self.model.encoder.tokenise([fold(t) for t in texts])]
        )

    def nearest(self, text: str, limit: int, label: Label | None = None) -> tuple[list[Match], Provenance]:
        """The examples nearest to a text's first window.

        Args:
            text: A prompt.
            limit: How many at most.
            label: Only examples of this label.

        Returns:
            Matches, highest cosine first, and what was searched.

        Raises:
            InvalidPrompt: When the text is empty, too long or no valid Unicode.
        """
        snapshot = self._snapshot()
        (prompt,) = self.prepare([text])
        found = snapshot.nearest(self.model.encoder.encode(prompt.sequences[:1])[0], limit, label)
        return found, Provenance(self.model.version, snapshot.revision)

    def _prepared(self, text: str, form: str, tokens: Tokens) -> Prepared:
        return Prepared(text, form, tokens, tuple(cut(len(tokens.ids), self.model.windows)))

    def _logits(
        self, embeddings: Embeddings, neighbours: evidence.Neighbours, sequences: Sequence[Sequence[int]]
    ) -> Floats:
        """(w, labels) logits of all windows, some at a time, because their bags of words are large."""
        labels, head = self.model.labels, self.model.head
        near = evidence.features(neighbours, labels.techniques, labels.capabilities)
        features = np.hstack([embeddings, near])
        logits = np.zeros((len(sequences), 1 + len(labels.techniques) + len(labels.capabilities)), np.float32)
        for start in range(0, len(sequences), _WINDOWS_AT_ONCE):
            part = slice(start, start + _WINDOWS_AT_ONCE)
            logits[part] = head.logits(features[part], lexical.bags(sequences[part]))
        logits[:, 0] += evidence.precedent(neighbours)
        return logits

    def _encode(self, prompts: Sequence[Prepared]) -> Embeddings:
        return self.model.encoder.encode([sequence for prompt in prompts for sequence in prompt.sequences])

    def _verdict(self, prompt: Prepared, logits: Floats, neighbours: evidence.Neighbours, row: int) -> Verdict:
        labels, calibration = self.model.labels, self.model.calibration
        totals = aggregate(logits)
        totals[0] += evidence.repetition(neighbours.snapshot, prompt.text)
        strongest = int(logits[:, 0].argmax())
        probability = calibration[0].probability(float(totals[0]))
        inspected = _inspection(prompt, strongest)
        techniques = _distribution(labels.techniques, totals[1 : 1 + len(labels.techniques)])
        nearest = merged(neighbours.sides, row + strongest, NEAREST)
        capabilities = tuple(
            LabelScore(name, scale.probability(float(logit)))
            for name, scale, logit in zip(
                labels.capabilities, calibration[1:], totals[1 + len(labels.techniques) :], strict=True
            )
        )
        return Verdict(
            decision=self.model.thresholds.decide(probability),
            extraction_probability=probability,
            extraction_logit=float(totals[0]),
            techniques=techniques,
            capabilities=capabilities,
            nearest_examples=tuple(nearest),
            reasons=policy.reasons(probability, self.model.thresholds, techniques, nearest, inspected),
            inspected=inspected,
        )


def aggregate(logits: Floats) -> Floats:
    """Bring the windows' logits to the prompt's.

    Extraction takes the highest: what is buried in a long prompt must not be diluted by what surrounds it. Techniques
    and capabilities are the whole prompt's, and take the middle between the highest and the mean.

    Args:
        logits: (windows, labels) float32, extraction first.

    Returns:
        (labels,) float32.
    """
    highest = logits.max(axis=0)
    found = 0.5 * (highest + logits.mean(axis=0))
    found[0] = highest[0]
    return np.asarray(found, np.float32)


def _inspection(prompt: Prepared, strongest: int) -> Inspection:
    total, spans = len(prompt.tokens.ids), prompt.tokens.spans
    window = prompt.windows[strongest]
    first, last = (spans[window.start][0], spans[window.end - 1][1]) if total else (0, len(prompt.canonical_text))
    if prompt.text != prompt.canonical_text:
        first, last = source_span(prompt.text, first, last, len(prompt.canonical_text))
    inspected = covered(prompt.windows)
    extent = Extent.FULL if inspected == total else Extent.PARTIAL
    return Inspection(extent, inspected, total, len(prompt.windows), (first, last))


def _distribution(names: Sequence[str], logits: Floats) -> tuple[LabelScore, ...]:
    if not len(logits):
        return ()
    weights = np.exp((logits - logits.max()).astype(np.float64))
    shares = weights / math.fsum(weights)
    return tuple(LabelScore(names[i], float(shares[i])) for i in np.argsort(-shares, kind="stable"))
