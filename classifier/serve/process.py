"""One scoring process as the server sees it: started, asked, watched, ended."""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from classifier.serve.channel import Channel, Lost
from classifier.serve.frames import Kind, error_in, frame, parts_in, revision_in, revision_out, texts_out
from classifier.serve.scoring import Part
from classifier.serve.worker import Opening

_COMMAND = (sys.executable, "-P", "-m", "classifier.serve.worker")
_GROWTH = 2.0
_GROWTH_BYTES = 256 * 2**20
"""A process that holds more than twice what it held at first, and so much beside it, is replaced."""
_BATCHES_A_LOOK = 32
"""Its memory is looked at once in so many batches."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CATCH_UP_SECONDS = 20.0
_END_SECONDS = 5.0


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
        self, child: asyncio.subprocess.Process, batches: Channel, control: Channel, over: asyncio.Event
    ) -> None:
        """Watch a started process, whose channels set over when they are lost; start makes one."""
        self._child = child
        self._batches = batches
        self._control = control
        self._scored = 0
        self._most_bytes = 0
        self.revision = 0
        self.version = ""
        self.busy = False
        self.grown = False
        self.over = over

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
        (batches, its_batches), (control, its_control) = socket.socketpair(), socket.socketpair()
        # The same files as this process's: the working directory alone must not decide what is run.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        with its_batches, its_control:
            ends = (its_batches.fileno(), its_control.fileno())
            child = await asyncio.create_subprocess_exec(
                *_COMMAND, *map(str, ends), stdin=asyncio.subprocess.DEVNULL, pass_fds=ends, env=environment
            )
        over = asyncio.Event()
        process = cls(child, await _connected(batches, over), await _connected(control, over), over)
        try:
            kind, data = await process._control.ask(frame(Kind.OPEN, opening.dumped()), seconds)
            if kind == Kind.FAILED:
                raise error_in(data)
            process.revision, _, process.version = revision_in(data)
        except BaseException:
            await process.kill()
            raise
        process._most_bytes = int(_GROWTH * process.resident()) + _GROWTH_BYTES
        return process

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not (self._control.lost or self._batches.lost)

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
        try:
            _, data = await self._batches.ask(message, seconds)
            parts = parts_in(data, len(texts))
        except ValueError:
            await self.kill()
            raise Lost from None
        except BaseException:
            await self.kill()  # whatever it answers later is for nobody
            raise
        finally:
            self.busy = False
        self._scored += 1
        if self._scored % _BATCHES_A_LOOK == 0 and self.resident() > self._most_bytes:
            self.grown = True
            self.over.set()
        return parts

    async def catch_up(self, revision: int, *, anew: bool = False) -> None:
        """Wait until its examples are at a revision; a process that cannot get there is ended.

        Args:
            revision: The revision.
            anew: Whether it reads all examples again.
        """
        message = frame(Kind.CATCH_UP, revision_out(revision, anew=anew))
        try:
            kind, data = await self._control.ask(message, _CATCH_UP_SECONDS)
            if kind == Kind.CAUGHT_UP:
                self.revision = revision_in(data)[0]
                caught_up = self.revision >= revision
            else:
                caught_up = False
        except Lost:
            caught_up = False
        if not caught_up:
            await self.kill()

    async def end(self) -> None:
        """Close the connections, upon which the process ends, and wait for that; kill it if it does not."""
        self._close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._child.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the process at once."""
        self._close()
        with suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()

    def resident(self) -> int:
        """Bytes of memory that it holds; 0 when it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def _close(self) -> None:
        self._batches.close()
        self._control.close()


async def _connected(end: socket.socket, over: asyncio.Event) -> Channel:
    _, channel = await asyncio.get_running_loop().create_unix_connection(lambda: Channel(over), sock=end)
    return channel
