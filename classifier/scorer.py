"""The scorer: the road that every prompt takes, in the server, the batch job, training and the tests."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from classifier import evidence, lexical, policy
from classifier.aggregate import Pooling, distribution, inspection, strongest_view
from classifier.disguise import undisguise
from classifier.encoder import Embeddings, Encoder, Tokens
from classifier.errors import InvalidPrompt
from classifier.head import Head
from classifier.identifier import Identify
from classifier.language import unsupported
from classifier.policy import Calibration, Thresholds
from classifier.text import canonical, fold
from classifier.verdict import Abstention, LabelScore, Provenance, Scored, StageTimes, Verdict
from classifier.views import Prepared, View
from classifier.windows import WindowPlan, cut, cut_finer
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
        pooling: How the windows' extraction logits become the prompt's.
        least_cosine: A prompt without an example at least so near is not judged.
        identify: Tells languages; None takes py3langid's own tables, which take more memory.
    """

    version: str
    encoder: Encoder
    head: Head
    labels: Labels
    calibration: tuple[Calibration, ...]
    thresholds: Thresholds
    windows: WindowPlan
    pooling: Pooling = field(default_factory=Pooling)
    least_cosine: float = -1.0
    identify: Identify | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """A scored batch, as an observer is told of it; its arrays are the scorer's own and must be copied to be kept.

    Attributes:
        prompts: The prompts.
        features: (w, d + e) float32 of all windows: unit embedding, then neighbour evidence.
        logits: (w,) float32 extraction logits of the windows, precedents included.
        precedents: (w,) float32, what the precedents added to them.
        verdicts: One for each prompt.
    """

    prompts: Sequence[Prepared]
    features: Floats
    logits: Floats
    precedents: Floats
    verdicts: Sequence[Verdict]


Observer = Callable[[Observed], None]
"""Told of every scored batch on the thread that scored it; it never raises, and takes next to no time."""


class Scorer:
    """Scores prompts. Synchronous, batch-first, without I/O, safe to call from any thread.

    Attributes:
        model: The bundle's parts.
        max_chars: The most characters of a prompt.
    """

    def __init__(
        self,
        model: Model,
        snapshot: Callable[[], Snapshot],
        *,
        max_chars: int = 100_000,
        observer: Observer | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            model: The bundle's parts.
            snapshot: Returns the examples as they are now; asked once a batch.
            max_chars: The most characters of a prompt.
            observer: Told of every scored batch.
        """
        self.model = model
        self._snapshot = snapshot
        self.max_chars = max_chars
        self._observer = observer

    @property
    def snapshot(self) -> Snapshot:
        """The examples as they are now."""
        return self._snapshot()

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
                folded.append(canonical(text, self.max_chars))
            except InvalidPrompt as error:
                folded.append(error)
        good = [form for form in folded if isinstance(form, str)]
        undisguised = [undisguise(form, self.model.encoder.ranks) for form in good]
        tokens = self.model.encoder.tokenise([*good, *(found.text for found in undisguised if found)])
        views = iter([self._view(form, its) for form, its in zip(good, tokens, strict=False)])
        others = iter(tokens[len(good) :])
        pairs = iter(undisguised)
        prepared: list[Prepared | InvalidPrompt] = []
        for text, form in zip(texts, folded, strict=True):
            if isinstance(form, InvalidPrompt):
                prepared.append(form)
                continue
            view, found = next(views), next(pairs)
            language = unsupported(found.text if found else form, self.model.identify)
            if found is None:
                prepared.append(Prepared(text, (view,), language=language))
            else:
                second = self._view(found.text, next(others))
                prepared.append(Prepared(text, (view, second), found.means, language))
        return prepared

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
        near = evidence.features(neighbours, self.model.labels.techniques, self.model.labels.capabilities)
        features, precedents = np.hstack([embeddings, near]), evidence.precedent(neighbours)
        logits = self._logits(features, precedents, [sequence for prompt in prompts for sequence in prompt.sequences])
        verdicts, row = [], 0
        for prompt in prompts:
            verdicts.append(self._verdict(prompt, logits[row : row + prompt.windows], neighbours, row))
            row += prompt.windows
        clock.append(time.perf_counter())
        if self._observer is not None:
            self._observer(Observed(prompts, features, logits[:, 0], precedents, verdicts))
        encode, search, classify = (1_000 * float(seconds) for seconds in np.diff(clock))
        return Scored(
            tuple(verdicts),
            self.provenance(snapshot),
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
        found = snapshot.nearest(self.model.encoder.encode(prompt.views[0].sequences[:1])[0], limit, label)
        return found, self.provenance(snapshot)

    def provenance(self, snapshot: Snapshot) -> Provenance:
        """By which bundle, examples and thresholds a prompt is scored among the examples of a snapshot."""
        thresholds = self.model.thresholds
        return Provenance(self.model.version, snapshot.revision, thresholds.review, thresholds.flag)

    def _view(self, text: str, tokens: Tokens) -> View:
        count, plan = len(tokens.ids), self.model.windows
        return View(text, tokens, tuple(cut(count, plan)), tuple(cut_finer(count, plan)))

    def _logits(self, features: Floats, precedents: Floats, sequences: Sequence[Sequence[int]]) -> Floats:
        """(w, labels) logits of all windows, some at a time, so that their terms stay small."""
        labels, head = self.model.labels, self.model.head
        logits = np.zeros((len(sequences), 1 + len(labels.techniques) + len(labels.capabilities)), np.float32)
        for start in range(0, len(sequences), _WINDOWS_AT_ONCE):
            part = slice(start, start + _WINDOWS_AT_ONCE)
            logits[part] = head.logits(features[part], lexical.terms(sequences[part]))
        logits[:, 0] += precedents
        return logits

    def _encode(self, prompts: Sequence[Prepared]) -> Embeddings:
        return self.model.encoder.encode([sequence for prompt in prompts for sequence in prompt.sequences])

    def _verdict(self, prompt: Prepared, logits: Floats, neighbours: evidence.Neighbours, row: int) -> Verdict:
        model, labels = self.model, self.model.labels
        found = strongest_view(prompt, logits, model.pooling)
        totals, window = found.totals, row + found.row
        repeated = evidence.repetition(neighbours.snapshot, prompt.text)
        extraction = totals[0] + repeated
        scale = model.calibration[0]
        probability = scale.probability(extraction)
        as_sent = scale.probability(found.as_sent + repeated) if prompt.disguises else probability
        techniques = distribution(labels.techniques, totals[1 : 1 + len(labels.techniques)])
        nearest = merged(neighbours.sides, window, NEAREST)
        highest = evidence.highest(neighbours, slice(row, row + prompt.windows))
        abstention = abstention_of(prompt.language, highest, repeated, model.least_cosine)
        inspected = inspection(prompt, found, judged=abstention is None)
        judged = policy.Judged(probability, as_sent, techniques, nearest, inspected, prompt.disguises, abstention)
        return Verdict(
            decision=policy.decide(judged, model.thresholds),
            extraction_probability=probability,
            extraction_logit=extraction,
            techniques=techniques,
            capabilities=tuple(
                LabelScore(name, scale.probability(logit))
                for name, scale, logit in zip(
                    labels.capabilities, model.calibration[1:], totals[1 + len(labels.techniques) :], strict=True
                )
            ),
            nearest_examples=tuple(nearest),
            reasons=policy.reasons(judged, model.thresholds),
            inspected=inspected,
            abstention=abstention,
        )


def abstention_of(language: str | None, highest: float, repeated: float, least_cosine: float) -> Abstention | None:
    """Why a prompt is not judged; one that repeats or all but repeats a known example always is.

    Args:
        language: The prompt's language, when it is surely none that the bundle knows.
        highest: The cosine of the example that is nearest to any part of the prompt; nan when there is no example.
        repeated: What it adds to the logit that the text is a known example's.
        least_cosine: How near an example must be.

    Returns:
        The reason, or None: it is judged.
    """
    if repeated != 0.0 or highest >= evidence.PRECEDENT_FROM:
        return None
    return policy.abstention(language, highest, least_cosine)
