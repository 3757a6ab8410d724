"""The scoring processes: crews that are put in force as one, and kept complete."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from classifier.config import Settings
from classifier.errors import ScorerLost, ShuttingDown, StillwatchError
from classifier.serve.channel import Lost
from classifier.serve.edge import log_unknown
from classifier.serve.process import Process
from classifier.serve.scoring import Part
from classifier.serve.worker import Opening
from index.errors import IndexRoomError

_ATTEMPTS = 2
"""How often a batch is tried."""
_START_SECONDS = 120.0
_ANSWER_SECONDS = 30.0
"""How long a batch may take; by its tokens it should take a fraction of a second."""
_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_MOST_FAILURES = 5
"""So many failed starts in a row, while no process is left, end the server: its supervisor knows better."""
_log = structlog.get_logger("stillwatch.workers")
T = TypeVar("T")


class Crew:
    """The processes of one generation: all have the same bundle and thresholds. Used from one event loop."""

    def __init__(self, opening: Opening, count: int, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        """Start nothing yet.

        Args:
            opening: What each process opens.
            count: How many processes.
            answer_seconds: How long a batch may take, until its process is ended.
        """
        self._opening = opening
        self._count = count
        self._answer_seconds = answer_seconds
        self._revision = 0
        self._processes: set[Process] = set()
        self._free: asyncio.Queue[Process | None] = asyncio.Queue()
        self._keeping: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._scoring = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pids(self) -> set[int]:
        """The ids of the processes that can score."""
        return {process.pid for process in self._processes}

    async def start(self, version: str) -> None:
        """Start all processes, and wait until they can score.

        Args:
            version: The version that the bundle must have.

        Raises:
            StillwatchError: When the bundle will not do.
            IndexRoomError: When the examples cannot be read.
            ScorerLost: When a process ended, was not ready in time, or found another bundle.
        """
        starts = [asyncio.create_task(self._start()) for _ in range(self._count)]
        try:
            found = await asyncio.gather(*starts)
        except Lost:
            await self._forsake(starts)
            raise ScorerLost("a scoring process did not start: see the log, and whether memory is left") from None
        except BaseException:
            await self._forsake(starts)
            raise
        if any(process.version != version for process in found):
            await self.retire()
            raise ScorerLost("the bundle changed while the scoring processes were opening it: try again")
        self._keeping = [asyncio.create_task(self._keep(process)) for process in found]

    async def score(self, texts: Sequence[str]) -> list[Part]:
        """Have a batch scored by a free process; once more by another one when that is lost.

        Args:
            texts: Prompts.

        Returns:
            The parts.

        Raises:
            ScorerLost: When two processes were lost with it, or none became free in time.
        """
        self._scoring += 1
        self._idle.clear()
        try:
            for _ in range(_ATTEMPTS):
                process = await self._next()
                try:
                    parts = await process.score(texts, self._answer_seconds)
                except Lost:
                    continue
                finally:
                    self._put_back(process)
                return parts
            raise ScorerLost("the scoring process ended twice while it had this prompt's batch: try again")
        finally:
            self._scoring -= 1
            if not self._scoring:
                self._idle.set()

    async def catch_up(self, revision: int, *, anew: bool = False) -> None:
        """Wait until every process has the examples of a revision. One that cannot get there is replaced.

        Args:
            revision: The revision.
            anew: Whether all examples are read again.
        """
        # A process that is being started reads this when it is ready.
        self._revision = max(self._revision, revision)
        await asyncio.gather(*(process.catch_up(revision, anew=anew) for process in set(self._processes)))

    async def retire(self) -> None:
        """Finish the batches under way, then end every process."""
        await self._idle.wait()
        for task in self._keeping:
            task.cancel()
        if self._keeping:
            await asyncio.wait(self._keeping)
        await asyncio.gather(*self._ending, *(process.end() for process in self._processes))
        self._processes.clear()

    async def _start(self) -> Process:
        """A process that can score, with the examples that the crew has."""
        process = await Process.start(self._opening, _START_SECONDS)
        self._processes.add(process)
        if process.revision < self._revision:
            await process.catch_up(self._revision)
        if not process.alive:
            self._processes.discard(process)
            raise Lost
        self._free.put_nowait(process)
        return process

    async def _keep(self, process: Process) -> None:
        """Replace a process whenever it is lost or has grown."""
        while True:
            await process.over.wait()
            _log.warning("worker_replaced", pid=process.pid, cause="lost" if not process.alive else "grown")
            if not process.alive:
                self._processes.discard(process)
            fresh = await self._start_again()
            self._processes.discard(process)
            if not process.busy:
                await process.end()
            process = fresh

    async def _start_again(self) -> Process:
        failures = 0
        while True:
            try:
                return await self._start()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next attempt may do
                failures += 1
                if not isinstance(error, StillwatchError | IndexRoomError | Lost):
                    log_unknown(error, "worker")
                _log.error("worker_not_started", failures=failures, error=type(error).__name__)
                if failures >= _MOST_FAILURES and not self._processes:
                    self._free.put_nowait(None)
                await asyncio.sleep(min(_LONGEST_PAUSE, _PAUSE * 2**failures))

    async def _next(self) -> Process:
        while True:
            try:
                async with asyncio.timeout(_START_SECONDS):
                    process = await self._free.get()
            except TimeoutError:
                raise ScorerLost("no scoring process is left: try again, or see the server's log") from None
            if process is None:
                self._free.put_nowait(None)
                raise RuntimeError("no scoring process can be started")
            if process.alive and process in self._processes:
                return process

    def _put_back(self, process: Process) -> None:
        if process in self._processes:
            self._free.put_nowait(process)
        else:  # another one has taken its place
            ending = asyncio.create_task(process.end())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _forsake(self, starts: Sequence["asyncio.Task[Process]"]) -> None:
        await asyncio.wait(starts)  # they end by themselves, and are then waited for by nobody else
        await asyncio.gather(*(process.kill() for process in self._processes))
        self._processes.clear()


class Workers:
    """The crew in force. Batches come from the event loop; stage, catch_up, swap and drop are called on other threads."""

    def __init__(self, count: int) -> None:
        """Start nothing yet; belongs to the running event loop.

        Args:
            count: How many processes.
        """
        self._loop = asyncio.get_running_loop()
        self._crew: Crew | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._staging: asyncio.Task[Crew] | None = None
        self.places = count

    async def open(self, bundle: Path, settings: Settings, version: str) -> None:
        """Start the first crew.

        Args:
            bundle: The bundle's own directory.
            settings: The settings in force.
            version: The bundle's version.

        Raises:
            StillwatchError: When the bundle will not do.
            IndexRoomError: When the examples cannot be read.
            ScorerLost: When a process did not start.
        """
        self._crew = await self._staged(bundle, settings, version)

    async def score(self, texts: Sequence[str]) -> list[Part]:
        """Have a batch scored by the crew in force."""
        if self._crew is None:
            raise ScorerLost("no scoring process was started yet: try again")
        return await self._crew.score(texts)

    async def close(self) -> None:
        """End every process; those with a batch finish it."""
        if self._staging is not None:
            self._staging.cancel()
        crew, self._crew = self._crew, None
        if crew is not None:
            await crew.retire()
        await asyncio.gather(*self._retiring)

    def stage(self, bundle: Path, settings: Settings, version: str) -> Crew:
        """Start another crew beside the one in force; as open otherwise, but ShuttingDown when it is closed meanwhile."""
        return self._wait(self._stage(bundle, settings, version))

    def catch_up(self, revision: int, staged: Crew | None = None, *, anew: bool = False) -> None:
        """Wait until a crew has the examples of a revision.

        Args:
            revision: The revision.
            staged: Which crew; None for the one in force.
            anew: Whether all examples are read again.
        """
        crew = staged or self._crew
        if crew is not None:
            self._wait(crew.catch_up(revision, anew=anew))

    def swap(self, staged: Crew) -> None:
        """Put a crew in force; the one before it finishes its batches and ends."""
        self._wait(self._swap(staged))

    def drop(self, staged: Crew) -> None:
        """End a crew that is not put in force."""
        self._wait(staged.retire())

    async def _staged(self, bundle: Path, settings: Settings, version: str) -> Crew:
        crew = Crew(Opening(bundle, settings, settings.store_address), self.places)
        await crew.start(version)
        return crew

    async def _stage(self, bundle: Path, settings: Settings, version: str) -> Crew:
        self._staging = asyncio.create_task(self._staged(bundle, settings, version))
        try:
            await asyncio.wait([self._staging])
            if self._staging.cancelled():
                raise ShuttingDown("the server is stopping: reload another one")
            return self._staging.result()
        finally:
            self._staging = None

    async def _swap(self, staged: Crew) -> None:
        old, self._crew = self._crew, staged
        if old is not None:
            task = asyncio.create_task(old.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
