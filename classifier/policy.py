"""From scores to a decision: calibration, thresholds and the reasons in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from classifier.evidence import PRECEDENT_FROM
from classifier.verdict import Abstention, Decision, Extent, Inspection, LabelScore, Reason
from index.live import Match

_DISGUISE_MATTERS = 0.2
"""A probability that rises by so much when disguises are undone is a reason of its own."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling of one label: probability = 1 / (1 + exp(-(slope * logit + offset)))."""

    slope: float
    offset: float

    def probability(self, logit: float) -> float:
        """The calibrated probability in [0, 1]."""
        value = self.slope * logit + self.offset
        return 1.0 / (1.0 + math.exp(-value)) if value >= 0 else 1.0 - 1.0 / (1.0 + math.exp(value))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which extraction probability a prompt is reviewed, and from which it is flagged."""

    review: float
    flag: float

    def __post_init__(self) -> None:
        """Refuse thresholds that are out of order."""
        if not 0.0 <= self.review <= self.flag <= 1.0:
            raise ValueError("thresholds need 0 <= review <= flag <= 1")

    def decide(self, probability: float) -> Decision:
        """The decision for a probability; what is no number is flagged, not let through."""
        if probability < self.review:
            return Decision.ALLOW
        return Decision.REVIEW if probability < self.flag else Decision.FLAG


@dataclass(frozen=True, slots=True)
class Judged:
    """What a decision rests on.

    Attributes:
        probability: The extraction probability.
        as_sent: The extraction probability of the text as it was sent, disguises and all.
        techniques: Highest first.
        nearest: The nearest examples, highest cosine first.
        inspected: How much was read.
        disguises: What was undone.
        abstention: Why there is no judgement, if there is none.
    """

    probability: float
    as_sent: float
    techniques: Sequence[LabelScore]
    nearest: Sequence[Match]
    inspected: Inspection
    disguises: Sequence[str]
    abstention: Abstention | None


def abstention(language: str | None, highest: float, least_cosine: float) -> Abstention | None:
    """Why a prompt cannot be judged.

    Args:
        language: The prompt's language, when it is surely none that the bundle knows.
        highest: The cosine of the example that is nearest to any part of the prompt; nan when there is no example.
        least_cosine: How near it must be.

    Returns:
        The reason, or None: it can be judged.
    """
    if language is not None:
        return Abstention("UNSUPPORTED_LANGUAGE", f'the language is "{language}", which this bundle was not trained on')
    if highest < least_cosine:
        text = f"nothing known is near (cosine {highest:.2f}, at least {least_cosine:.2f} is needed)"
        return Abstention("UNFAMILIAR_TEXT", text)
    return None


def decide(judged: Judged, thresholds: Thresholds) -> Decision:
    """The decision for a prompt."""
    return thresholds.decide(judged.probability) if judged.abstention is None else Decision.ABSTAIN


def reasons(judged: Judged, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Why the decision is what it is, strongest ground first; without any prompt text."""
    if judged.abstention is not None:
        return (Reason(judged.abstention.code, judged.abstention.text),)
    decision, probability = thresholds.decide(judged.probability), judged.probability
    found = []
    if decision == Decision.FLAG:
        text = f"extraction probability {probability:.3f} is at or over the flag threshold {thresholds.flag:.3f}"
        found.append(Reason("PROBABILITY_OVER_FLAG_THRESHOLD", text))
    elif decision == Decision.REVIEW:
        text = f"extraction probability {probability:.3f} is at or over the review threshold {thresholds.review:.3f}"
        found.append(Reason("PROBABILITY_OVER_REVIEW_THRESHOLD", text))
    else:
        text = f"extraction probability {probability:.3f} is under the review threshold {thresholds.review:.3f}"
        found.append(Reason("PROBABILITY_UNDER_THRESHOLDS", text))
    if probability - judged.as_sent >= _DISGUISE_MATTERS:
        text = f"{', '.join(judged.disguises)}: undone it scores {probability:.3f}, as it was sent {judged.as_sent:.3f}"
        found.append(Reason("DISGUISED_TEXT", text))
    if decision != Decision.ALLOW and judged.techniques:
        best = judged.techniques[0]
        found.append(Reason("LIKELY_TECHNIQUE", f"of the techniques, {best.name} fits best ({best.probability:.2f})"))
    first_of_label = {match.example.label: match for match in reversed(judged.nearest)}.values()
    found += [
        Reason(f"NEAR_{match.example.label.name}_EXAMPLE", f"{match.example.id} is near (cosine {match.cosine:.2f})")
        for match in sorted(first_of_label, key=lambda match: -match.cosine)
        if match.cosine >= PRECEDENT_FROM
    ]
    if judged.inspected.extent == Extent.PARTIAL:
        inspected = judged.inspected
        text = f"{inspected.tokens_inspected} of {inspected.tokens_total} tokens were read: the token budget ended"
        found.append(Reason("PARTLY_INSPECTED", text))
    return tuple(found)
