"""How the server stops: it says so, takes no more calls, finishes what it accepted, and waits for no idle stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc

from classifier.errors import ShuttingDown
from classifier.serve.handlers import rewrapped

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_IDLE_SECONDS = 0.25
_SETTLE_SECONDS = 0.05


class Drain(grpc.aio.ServerInterceptor):
    """Counts the calls of Stillwatch's own services, and ends streams that say nothing while the server stops."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._calls = 0
        self._streams: set[_Reading] = set()
        self._draining = False
        self._over = asyncio.Event()

    @property
    def calls(self) -> int:
        """Calls that are not yet answered to their end."""
        return self._calls

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Count the handler's calls."""
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).startswith("/stillwatch."):
            return handler
        return rewrapped(handler, lambda behaviour, _: self._counted(behaviour))

    @asynccontextmanager
    async def reading(self, busy: Callable[[], bool]) -> AsyncIterator[Callable[[], None]]:
        """Read a stream's messages; while the server stops, reading ends when none came and none is unanswered.

        Args:
            busy: Whether messages of the stream are unanswered.

        Yields:
            A function to call at each message.

        Raises:
            ShuttingDown: When reading was ended.
        """
        stream = _Reading(busy)
        _current.set(stream)
        self._streams.add(stream)
        if self._draining:
            stream.watch()
        try:
            async with stream.scope:
                yield stream.heard
        except TimeoutError:
            if not stream.scope.expired():
                raise
            raise ShuttingDown("the server is stopping: open a stream to another one") from None
        finally:
            self._streams.discard(stream)
            stream.close()

    async def stop(self, server: grpc.aio.Server, *, pause: float, grace: float) -> None:
        """Stop a server whose health is off already.

        Args:
            server: What stops.
            pause: Seconds for which it goes on as before, until balancers have noticed.
            grace: Seconds that accepted calls may take then; what is open after that is cancelled.
        """
        await asyncio.sleep(pause)
        self._draining = True
        for stream in self._streams:
            stream.watch()
        stopping = asyncio.create_task(server.stop(grace))
        await asyncio.sleep(min(_SETTLE_SECONDS, grace))  # a call that came just now is counted
        if not self._calls:
            self._over.set()
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({stopping, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        # What is left are health watches and the like, which never end by themselves.
        await server.stop(None)
        await stopping

    def _counted(self, behaviour: Any) -> Callable[[Any, Context], Awaitable[Any]]:
        async def handle(message: Any, context: Context) -> Any:
            self._calls += 1
            context.add_done_callback(self._done)  # type: ignore[arg-type]  # the stubs want a class of their own
            return await behaviour(message, context)

        return handle

    def _done(self, _: object) -> None:
        self._calls -= 1
        if self._draining and not self._calls:
            self._over.set()


@contextmanager
def holding() -> Iterator[None]:
    """Hold a message that was taken from the stream under way and is not handed on yet: the stream is not idle."""
    stream = _current.get()
    if stream is None:
        yield
        return
    stream.holds = True
    try:
        yield
    finally:
        stream.holds = False
        stream.heard()


class _Reading:
    """A stream that is read from."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        self.scope = asyncio.timeout(None)
        self._busy = busy
        self._heard = False
        self.holds = False
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        self._heard = True

    def watch(self) -> None:
        """Look again and again whether the stream is idle."""
        loop = asyncio.get_running_loop()
        self._heard = False
        self._timer = loop.call_later(_IDLE_SECONDS, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._heard or self.holds or self._busy():
            self.watch()
        else:
            self.scope.reschedule(asyncio.get_running_loop().time())


_current: ContextVar[_Reading | None] = ContextVar("reading", default=None)
