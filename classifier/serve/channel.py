"""A line to another process: a frame is asked, a frame answers, in order."""

import asyncio
from collections import deque

from classifier.serve.frames import HEAD, MOST_BYTES, Kind

_KINDS = frozenset(map(int, Kind))


class Lost(Exception):
    """Raised when a process ended, or was ended because it did not answer."""


class Channel(asyncio.Protocol):
    """Asks on a socket. Used from one event loop.

    Attributes:
        lost: Whether the connection is closed.
    """

    def __init__(self, over: asyncio.Event) -> None:
        """Begin unconnected; the event loop connects it.

        Args:
            over: Set when the connection is lost.
        """
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._asked: deque[asyncio.Future[tuple[Kind, bytes]]] = deque()
        self._over = over
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer those who asked."""
        self._buffer += data
        while len(self._buffer) >= HEAD.size:
            length, kind = HEAD.unpack_from(self._buffer)
            end = HEAD.size + length
            if length > MOST_BYTES or not self._asked or kind not in _KINDS:
                self.close()
                return
            if len(self._buffer) < end:
                return
            answer = bytes(memoryview(self._buffer)[HEAD.size : end])
            del self._buffer[:end]
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_result((Kind(kind), answer))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why does not matter
        """Tell everybody who waits."""
        self.lost = True
        self._over.set()
        while self._asked:
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_exception(Lost())

    async def ask(self, message: bytes, seconds: float) -> tuple[Kind, bytes]:
        """Send a frame and wait for its answer.

        Args:
            message: The frame.
            seconds: How long to wait.

        Returns:
            The answer's kind and content.

        Raises:
            Lost: When the connection is closed, or no answer came in time.
        """
        if self._transport is None or self.lost:
            raise Lost
        asked: asyncio.Future[tuple[Kind, bytes]] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._transport.write(message)
        try:
            async with asyncio.timeout(seconds):
                return await asked
        except TimeoutError:
            raise Lost from None

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
