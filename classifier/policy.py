"""From scores to a decision: calibration, thresholds and the reasons in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from classifier.evidence import PRECEDENT_FROM
from classifier.verdict import Decision, Extent, Inspection, LabelScore, Reason
from index.live import Match


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


def reasons(
    probability: float,
    thresholds: Thresholds,
    techniques: Sequence[LabelScore],
    nearest: Sequence[Match],
    inspected: Inspection,
) -> tuple[Reason, ...]:
    """Why the decision is what it is, strongest ground first; without any prompt text."""
    decision = thresholds.decide(probability)
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
    if decision != Decision.ALLOW and techniques:
        best = techniques[0]
        found.append(Reason("LIKELY_TECHNIQUE", f"of the techniques, {best.name} fits best ({best.probability:.2f})"))
    first_of_label = {match.example.label: match for match in reversed(nearest)}.values()
    found += [
        Reason(f"NEAR_{match.example.label.name}_EXAMPLE", f"{match.example.id} is near (cosine {match.cosine:.2f})")
        for match in sorted(first_of_label, key=lambda match: -match.cosine)
        if match.cosine >= PRECEDENT_FROM
    ]
    if inspected.extent == Extent.PARTIAL:
        text = f"{inspected.tokens_inspected} of {inspected.tokens_total} tokens were read: the token budget ended"
        found.append(Reason("PARTLY_INSPECTED", text))
    return tuple(found)
