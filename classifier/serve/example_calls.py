"""What ExampleService does, without a transport: convert, call, convert."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from stillwatch.v1 import examples_pb2

from classifier.config import Settings
from classifier.entry import Rules
from classifier.errors import InvalidRequest, PermissionDenied
from classifier.serve import convert
from classifier.serve import convert_examples as examples_convert
from classifier.serve.checks import check_count, check_id, limited, number_of
from classifier.serve.generations import Generations
from classifier.serve.guard import Caller
from classifier.tokens import Scope
from index.change import Act
from index.contract import ExampleStore
from index.example import MAX_FIELD_CHARS, Example, State

MAX_NEIGHBOURS = 100
MAX_PAGE = 1_000
MAX_HISTORY = 1_000
_MOST_REQUEST_ID = 128
T = TypeVar("T")


class _Write(Protocol):
    """What every request to write holds."""

    request_id: str
    reason: str
    actor: str


class ExampleCalls:
    """Answers requests: the server's, and those of the command line on its own store."""

    def __init__(self, generations: Generations, settings: Settings, *, vouched: bool = True) -> None:
        """Work on the store and index in force, within the settings' limits.

        Args:
            generations: Where the examples are.
            settings: Limits and rules.
            vouched: Whether only names that a token or certificate vouches for count where two persons are asked for.
        """
        self._generations = generations
        self._most = settings.max_batch_items
        self._rules = Rules(settings.pending_by_default, settings.two_person_rule)
        self._vouched = vouched

    def AddExamples(self, request: examples_pb2.AddExamplesRequest, caller: Caller) -> examples_pb2.AddExamplesResponse:
        """Store examples; active ones are searchable when this returns."""
        check_count(len(request.examples), "examples", self._most)
        examples = [self._entered(example, caller) for example in request.examples]
        act = self._act(request, caller, otherwise=examples[0].author)
        stored, revision = self._generations.add(examples, act)
        return examples_pb2.AddExamplesResponse(
            examples=[examples_convert.example_out(example) for example in stored], revision=revision
        )

    def AcceptExamples(
        self, request: examples_pb2.AcceptExamplesRequest, caller: Caller
    ) -> examples_pb2.AcceptExamplesResponse:
        """Make pending examples active."""
        ids, two = self._ids(request.ids), self._rules.two_person
        done, revision = self._write(request, caller, lambda store, act: store.accept(ids, act, by_another=two))
        return examples_pb2.AcceptExamplesResponse(examples=examples_convert.without_texts(done), revision=revision)

    def RejectExamples(
        self, request: examples_pb2.RejectExamplesRequest, caller: Caller
    ) -> examples_pb2.RejectExamplesResponse:
        """Make pending examples revoked."""
        ids = self._ids(request.ids)
        done, revision = self._write(request, caller, lambda store, act: store.reject(ids, act))
        return examples_pb2.RejectExamplesResponse(examples=examples_convert.without_texts(done), revision=revision)

    def RevokeExamples(
        self, request: examples_pb2.RevokeExamplesRequest, caller: Caller
    ) -> examples_pb2.RevokeExamplesResponse:
        """Take examples back."""
        ids = self._ids(request.ids)
        done, revision = self._write(request, caller, lambda store, act: store.revoke(ids, act))
        return examples_pb2.RevokeExamplesResponse(examples=examples_convert.without_texts(done), revision=revision)

    def RevokeSource(
        self, request: examples_pb2.RevokeSourceRequest, caller: Caller
    ) -> examples_pb2.RevokeSourceResponse:
        """Take every example of a source back."""
        if not request.source:
            raise InvalidRequest("source is missing: name the source whose examples are taken back")
        examples_convert.check_source(request.source)
        done, revision = self._write(request, caller, lambda store, act: store.revoke_source(request.source, act))
        return examples_pb2.RevokeSourceResponse(count=len(done), revision=revision)

    def RestoreExamples(
        self, request: examples_pb2.RestoreExamplesRequest, caller: Caller
    ) -> examples_pb2.RestoreExamplesResponse:
        """Bring revoked examples back."""
        ids = self._ids(request.ids)
        wanted = examples_convert.wanted_state(request.state) or State.PENDING
        state = self._rules.entered(wanted, may_accept=Scope.EXAMPLES_ACCEPT in caller.scopes)
        done, revision = self._write(request, caller, lambda store, act: store.restore(ids, act, state))
        return examples_pb2.RestoreExamplesResponse(examples=examples_convert.without_texts(done), revision=revision)

    def RelabelExamples(
        self, request: examples_pb2.RelabelExamplesRequest, caller: Caller
    ) -> examples_pb2.RelabelExamplesResponse:
        """Give examples other labels."""
        check_count(len(request.relabels), "relabels", self._most)
        relabels = [examples_convert.relabel_in(relabel) for relabel in request.relabels]

        def work(store: ExampleStore, act: Act) -> list[Example]:
            for relabel in relabels if self._rules.two_person else ():
                self._rules.check_relabel(store.get(relabel.example_id))
            return store.relabel(relabels, act)

        done, revision = self._write(request, caller, work)
        return examples_pb2.RelabelExamplesResponse(examples=examples_convert.without_texts(done), revision=revision)

    def SupersedeExample(
        self, request: examples_pb2.SupersedeExampleRequest, caller: Caller
    ) -> examples_pb2.SupersedeExampleResponse:
        """Put another example in the place of one."""
        check_id(request.id)
        new = self._entered(request.replacement, caller)
        done, revision = self._write(request, caller, lambda store, act: store.supersede(request.id, new, act))
        return examples_pb2.SupersedeExampleResponse(example=examples_convert.example_out(done), revision=revision)

    def GetExample(self, request: examples_pb2.GetExampleRequest, caller: Caller) -> examples_pb2.GetExampleResponse:
        """Return one example, and its history if that was asked for."""
        check_id(request.id)
        store = self._generations.runtime.store
        example = store.get(request.id)
        history = store.history(request.id)[-MAX_HISTORY:] if request.with_history else []
        return examples_pb2.GetExampleResponse(
            example=examples_convert.example_out(example), history=map(examples_convert.change_out, history)
        )

    def ListExamples(
        self, request: examples_pb2.ListExamplesRequest, caller: Caller
    ) -> examples_pb2.ListExamplesResponse:
        """Return a page of examples."""
        size = limited(request.page_size, "page_size", 100, MAX_PAGE)
        wanted = examples_convert.filter_in(request)
        runtime = self._generations.runtime
        page, token = runtime.store.page(size, request.page_token, wanted)
        return examples_pb2.ListExamplesResponse(
            examples=[examples_convert.example_out(example) for example in page],
            next_page_token=token,
            revision=runtime.examples.snapshot.revision,
        )

    def ListChanges(self, request: examples_pb2.ListChangesRequest, caller: Caller) -> examples_pb2.ListChangesResponse:
        """Return a page of the history of all examples."""
        size = limited(request.page_size, "page_size", 100, MAX_PAGE)
        after = max(request.after_number, number_of(request.page_token))
        runtime = self._generations.runtime
        page = runtime.store.changes(after, size)
        goes_on = len(page) == size and bool(runtime.store.changes(page[-1].number, 1))
        return examples_pb2.ListChangesResponse(
            changes=map(examples_convert.change_out, page),
            next_page_token=str(page[-1].number) if goes_on else "",
            revision=runtime.examples.snapshot.revision,
        )

    def FindNeighbours(
        self, request: examples_pb2.FindNeighboursRequest, caller: Caller
    ) -> examples_pb2.FindNeighboursResponse:
        """Return the examples nearest to a text."""
        limit = limited(request.limit, "limit", 10, MAX_NEIGHBOURS)
        label = examples_convert.label_filter(request.label)
        found, provenance = self._generations.scorer().nearest(request.text, limit, label)
        return examples_pb2.FindNeighboursResponse(
            neighbours=[convert.neighbour(match) for match in found], provenance=convert.provenance(provenance)
        )

    def _entered(self, message: examples_pb2.Example, caller: Caller) -> Example:
        wanted = examples_convert.wanted_state(message.state)
        state = self._rules.entered(wanted, may_accept=Scope.EXAMPLES_ACCEPT in caller.scopes)
        return examples_convert.example_in(message, caller.name, state)

    def _ids(self, ids: Sequence[str]) -> list[str]:
        check_count(len(ids), "ids", self._most)
        for name in ids:
            check_id(name)
        return list(ids)

    def _write(self, request: _Write, caller: Caller, work: Callable[[ExampleStore, Act], T]) -> tuple[T, int]:
        act = self._act(request, caller)
        return self._generations.write(lambda store: work(store, act))

    def _act(self, request: _Write, caller: Caller, otherwise: str = "") -> Act:
        if not request.request_id or len(request.request_id) > _MOST_REQUEST_ID:
            raise InvalidRequest(f"request_id is missing or over {_MOST_REQUEST_ID} characters: name this write")
        for name in ("reason", "actor"):
            if len(getattr(request, name)) > MAX_FIELD_CHARS:
                raise InvalidRequest(f"{name} is over {MAX_FIELD_CHARS} characters: shorten it")
        if self._rules.two_person and self._vouched and not caller.name:
            raise PermissionDenied(
                "two_person_rule is set, and nobody vouches for the caller's name: set STILLWATCH_TOKENS_FILE, and "
                "call with a token"
            )
        return Act(caller.name or request.actor or otherwise, request.reason, request.request_id)
