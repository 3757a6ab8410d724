"""One scoring process as the server sees it: started, asked, watched, ended."""

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from classifier.serve.frames import (
    HEAD,
    MOST_BYTES,
    Kind,
    error_in,
    frame,
    parts_in,
    revision_in,
    revision_out,
    texts_out,
)
from classifier.serve.scoring import Part
from classifier.serve.worker import Opening

_COMMAND = (sys.executable, "-P", "-m", "classifier.serve.worker")
_GROWTH = 2.0
_GROWTH_MIB = 256
"""A process that holds more than twice what it held at first, and so much beside it, is replaced."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CATCH_UP_SECONDS = 20.0
_END_SECONDS = 5.0
_T = TypeVar("_T")


class Lost(Exception):  # it is no error of a caller's, and never leaves the room
    """Raised when a process ended, or was ended because it did not answer."""


class Process:
    """A scoring process. Used from one event loop.

    Attributes:
        revision: The examples' revision that it said last.
        version: Its bundle's version.
        busy: Whether it has a batch.
        grown: Whether it holds too much memory.
        over: Set when it has grown, or is gone: another one is needed.
    """

    def __init__(
        self, child: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Watch a started process; start makes one."""
        self._child = child
        self._writer = writer
        self._ready: asyncio.Future[tuple[int, bool, str]] = asyncio.get_running_loop().create_future()
        self._batch: asyncio.Future[list[Part]] | None = None
        self._catching_up: deque[asyncio.Future[int]] = deque()
        self._most_pages = 0
        self.revision = 0
        self.version = ""
        self.busy = False
        self.grown = False
        self.over = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(reader))

    @classmethod
    async def start(cls, opening: Opening, seconds: float) -> "Process":
        """Start a process and wait until it can score.

        Args:
            opening: What it opens.
            seconds: How long that may take.

        Returns:
            The process.

        Raises:
            StillwatchError: When the bundle will not do.
            IndexRoomError: When the examples cannot be read.
            Lost: When it ended, or was not ready in time.
        """
        own, other = socket.socketpair()
        # The same files as this process's: the working directory alone must not decide what is run.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        with other:
            child = await asyncio.create_subprocess_exec(
                *_COMMAND, stdin=other.fileno(), stdout=asyncio.subprocess.DEVNULL, env=environment
            )
        process = cls(child, *await asyncio.open_unix_connection(sock=own))
        try:
            process._send(Kind.OPEN, opening.dumped())
            process.revision, _, process.version = await process._answer(process._ready, seconds)
        except BaseException:
            await process.kill()
            raise
        process._most_pages = int(_GROWTH * process._pages()) + _GROWTH_MIB * 2**20 // _PAGE
        return process

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self._listening.done()

    async def score(self, texts: Sequence[str], seconds: float) -> list[Part]:
        """Have a batch scored.

        Args:
            texts: Prompts.
            seconds: How long that may take; then the process is ended.

        Returns:
            The parts.

        Raises:
            Lost: When the process ended or did not answer.
            Overloaded: When the texts are too long for one frame.
        """
        message = frame(Kind.SCORE, *texts_out(texts))
        self.busy = True
        self._batch = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(message)
            return await self._answer(self._batch, seconds)
        except BaseException:
            await self.kill()  # whatever it answers later would be taken for the next batch's
            raise
        finally:
            self.busy = False
            self._batch = None
            if self._pages() > self._most_pages:
                self.grown = True
                self.over.set()

    async def catch_up(self, revision: int, *, anew: bool = False) -> None:
        """Wait until its examples are at a revision; a process that cannot get there is ended.

        Args:
            revision: The revision.
            anew: Whether it reads all examples again.
        """
        caught: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._catching_up.append(caught)
        try:
            self._send(Kind.CATCH_UP, revision_out(revision, anew=anew))
            self.revision = await self._answer(caught, _CATCH_UP_SECONDS)
        except (Exception, asyncio.CancelledError) as error:
            await self.kill()
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            if self.revision < revision:
                await self.kill()

    async def end(self) -> None:
        """Close the connection, upon which the process ends, and wait for that; kill it if it does not."""
        self._writer.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._child.wait()
        except TimeoutError:
            await self.kill()
        await self._gone()

    async def kill(self) -> None:
        """End the process at once."""
        with suppress(ProcessLookupError):
            self._child.kill()
        self._writer.close()
        await self._child.wait()
        await self._gone()

    async def _gone(self) -> None:
        self._listening.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([self._listening])
        self._lose()

    async def _answer(self, awaited: asyncio.Future[_T], seconds: float) -> _T:
        if not self.alive:
            raise Lost
        try:
            async with asyncio.timeout(seconds):
                return await awaited
        except TimeoutError:
            raise Lost from None

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                length, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
                if length > MOST_BYTES:
                    break
                self._take(kind, await reader.readexactly(length))
        except (OSError, EOFError, ValueError, LookupError):
            pass  # it is gone, or out of its mind: see score and catch_up
        finally:
            self._lose()

    def _take(self, kind: int, data: bytes) -> None:
        if kind == Kind.SCORED and self._batch is not None and not self._batch.done():
            self._batch.set_result(parts_in(data))
        elif kind == Kind.READY and not self._ready.done():
            self._ready.set_result(revision_in(data))
        elif kind == Kind.CAUGHT_UP:
            caught = self._catching_up.popleft()
            if not caught.done():
                caught.set_result(revision_in(data)[0])
        elif kind == Kind.FAILED:
            failed = self._catching_up.popleft() if self._ready.done() else self._ready
            if not failed.done():
                failed.set_exception(error_in(data))
        else:
            raise ValueError

    def _lose(self) -> None:
        """Tell everybody who waits."""
        for waiting in (self._ready, self._batch, *self._catching_up):
            if waiting is not None and not waiting.done():
                waiting.set_exception(Lost())
                waiting.exception()  # nobody need ask
        self._catching_up.clear()
        self.over.set()

    def _send(self, kind: Kind, *pieces: bytes) -> None:
        self._writer.write(frame(kind, *pieces))

    def _pages(self) -> int:
        """Pages of memory that it holds; 0 when it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0
