"""What the scorer says of many prompts, as arrays, and the thresholds that its negatives set."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier.errors import InvalidPrompt
from classifier.interval import wilson
from classifier.scorer import Scorer
from classifier.train.metrics import Interval, Scores, Truth
from classifier.verdict import Decision, Verdict

REFUSED = "REFUSED"
"""The code of a prompt that the scorer does not take: too long, or empty once it is in canonical form."""
_BATCH = 256
_BATCH_CHARS = 400_000


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdicts of n prompts, in order.

    Attributes:
        logits: (n,) raw extraction logits; -inf for a prompt that was refused.
        probabilities: (n, 1 + capabilities) calibrated, in [0, 1], extraction first.
        flagged: (n,) whether the decision is to flag. What is not judged is not flagged.
        reviewed: (n,) whether the decision is to review or to flag.
        abstentions: For each prompt why it was not judged, or None.
        tokens: (n,) tokens of the prompt.
        read: (n,) tokens of it that stand in a window.
        revision: The example store's.
    """

    logits: Scores
    probabilities: Scores
    flagged: Truth
    reviewed: Truth
    abstentions: tuple[str | None, ...]
    tokens: NDArray[np.int64]
    read: NDArray[np.int64]
    revision: int

    @property
    def judged(self) -> Truth:
        """(n,) whether the prompt was judged."""
        return np.array([code is None for code in self.abstentions], bool)


def judge(scorer: Scorer, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None) -> Judged:
    """Score prompts, in batches that are smaller where the prompts are long.

    Args:
        scorer: What is asked.
        texts: Prompts.
        progress: Told after each batch how many are scored.

    Returns:
        The verdicts; a prompt that the scorer refuses spoils none of the others.
    """
    verdicts: list[Verdict | None] = []
    revision = 0
    while len(verdicts) < len(texts):
        batch = _next_batch(texts, len(verdicts))
        outcomes = scorer.prepare_each(batch)
        scored = scorer.score_prepared([found for found in outcomes if not isinstance(found, InvalidPrompt)])
        revision, given = scored.provenance.index_revision, iter(scored.verdicts)
        verdicts += [None if isinstance(found, InvalidPrompt) else next(given) for found in outcomes]
        progress(len(verdicts))
    capabilities = len(scorer.model.labels.capabilities)
    return Judged(
        logits=np.array([-math.inf if v is None else v.extraction_logit for v in verdicts], np.float64),
        probabilities=np.array([_probabilities(v, capabilities) for v in verdicts], np.float64).reshape(
            len(verdicts), 1 + capabilities
        ),
        flagged=np.array([v is not None and v.decision == Decision.FLAG for v in verdicts], bool),
        reviewed=np.array([v is not None and v.decision in (Decision.REVIEW, Decision.FLAG) for v in verdicts], bool),
        abstentions=tuple(map(_code, verdicts)),
        tokens=np.array([0 if v is None else v.inspected.tokens_total for v in verdicts], np.int64),
        read=np.array([0 if v is None else v.inspected.tokens_inspected for v in verdicts], np.int64),
        revision=revision,
    )


def cut_at(negatives: Scores, rate: float) -> float:
    """The score that at most so large a share of the negatives exceeds.

    It is the cut of metrics.recall_at: the share of positives that exceed it is the recall at that rate.

    Args:
        negatives: (n,) scores.
        rate: Share in [0, 1).

    Returns:
        The score; what counts must be higher, not equal. Nan where there are no negatives.
    """
    if not len(negatives):
        return math.nan
    allowed = math.floor(rate * len(negatives) + 1e-9)
    return float(np.sort(negatives)[::-1][allowed])


def share(hits: Truth) -> Interval:
    """The share of hits with its 95 % Wilson interval, which takes the rows to be drawn independently.

    Args:
        hits: (n,).

    Returns:
        The interval, in [0, 1]; nan where there are no rows.
    """
    total = len(hits)
    if not total:
        return Interval(math.nan, math.nan, math.nan)
    return Interval(float(hits.mean()), *wilson(int(hits.sum()), total))


def _next_batch(texts: Sequence[str], start: int) -> Sequence[str]:
    end, chars = start, 0
    while end < len(texts) and end - start < _BATCH and (end == start or chars + len(texts[end]) <= _BATCH_CHARS):
        chars += len(texts[end])
        end += 1
    return texts[start:end]


def _probabilities(verdict: Verdict | None, capabilities: int) -> list[float]:
    if verdict is None:
        return [0.0] * (1 + capabilities)
    return [verdict.extraction_probability, *(score.probability for score in verdict.capabilities)]


def _code(verdict: Verdict | None) -> str | None:
    if verdict is None:
        return REFUSED
    return None if verdict.abstention is None else verdict.abstention.code
