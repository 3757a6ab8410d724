"""Between the wire messages of reviews and domain values."""

from collections.abc import Sequence
from datetime import UTC, datetime

from stillwatch.v1 import review_pb2

from classifier.desk.entry import Code, Finding
from classifier.desk.impact import Impact, Move
from classifier.errors import InvalidRequest
from classifier.serve import convert
from classifier.serve.convert_examples import time_out
from classifier.verdict import Provenance
from index.change import Choice
from index.change import Decision as Decided
from index.live import Match

_NO_SAMPLE = (
    "recent traffic is not sampled here, so the impact is not known: set STILLWATCH_RESERVOIR_PROMPTS over 0, and let "
    "the home be written"
)
_KINDS = {
    Code.SAME_TEXT_OTHER_LABELS: review_pb2.FINDING_KIND_SAME_TEXT_OTHER_LABELS,
    Code.SAME_TEXT_REVOKED: review_pb2.FINDING_KIND_SAME_TEXT_REVOKED,
    Code.SAME_TEXT_KNOWN: review_pb2.FINDING_KIND_SAME_TEXT_KNOWN,
    Code.NEAR_OTHER_LABEL: review_pb2.FINDING_KIND_NEAR_OTHER_LABEL,
    Code.NEAR_DUPLICATE: review_pb2.FINDING_KIND_NEAR_DUPLICATE,
}
_CHOICES = {
    review_pb2.CHOICE_ACCEPT: Choice.ACCEPT,
    review_pb2.CHOICE_REJECT: Choice.REJECT,
    review_pb2.CHOICE_IGNORE: Choice.IGNORE,
}
_CHOICES_OUT = {
    Choice.ACCEPT: review_pb2.CHOICE_ACCEPT,
    Choice.REJECT: review_pb2.CHOICE_REJECT,
    Choice.IGNORE: review_pb2.CHOICE_IGNORE,
}


def findings_out(findings: Sequence[Finding], provenance: Provenance) -> review_pb2.PreviewImpactResponse:
    """What speaks against candidates, on the wire."""
    return review_pb2.PreviewImpactResponse(findings=map(_finding, findings), provenance=convert.provenance(provenance))


def add_impact(answer: review_pb2.PreviewImpactResponse, found: Impact | None) -> None:
    """Add what candidates would change; without a sample of traffic a sentence that says so."""
    if found is None:
        answer.sentences.append(_NO_SAMPLE)
        return
    answer.allowed, answer.allowed_seen = found.allowed, found.allowed_seen
    answer.newly_flagged, answer.newly_reviewed = found.newly_flagged, found.newly_reviewed
    answer.caught, answer.caught_seen = found.caught, found.caught_seen
    answer.no_longer_flagged, answer.newly_allowed = found.no_longer_flagged, found.newly_allowed
    answer.moves.extend(map(_move, found.movers))
    answer.sentences.extend(found.sentences)


def decision_in(message: review_pb2.ReviewDecision, actor: str) -> Decided:
    """A reviewer's decision, made now.

    Args:
        message: The wire message.
        actor: Who is known to have sent it, in place of whom the message names.

    Returns:
        The decision.

    Raises:
        InvalidRequest: When the choice is missing or unknown.
    """
    if message.choice not in _CHOICES:
        raise InvalidRequest("choice is missing or unknown: use a value of Choice")
    choice = _CHOICES[message.choice]
    who = actor or message.actor
    return Decided(message.content_hash, choice, who, message.reason, datetime.now(UTC), message.example_id)


def decision_out(decision: Decided) -> review_pb2.ReviewDecision:
    """A reviewer's decision on the wire."""
    return review_pb2.ReviewDecision(
        content_hash=decision.content_hash,
        choice=_CHOICES_OUT[decision.choice],
        reason=decision.reason,
        actor=decision.actor,
        example_id=decision.example_id,
        create_time=time_out(decision.at),
    )


def _move(found: Move) -> review_pb2.Move:
    return review_pb2.Move(
        mark=found.mark,
        probability_before=found.before,
        probability_after=found.after,
        decision_before=convert.DECISIONS[found.decision_before],
        decision_after=convert.DECISIONS[found.decision_after],
    )


def _finding(found: Finding) -> review_pb2.EntryFinding:
    return review_pb2.EntryFinding(
        candidate=found.candidate,
        kind=_KINDS[found.code],
        example=convert.neighbour(Match(found.other, found.cosine)),
        stored=found.stored,
        text=found.message,
    )
