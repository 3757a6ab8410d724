"""Bounds health, reflection and channelz, so that calls which cost their caller nothing do not take every place."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

from classifier.address import peer_host
from classifier.errors import InvalidRequest, Overloaded
from classifier.serve.edge import abort
from classifier.serve.status import status_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

SPARE_RPCS = 256
"""Calls beyond max_concurrent_rpcs. They exceed MOST_STREAMS and MOST_CALLS together, so that some are left in which
others are refused."""
MOST_STREAMS = 128
"""Health watches and reflection streams under way; they never end by themselves."""
MOST_STREAMS_OF_A_PEER = 16
MOST_CALLS = 64
"""Unary calls under way, such as health checks."""
MOST_CALLS_OF_A_PEER = 32
_MESSAGE_SECONDS = 5.0
"""How long a call's only message may take."""


class Places:
    """So many for all, so many for each peer. Used from one event loop."""

    def __init__(self, most: int, most_of_a_peer: int) -> None:
        """All are free."""
        self._most = most
        self._most_of_a_peer = most_of_a_peer
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, peer: str) -> Iterator[None]:
        """Hold a place.

        Args:
            peer: Who takes it.

        Raises:
            Overloaded: When none is left.
        """
        if self._taken.total() >= self._most or self._taken[peer] >= self._most_of_a_peer:
            raise Overloaded("too many calls of this kind are under way: end some, or try again in a moment")
        self._taken[peer] += 1
        try:
            yield
        finally:
            self._taken[peer] -= 1
            if not self._taken[peer]:
                del self._taken[peer]


class Spare(grpc.aio.ServerInterceptor):
    """Gives the calls of all but Stillwatch's own services a place, or refuses them before a message is read."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._streams = Places(MOST_STREAMS, MOST_STREAMS_OF_A_PEER)
        self._calls = Places(MOST_CALLS, MOST_CALLS_OF_A_PEER)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Put the bound around the handler. Every call is handled as a stream, whose messages are not waited for."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or str(handler_call_details.method).startswith("/stillwatch."):
            return handler  # type: ignore[no-any-return]  # it is what continuation gave
        places = self._streams if handler.response_streaming else self._calls
        behaviour = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
        streamed = bool(handler.request_streaming)

        async def handle(messages: Any, context: Context) -> None:
            try:
                with places.taken(peer_host(context.peer())):
                    await _answer(behaviour, messages if streamed else await _only(messages), context)
            except (Overloaded, InvalidRequest) as error:
                await abort(context, status_of(error))

        return grpc.stream_stream_rpc_method_handler(handle, handler.request_deserializer, handler.response_serializer)


async def _answer(behaviour: Any, asked: Any, context: Context) -> None:
    """Have a call answered, whether the behaviour yields its answers, writes them, or returns a single one."""
    found = behaviour(asked, context)
    if hasattr(found, "__aiter__"):
        async for answer in found:
            await context.write(answer)
        return
    answer = await found
    if answer is not None:
        await context.write(answer)


async def _only(messages: Any) -> Any:
    """The message of a call that has one."""
    try:
        async with asyncio.timeout(_MESSAGE_SECONDS):
            async for message in messages:
                return message
    except TimeoutError:
        pass
    raise InvalidRequest("the call's message did not come: send it with the call")
