"""The servicers of examples and of their review: each call runs on a thread."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from stillwatch.v1 import examples_pb2, examples_pb2_grpc, review_pb2, review_pb2_grpc

from classifier.errors import Overloaded
from classifier.serve.example_calls import ExampleCalls
from classifier.serve.guard import Caller, current_caller
from classifier.serve.review_calls import ReviewCalls

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_MOST_UNDER_WAY = 32
Asked = TypeVar("Asked")
T = TypeVar("T")


class Threads:
    """Runs blocking work of calls on threads; of too much at once the rest is refused."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._under_way = 0

    async def run(self, work: Callable[[Asked, Caller], T], request: Asked) -> T:
        """Answer a request of the caller of this task.

        Args:
            work: Answers requests.
            request: The request.

        Returns:
            Its answer.

        Raises:
            Overloaded: When too much is under way.
        """
        if self._under_way >= _MOST_UNDER_WAY:
            raise Overloaded("too many example requests are under way: try again in a moment")
        self._under_way += 1
        try:
            return await asyncio.to_thread(work, request, current_caller())
        finally:
            self._under_way -= 1


class ExampleServicer(examples_pb2_grpc.ExampleServiceServicer):
    """Keeps the labelled examples."""

    def __init__(self, calls: ExampleCalls, threads: Threads) -> None:
        """Answer by these calls."""
        self._calls = calls
        self._run = threads.run

    async def AddExamples(
        self, request: examples_pb2.AddExamplesRequest, context: Context
    ) -> examples_pb2.AddExamplesResponse:
        """Store examples; they are durable, and active ones searchable, when this returns."""
        return await self._run(self._calls.AddExamples, request)

    async def AcceptExamples(
        self, request: examples_pb2.AcceptExamplesRequest, context: Context
    ) -> examples_pb2.AcceptExamplesResponse:
        """Make pending examples active."""
        return await self._run(self._calls.AcceptExamples, request)

    async def RejectExamples(
        self, request: examples_pb2.RejectExamplesRequest, context: Context
    ) -> examples_pb2.RejectExamplesResponse:
        """Make pending examples revoked."""
        return await self._run(self._calls.RejectExamples, request)

    async def RevokeExamples(
        self, request: examples_pb2.RevokeExamplesRequest, context: Context
    ) -> examples_pb2.RevokeExamplesResponse:
        """Take examples back."""
        return await self._run(self._calls.RevokeExamples, request)

    async def RevokeSource(
        self, request: examples_pb2.RevokeSourceRequest, context: Context
    ) -> examples_pb2.RevokeSourceResponse:
        """Take every example of a source back."""
        return await self._run(self._calls.RevokeSource, request)

    async def RestoreExamples(
        self, request: examples_pb2.RestoreExamplesRequest, context: Context
    ) -> examples_pb2.RestoreExamplesResponse:
        """Bring revoked examples back."""
        return await self._run(self._calls.RestoreExamples, request)

    async def RelabelExamples(
        self, request: examples_pb2.RelabelExamplesRequest, context: Context
    ) -> examples_pb2.RelabelExamplesResponse:
        """Give examples other labels."""
        return await self._run(self._calls.RelabelExamples, request)

    async def SupersedeExample(
        self, request: examples_pb2.SupersedeExampleRequest, context: Context
    ) -> examples_pb2.SupersedeExampleResponse:
        """Put another example in the place of one."""
        return await self._run(self._calls.SupersedeExample, request)

    async def GetExample(
        self, request: examples_pb2.GetExampleRequest, context: Context
    ) -> examples_pb2.GetExampleResponse:
        """Return one example."""
        return await self._run(self._calls.GetExample, request)

    async def ListExamples(
        self, request: examples_pb2.ListExamplesRequest, context: Context
    ) -> examples_pb2.ListExamplesResponse:
        """Return a page of examples."""
        return await self._run(self._calls.ListExamples, request)

    async def ListChanges(
        self, request: examples_pb2.ListChangesRequest, context: Context
    ) -> examples_pb2.ListChangesResponse:
        """Return a page of the history."""
        return await self._run(self._calls.ListChanges, request)

    async def FindNeighbours(
        self, request: examples_pb2.FindNeighboursRequest, context: Context
    ) -> examples_pb2.FindNeighboursResponse:
        """Return the examples nearest to a text."""
        return await self._run(self._calls.FindNeighbours, request)


class ReviewServicer(review_pb2_grpc.ReviewServiceServicer):
    """Shows what examples would change, and keeps reviewers' decisions."""

    def __init__(self, calls: ReviewCalls, threads: Threads) -> None:
        """Answer by these calls."""
        self._calls = calls
        self._run = threads.run

    async def PreviewImpact(
        self, request: review_pb2.PreviewImpactRequest, context: Context
    ) -> review_pb2.PreviewImpactResponse:
        """Say what candidates would change."""
        return await self._run(self._calls.PreviewImpact, request)

    async def RecordDecisions(
        self, request: review_pb2.RecordDecisionsRequest, context: Context
    ) -> review_pb2.RecordDecisionsResponse:
        """Keep reviewers' decisions."""
        return await self._run(self._calls.RecordDecisions, request)

    async def FindDecisions(
        self, request: review_pb2.FindDecisionsRequest, context: Context
    ) -> review_pb2.FindDecisionsResponse:
        """Return what was decided."""
        return await self._run(self._calls.FindDecisions, request)
