"""The servicers: convert, call, convert."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import grpc
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc, examples_pb2, examples_pb2_grpc

from classifier.config import Settings
from classifier.errors import InvalidRequest, Overloaded, StillwatchError, TooManyItems
from classifier.serve import convert
from classifier.serve.batcher import Answer, MicroBatcher, Outcome, Urgency
from classifier.serve.cache import VerdictCache, scope_of
from classifier.serve.calls import note
from classifier.serve.drain import Drain
from classifier.serve.edge import log_unknown
from classifier.serve.generations import Generations
from classifier.serve.guard import current_caller

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_NEIGHBOURS = 100
MAX_PAGE = 1_000
_MOST_UNDER_WAY = 32
T = TypeVar("T")


class ClassifierServicer(classifier_pb2_grpc.ClassifierServiceServicer):
    """Scores prompts."""

    def __init__(self, batcher: MicroBatcher, cache: VerdictCache, settings: Settings, drain: Drain) -> None:
        """Score by the batcher what the cache does not hold, within the settings' limits; streams end with the drain."""
        self._batcher = batcher
        self._cache = cache
        self._drain = drain
        self._settings = settings

    async def Classify(
        self, request: classifier_pb2.ClassifyRequest, context: Context
    ) -> classifier_pb2.ClassifyResponse:
        """Score one prompt."""
        (outcome,) = await self._answer([convert.prompt_text(request.prompt)], context, Urgency.SINGLE)
        if not isinstance(outcome, Answer):
            raise outcome
        note(outcome)
        return convert.classify_response(outcome)

    async def BatchClassify(
        self, request: classifier_pb2.BatchClassifyRequest, context: Context
    ) -> classifier_pb2.BatchClassifyResponse:
        """Score several prompts; a bad one fails alone."""
        _check_count(len(request.items), "items", self._settings.max_batch_items)
        texts = [_text_or_error(item.prompt) for item in request.items]
        good = [text for text in texts if isinstance(text, str)]
        scored = iter(await self._answer(good, context, Urgency.BATCH) if good else [])
        outcomes = [next(scored) if isinstance(text, str) else text for text in texts]
        for outcome in outcomes:
            note(outcome)
            _log_unforeseen(outcome, "BatchClassify")
        return convert.batch_response([item.id for item in request.items], outcomes)

    async def StreamClassify(  # type: ignore[override]  # answers are written by the tasks, not yielded
        self, request_iterator: AsyncIterator[classifier_pb2.StreamClassifyRequest], context: Context
    ) -> None:
        """Score prompts as they come; a caller that does not read its answers is not read from."""
        slots = asyncio.Semaphore(self._settings.stream_in_flight)
        writing = asyncio.Lock()
        under_way = 0

        async def answer(request: classifier_pb2.StreamClassifyRequest) -> None:
            nonlocal under_way
            try:
                outcome = await self._outcome(request, context)
                note(outcome)
                async with writing:
                    with suppress(grpc.aio.InternalError):  # the caller went away, and gRPC has not said so yet
                        await context.write(convert.stream_response(request.id, outcome))
            finally:
                under_way -= 1
                slots.release()

        async with self._drain.reading(lambda: under_way > 0) as heard, asyncio.TaskGroup() as tasks:
            async for request in request_iterator:
                heard()
                await slots.acquire()
                under_way += 1
                tasks.create_task(answer(request))

    async def _answer(self, texts: Sequence[str], context: Context, urgency: Urgency) -> list[Outcome]:
        async def submit(new: Sequence[str]) -> list[Outcome]:
            # Asked for now: who followed another caller's prompt has less time left than at the start.
            return await self._batcher.submit(new, time_left=context.time_remaining(), urgency=urgency)

        return await self._cache.answer(texts, submit, scope_of(context), urgency)

    async def _outcome(self, request: classifier_pb2.StreamClassifyRequest, context: Context) -> Outcome:
        try:
            if not request.id:
                raise InvalidRequest("id is missing: give each prompt of a stream an id of its own")
            (outcome,) = await self._answer([convert.prompt_text(request.prompt)], context, Urgency.STREAM)
        except StillwatchError as error:
            return error
        _log_unforeseen(outcome, "StreamClassify")
        return outcome


class ExampleServicer(examples_pb2_grpc.ExampleServiceServicer):
    """Keeps the labelled examples."""

    def __init__(self, generations: Generations, settings: Settings) -> None:
        """Work on the store and index in force, within the settings' limits."""
        self._generations = generations
        self._settings = settings
        self._under_way = 0

    async def _run(self, work: Callable[[], T]) -> T:
        """Run blocking work on a thread; of too much at once the rest is refused."""
        if self._under_way >= _MOST_UNDER_WAY:
            raise Overloaded("too many example requests are under way: try again in a moment")
        self._under_way += 1
        try:
            return await asyncio.to_thread(work)
        finally:
            self._under_way -= 1

    async def AddExamples(
        self, request: examples_pb2.AddExamplesRequest, context: Context
    ) -> examples_pb2.AddExamplesResponse:
        """Store examples; they are durable and searchable when this returns."""
        if not request.request_id or len(request.request_id) > 128:
            raise InvalidRequest("request_id is missing or over 128 characters: name this write")
        _check_count(len(request.examples), "examples", self._settings.max_batch_items)
        author = current_caller().name
        examples = [convert.example_in(example, author) for example in request.examples]
        stored, revision = await self._run(lambda: self._generations.add(examples, request.request_id))
        return examples_pb2.AddExamplesResponse(
            examples=[convert.example_out(example) for example in stored], revision=revision
        )

    async def GetExample(
        self, request: examples_pb2.GetExampleRequest, context: Context
    ) -> examples_pb2.GetExampleResponse:
        """Return one example."""
        if not request.id:
            raise InvalidRequest("id is missing: name the example")
        example = await self._run(lambda: self._generations.runtime.store.get(request.id))
        return examples_pb2.GetExampleResponse(example=convert.example_out(example))

    async def ListExamples(
        self, request: examples_pb2.ListExamplesRequest, context: Context
    ) -> examples_pb2.ListExamplesResponse:
        """Return a page of examples."""
        size = _limit(request.page_size, "page_size", 100, MAX_PAGE)
        label = convert.label_filter(request.label)
        runtime = self._generations.runtime
        page, token = await self._run(lambda: runtime.store.page(size, request.page_token, label, request.source))
        return examples_pb2.ListExamplesResponse(
            examples=[convert.example_out(example) for example in page],
            next_page_token=token,
            revision=runtime.examples.snapshot.revision,
        )

    async def FindNeighbours(
        self, request: examples_pb2.FindNeighboursRequest, context: Context
    ) -> examples_pb2.FindNeighboursResponse:
        """Return the examples nearest to a text."""
        limit = _limit(request.limit, "limit", 10, MAX_NEIGHBOURS)
        label = convert.label_filter(request.label)
        scorer = self._generations.scorer()
        found, provenance = await self._run(lambda: scorer.nearest(request.text, limit, label))
        return examples_pb2.FindNeighboursResponse(
            neighbours=[convert.neighbour(match) for match in found], provenance=convert.provenance(provenance)
        )


def _text_or_error(prompt: classifier_pb2.Prompt) -> str | StillwatchError:
    try:
        return convert.prompt_text(prompt)
    except StillwatchError as error:
        return error


def _log_unforeseen(outcome: Outcome, method: str) -> None:
    if not isinstance(outcome, Answer | StillwatchError):
        log_unknown(outcome, method)


def _check_count(count: int, name: str, most: int) -> None:
    if count == 0:
        raise InvalidRequest(f"{name} is empty: send at least one")
    if count > most:
        raise TooManyItems(f"{name} has {count} entries, at most {most} are allowed: split the request")


def _limit(value: int, name: str, default: int, most: int) -> int:
    if not 0 <= value <= most:
        raise InvalidRequest(f"{name} is {value}: give 1 to {most}, or 0 for {default}")
    return value or default
