"""What a client can do with examples and with reviewers' decisions."""

from collections.abc import Sequence
from uuid import uuid4

from stillwatch.v1 import examples_pb2, review_pb2

from classifier.verb import Call, Verb

_ANY_LABEL = examples_pb2.LABEL_UNSPECIFIED
_ANY_STATE = examples_pb2.EXAMPLE_STATE_UNSPECIFIED


class ExampleVerbs:
    """The verbs of ExampleService and ReviewService.

    Every write takes a reason, the actor's name (a token's goes before it) and a request id; without one each call is
    a write of its own.
    """

    @Verb
    def add_examples(
        self, examples: Sequence[examples_pb2.Example], request_id: str = "", *, reason: str = "", actor: str = ""
    ) -> Call[examples_pb2.AddExamplesResponse]:
        """Store examples, all or none; they are durable, and active ones searchable, when this returns."""
        request = examples_pb2.AddExamplesRequest(
            request_id=_named(request_id), examples=examples, reason=reason, actor=actor
        )
        return Call("ExampleService/AddExamples", request, examples_pb2.AddExamplesResponse)

    @Verb
    def accept_examples(
        self, ids: Sequence[str], *, reason: str = "", actor: str = "", request_id: str = ""
    ) -> Call[examples_pb2.AcceptExamplesResponse]:
        """Make pending examples active, all or none."""
        request = examples_pb2.AcceptExamplesRequest(request_id=_named(request_id), ids=ids, reason=reason, actor=actor)
        return Call("ExampleService/AcceptExamples", request, examples_pb2.AcceptExamplesResponse)

    @Verb
    def reject_examples(
        self, ids: Sequence[str], *, reason: str = "", actor: str = "", request_id: str = ""
    ) -> Call[examples_pb2.RejectExamplesResponse]:
        """Make pending examples revoked, all or none."""
        request = examples_pb2.RejectExamplesRequest(request_id=_named(request_id), ids=ids, reason=reason, actor=actor)
        return Call("ExampleService/RejectExamples", request, examples_pb2.RejectExamplesResponse)

    @Verb
    def revoke_examples(
        self, ids: Sequence[str], *, reason: str = "", actor: str = "", request_id: str = ""
    ) -> Call[examples_pb2.RevokeExamplesResponse]:
        """Take examples back, all or none."""
        request = examples_pb2.RevokeExamplesRequest(request_id=_named(request_id), ids=ids, reason=reason, actor=actor)
        return Call("ExampleService/RevokeExamples", request, examples_pb2.RevokeExamplesResponse)

    @Verb
    def revoke_source(
        self, source: str, *, reason: str = "", actor: str = "", request_id: str = ""
    ) -> Call[examples_pb2.RevokeSourceResponse]:
        """Take every example of a source back, as one act."""
        request = examples_pb2.RevokeSourceRequest(
            request_id=_named(request_id), source=source, reason=reason, actor=actor
        )
        return Call("ExampleService/RevokeSource", request, examples_pb2.RevokeSourceResponse)

    @Verb
    def restore_examples(
        self,
        ids: Sequence[str],
        *,
        state: examples_pb2.ExampleState.ValueType = _ANY_STATE,
        reason: str = "",
        actor: str = "",
        request_id: str = "",
    ) -> Call[examples_pb2.RestoreExamplesResponse]:
        """Bring revoked examples back, all or none: pending, unless the state is active."""
        request = examples_pb2.RestoreExamplesRequest(
            request_id=_named(request_id), ids=ids, reason=reason, actor=actor, state=state
        )
        return Call("ExampleService/RestoreExamples", request, examples_pb2.RestoreExamplesResponse)

    @Verb
    def relabel_examples(
        self, relabels: Sequence[examples_pb2.Relabel], *, reason: str = "", actor: str = "", request_id: str = ""
    ) -> Call[examples_pb2.RelabelExamplesResponse]:
        """Give examples other labels, all or none."""
        request = examples_pb2.RelabelExamplesRequest(
            request_id=_named(request_id), relabels=relabels, reason=reason, actor=actor
        )
        return Call("ExampleService/RelabelExamples", request, examples_pb2.RelabelExamplesResponse)

    @Verb
    def supersede_example(
        self, id: str, replacement: examples_pb2.Example, *, reason: str = "", actor: str = "", request_id: str = ""
    ) -> Call[examples_pb2.SupersedeExampleResponse]:
        """Put another example in the place of one."""
        request = examples_pb2.SupersedeExampleRequest(
            request_id=_named(request_id), id=id, reason=reason, actor=actor, replacement=replacement
        )
        return Call("ExampleService/SupersedeExample", request, examples_pb2.SupersedeExampleResponse)

    @Verb
    def get_example(self, id: str, *, with_history: bool = False) -> Call[examples_pb2.GetExampleResponse]:
        """Return one example, and its history if that is wanted."""
        request = examples_pb2.GetExampleRequest(id=id, with_history=with_history)
        return Call("ExampleService/GetExample", request, examples_pb2.GetExampleResponse)

    @Verb
    def list_examples(
        self,
        page_size: int = 0,
        page_token: str = "",
        label: examples_pb2.Label.ValueType = _ANY_LABEL,
        source: str = "",
        *,
        state: examples_pb2.ExampleState.ValueType = _ANY_STATE,
        any_state: bool = False,
        as_of: int | None = None,
    ) -> Call[examples_pb2.ListExamplesResponse]:
        """Return a page of examples, oldest first: active ones, unless a state or any_state is given."""
        request = examples_pb2.ListExamplesRequest(
            page_size=page_size,
            page_token=page_token,
            label=label,
            source=source,
            state=state,
            any_state=any_state,
            as_of_revision=as_of,
        )
        return Call("ExampleService/ListExamples", request, examples_pb2.ListExamplesResponse)

    @Verb
    def list_changes(
        self, page_size: int = 0, page_token: str = "", *, after: int = 0
    ) -> Call[examples_pb2.ListChangesResponse]:
        """Return a page of the history of all examples, oldest first."""
        request = examples_pb2.ListChangesRequest(page_size=page_size, page_token=page_token, after_number=after)
        return Call("ExampleService/ListChanges", request, examples_pb2.ListChangesResponse)

    @Verb
    def find_neighbours(
        self, text: str, limit: int = 0, label: examples_pb2.Label.ValueType = _ANY_LABEL
    ) -> Call[examples_pb2.FindNeighboursResponse]:
        """Return the examples nearest to a text."""
        request = examples_pb2.FindNeighboursRequest(text=text, limit=limit, label=label)
        return Call("ExampleService/FindNeighbours", request, examples_pb2.FindNeighboursResponse)

    @Verb
    def preview_impact(
        self,
        examples: Sequence[examples_pb2.Example] = (),
        ids: Sequence[str] = (),
        revoked: Sequence[str] = (),
        *,
        findings_only: bool = False,
    ) -> Call[review_pb2.PreviewImpactResponse]:
        """Say what candidates would change, and what speaks against them; nothing is stored."""
        request = review_pb2.PreviewImpactRequest(
            examples=examples, ids=ids, revoked_ids=revoked, findings_only=findings_only
        )
        return Call("ReviewService/PreviewImpact", request, review_pb2.PreviewImpactResponse)

    @Verb
    def record_decisions(
        self, decisions: Sequence[review_pb2.ReviewDecision]
    ) -> Call[review_pb2.RecordDecisionsResponse]:
        """Keep reviewers' decisions; the last one on a prompt counts."""
        request = review_pb2.RecordDecisionsRequest(decisions=decisions)
        return Call("ReviewService/RecordDecisions", request, review_pb2.RecordDecisionsResponse)

    @Verb
    def find_decisions(self, content_hashes: Sequence[str]) -> Call[review_pb2.FindDecisionsResponse]:
        """Return what was decided about prompts."""
        request = review_pb2.FindDecisionsRequest(content_hashes=content_hashes)
        return Call("ReviewService/FindDecisions", request, review_pb2.FindDecisionsResponse)


def _named(request_id: str) -> str:
    return request_id or str(uuid4())
