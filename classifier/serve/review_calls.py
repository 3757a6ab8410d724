"""What ReviewService does, without a transport: convert, call, convert."""

from collections.abc import Callable, Sequence

from stillwatch.v1 import review_pb2

from classifier.config import Settings
from classifier.desk.entry import check_entry
from classifier.desk.impact import impact
from classifier.errors import InvalidRequest
from classifier.runtime import Runtime
from classifier.sampling import Sampling
from classifier.serve import convert_examples as examples_convert
from classifier.serve import convert_review
from classifier.serve.checks import check_count, check_id
from classifier.serve.generations import Generations
from classifier.serve.guard import Caller
from index.example import MAX_FIELD_CHARS

MAX_HASHES = 1_000
_HASH_DIGITS = frozenset("0123456789abcdef")


class ReviewCalls:
    """Answers requests: the server's, and those of the command line on its own store."""

    def __init__(
        self, generations: Generations, settings: Settings, sampling: Callable[[Runtime], Sampling | None]
    ) -> None:
        """Work on the store and index in force, within the settings' limits.

        Args:
            generations: Where the examples are.
            settings: Limits.
            sampling: Returns the sample of the traffic of what is in force.
        """
        self._generations = generations
        self._sampling = sampling
        self._most = settings.max_batch_items

    def PreviewImpact(
        self, request: review_pb2.PreviewImpactRequest, caller: Caller
    ) -> review_pb2.PreviewImpactResponse:
        """Say what candidates would change; nothing is stored."""
        asked = (*request.ids, *request.revoked_ids)
        check_count(len(request.examples) + len(asked), "examples, ids and revoked_ids together", self._most)
        for name in asked:
            check_id(name)
        runtime = self._generations.runtime
        candidates = [examples_convert.example_in(example) for example in request.examples]
        candidates += [runtime.store.get(name) for name in request.ids]
        scorer, snapshot = runtime.scorer, runtime.examples.snapshot
        vectors = scorer.embed([example.text for example in candidates])
        findings = check_entry(candidates, vectors, runtime.store, snapshot)
        answer = convert_review.findings_out(findings, scorer.provenance(snapshot))
        if not request.findings_only:
            sampling, found = self._sampling(runtime), None
            if sampling is not None:
                revoked = list(request.revoked_ids)
                found = impact(candidates, vectors, sampling.reservoir, scorer.model, snapshot, revoked=revoked)
            convert_review.add_impact(answer, found)
        return answer

    def RecordDecisions(
        self, request: review_pb2.RecordDecisionsRequest, caller: Caller
    ) -> review_pb2.RecordDecisionsResponse:
        """Keep reviewers' decisions; the last one on a prompt counts."""
        check_count(len(request.decisions), "decisions", self._most)
        _check_hashes([decision.content_hash for decision in request.decisions])
        for decision in request.decisions:
            for name in ("reason", "actor", "example_id"):
                if len(getattr(decision, name)) > MAX_FIELD_CHARS:
                    raise InvalidRequest(f"{name} is over {MAX_FIELD_CHARS} characters: shorten it")
        decisions = [convert_review.decision_in(decision, caller.name) for decision in request.decisions]
        self._generations.runtime.store.decide(decisions)
        return review_pb2.RecordDecisionsResponse()

    def FindDecisions(
        self, request: review_pb2.FindDecisionsRequest, caller: Caller
    ) -> review_pb2.FindDecisionsResponse:
        """Return what was decided about prompts."""
        check_count(len(request.content_hashes), "content_hashes", MAX_HASHES)
        _check_hashes(request.content_hashes)
        found = self._generations.runtime.store.decided(list(request.content_hashes))
        return review_pb2.FindDecisionsResponse(decisions=map(convert_review.decision_out, found.values()))


def _check_hashes(hashes: Sequence[str]) -> None:
    for name in hashes:
        if len(name) != 64 or not _HASH_DIGITS.issuperset(name):
            raise InvalidRequest("content_hash is no SHA-256 in hexadecimal: give 64 digits, in lower case")
