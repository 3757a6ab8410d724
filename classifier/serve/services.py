"""The servicer of scoring: convert, call, convert."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc

from classifier.config import Settings
from classifier.errors import InvalidRequest, StillwatchError
from classifier.serve import convert
from classifier.serve.batcher import Answer, MicroBatcher, Outcome, Urgency
from classifier.serve.cache import VerdictCache, scope_of
from classifier.serve.calls import note
from classifier.serve.checks import check_count
from classifier.serve.drain import Drain
from classifier.serve.edge import log_unknown

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


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
        check_count(len(request.items), "items", self._settings.max_batch_items)
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


def _text_or_error(prompt: classifier_pb2.Prompt) -> str | StillwatchError:
    try:
        return convert.prompt_text(prompt)
    except StillwatchError as error:
        return error


def _log_unforeseen(outcome: Outcome, method: str) -> None:
    if not isinstance(outcome, Answer | StillwatchError):
        log_unknown(outcome, method)
