"""Between the wire messages of scoring and domain values."""

from collections.abc import Sequence

from google.rpc import status_pb2
from stillwatch.v1 import classifier_pb2, verdict_pb2

from classifier.conversation import BodyFormat, body_text
from classifier.errors import InvalidRequest
from classifier.serve.batcher import Answer, Outcome
from classifier.serve.received import Received
from classifier.serve.status import status_of
from classifier.verdict import Decision, Extent, LabelScore, Provenance, Verdict
from index.live import Match

_FORMATS: dict[int, BodyFormat | None] = {
    classifier_pb2.BODY_FORMAT_UNSPECIFIED: None,
    classifier_pb2.BODY_FORMAT_OPENAI_CHAT: BodyFormat.OPENAI_CHAT,
    classifier_pb2.BODY_FORMAT_OPENAI_RESPONSES: BodyFormat.OPENAI_RESPONSES,
    classifier_pb2.BODY_FORMAT_ANTHROPIC_MESSAGES: BodyFormat.ANTHROPIC_MESSAGES,
}
DECISIONS = {
    Decision.ALLOW: verdict_pb2.DECISION_ALLOW,
    Decision.REVIEW: verdict_pb2.DECISION_REVIEW,
    Decision.FLAG: verdict_pb2.DECISION_FLAG,
    Decision.ABSTAIN: verdict_pb2.DECISION_ABSTAIN,
}
_EXTENTS = {
    Extent.FULL: verdict_pb2.EXTENT_FULL,
    Extent.PARTIAL: verdict_pb2.EXTENT_PARTIAL,
    Extent.NONE: verdict_pb2.EXTENT_NONE,
}


def prompt_text(prompt: classifier_pb2.Prompt) -> str:
    """The text to score.

    Args:
        prompt: The wire message.

    Returns:
        The text.

    Raises:
        InvalidRequest: When nothing is set, or the body's format is unknown.
    """
    chosen = prompt.WhichOneof("input")
    if chosen is None:
        raise InvalidRequest("prompt is missing: set prompt.text or prompt.body")
    if chosen == "text":
        return prompt.text
    if prompt.body.format not in _FORMATS:
        raise InvalidRequest(f"prompt.body.format {prompt.body.format} is unknown: use a value of BodyFormat")
    return body_text(prompt.body.json, _FORMATS[prompt.body.format])


def neighbour(match: Match) -> verdict_pb2.Neighbour:
    """A match on the wire."""
    return verdict_pb2.Neighbour(
        example_id=match.example.id,
        cosine=match.cosine,
        label=match.example.label.value,
        technique=match.example.technique or "",
        capabilities=match.example.capabilities,
    )


def verdict(found: Verdict | Received) -> verdict_pb2.Verdict:
    """A verdict on the wire; without scores where there is no judgement."""
    if isinstance(found, Received):
        return found.message
    inspected = found.inspected
    first, last = inspected.strongest_window
    judged = found.abstention is None
    return verdict_pb2.Verdict(
        decision=DECISIONS[found.decision],
        extraction_probability=found.extraction_probability if judged else 0.0,
        extraction_logit=found.extraction_logit if judged else 0.0,
        techniques=_scores(found.techniques) if judged else [],
        capabilities=_scores(found.capabilities) if judged else [],
        nearest_examples=[neighbour(match) for match in found.nearest_examples],
        reasons=[verdict_pb2.Reason(code=reason.code, text=reason.text) for reason in found.reasons],
        inspected=verdict_pb2.Inspection(
            extent=_EXTENTS[inspected.extent],
            tokens_inspected=inspected.tokens_inspected,
            tokens_total=inspected.tokens_total,
            windows=inspected.windows,
            strongest_window=verdict_pb2.Span(start_char=first, end_char=last),
        ),
        abstention=None
        if found.abstention is None
        else verdict_pb2.Abstention(code=found.abstention.code, text=found.abstention.text),
    )


def provenance(found: Provenance) -> verdict_pb2.Provenance:
    """Provenance on the wire."""
    return verdict_pb2.Provenance(
        bundle_version=found.bundle_version,
        index_revision=found.index_revision,
        review_threshold=found.review_threshold,
        flag_threshold=found.flag_threshold,
    )


def stage_times(answer: Answer) -> verdict_pb2.StageTimes:
    """The stage times of one answer on the wire."""
    return verdict_pb2.StageTimes(
        queue_ms=answer.queue,
        tokenise_ms=answer.times.tokenise,
        encode_ms=answer.times.encode,
        search_ms=answer.times.search,
        classify_ms=answer.times.classify,
        batch_size=answer.batch_size,
        cached=answer.cached,
    )


def classify_response(answer: Answer) -> classifier_pb2.ClassifyResponse:
    """The answer of Classify."""
    return classifier_pb2.ClassifyResponse(
        verdict=verdict(answer.verdict), provenance=provenance(answer.provenance), stage_times=stage_times(answer)
    )


def batch_response(ids: Sequence[str], outcomes: Sequence[Outcome]) -> classifier_pb2.BatchClassifyResponse:
    """The answer of BatchClassify: each item's verdict or status."""
    results = [
        classifier_pb2.BatchResult(id=name, verdict=verdict(outcome.verdict), provenance=provenance(outcome.provenance))
        if isinstance(outcome, Answer)
        else classifier_pb2.BatchResult(id=name, status=status_of(outcome))
        for name, outcome in zip(ids, outcomes, strict=True)
    ]
    batches = {id(o.times): o for o in outcomes if isinstance(o, Answer)}.values()
    total = verdict_pb2.StageTimes(
        queue_ms=max((o.queue for o in outcomes if isinstance(o, Answer)), default=0.0),
        tokenise_ms=sum(o.times.tokenise for o in batches),
        encode_ms=sum(o.times.encode for o in batches),
        search_ms=sum(o.times.search for o in batches),
        classify_ms=sum(o.times.classify for o in batches),
        batch_size=sum(o.batch_size for o in batches),
        cached=bool(batches) and all(o.cached for o in batches),
    )
    return classifier_pb2.BatchClassifyResponse(results=results, stage_times=total)


def stream_response(name: str, outcome: Outcome) -> classifier_pb2.StreamClassifyResponse:
    """One answer of StreamClassify."""
    if isinstance(outcome, Answer):
        return classifier_pb2.StreamClassifyResponse(
            id=name,
            verdict=verdict(outcome.verdict),
            provenance=provenance(outcome.provenance),
            stage_times=stage_times(outcome),
        )
    status: status_pb2.Status = status_of(outcome)
    return classifier_pb2.StreamClassifyResponse(id=name, status=status)


def _scores(scores: Sequence[LabelScore]) -> list[verdict_pb2.LabelScore]:
    return [verdict_pb2.LabelScore(name=score.name, probability=score.probability) for score in scores]
