"""The server's edge: turns unreadable messages and domain errors into statuses, and logs without prompt text."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeAlias, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from classifier.errors import InvalidRequest, StillwatchError
from classifier.serve.handlers import rewrapped
from classifier.serve.log import place_of
from classifier.serve.status import DETAILS_KEY, status_of
from index.errors import IndexRoomError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_log = structlog.get_logger("stillwatch.edge")
_T = TypeVar("_T")


class _Unreadable(Generic[_T]):
    """Stands for a message that is no valid protobuf, such as one with broken UTF-8."""


class Edge(grpc.aio.ServerInterceptor):
    """Wraps every handler of Stillwatch's own services."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Replace the handler's decoding and error handling."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith("/stillwatch."):
            return handler
        return rewrapped(
            handler,
            lambda behaviour, streaming: (_guarded_stream if streaming else _guarded)(method, behaviour),
            decode=_tolerant(handler.request_deserializer),
        )


def log_unknown(error: BaseException, method: str) -> None:
    """Log an error that nobody foresaw: its type and place, never its words, which may quote a prompt."""
    _log.error("unexpected_error", method=method, error=type(error).__name__, place=place_of(error.__traceback__))


def _tolerant(decode: Any) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        try:
            return decode(data)
        except DecodeError:
            return _Unreadable()

    return read


def _readable(message: Any) -> Any:
    if isinstance(message, _Unreadable):
        raise InvalidRequest("the message cannot be decoded: send valid protobuf, with strings in UTF-8")
    return message


def _guarded(method: str, behaviour: Any) -> Callable[[Any, Context], Awaitable[Any]]:
    async def handle(message: Any, context: Context) -> Any:
        try:
            return await behaviour(_readable(message), context)
        except Exception as raised:
            await _answer(_first(raised), method, context)

    return handle


def _guarded_stream(method: str, behaviour: Any) -> Callable[[Any, Context], Awaitable[None]]:
    async def readable(messages: Any) -> AsyncIterator[Any]:
        async for message in messages:
            yield _readable(message)

    async def handle(messages: Any, context: Context) -> None:
        try:
            await behaviour(readable(messages), context)
        except Exception as raised:
            await _answer(_first(raised), method, context)

    return handle


async def _answer(error: BaseException, method: str, context: Context) -> None:
    """End the call with the error's status."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, StillwatchError | IndexRoomError):
        log_unknown(error, method)
    await abort(context, status_of(error))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def abort(context: Context, status: status_pb2.Status) -> None:
    """End a call with a status and its details."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
