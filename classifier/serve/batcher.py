"""Gathers concurrent prompts into batches by back-pressure: what waits while a batch runs is the next batch."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from classifier.errors import DeadlineTooShort, Overloaded, ShuttingDown, StillwatchError
from classifier.scorer import Scorer
from classifier.serve.calls import Call, current_call
from classifier.serve.cost import cost_of
from classifier.serve.lanes import Lane, Lanes
from classifier.serve.pace import Pace
from classifier.serve.scoring import Backend, Found, InProcess, Part
from classifier.verdict import Provenance, StageTimes

_LEAST_BATCH = 1_024


class Urgency(Enum):
    """How long work may wait for its turn."""

    SINGLE = "single"
    """One prompt, inline: refused when it would wait for over queue_seconds."""
    BATCH = "batch"
    """Prompts that were sent together: refused when they would wait for over bulk_queue_seconds."""
    STREAM = "stream"
    """A stream's prompt: the stream's own flow control bounds it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One prompt's verdict, with the times of the batch that it was part of.

    Attributes:
        verdict: What was found.
        provenance: Model and examples.
        times: The batch's stages.
        queue: Milliseconds that this prompt waited.
        batch_size: Prompts in the batch.
        cached: Whether the verdict was kept from an earlier call; then all times are 0.
    """

    verdict: Found
    provenance: Provenance
    times: StageTimes
    queue: float
    batch_size: int
    cached: bool = False


Outcome = Answer | Exception


class _Job:
    """A prompt that waits for its batch."""

    __slots__ = ("call", "cost", "deadline", "future", "lane", "submitted", "text")

    def __init__(
        self, text: str, cost: int, future: asyncio.Future[Outcome], time_left: float, lane: "Lane[_Job]"
    ) -> None:
        self.text = text
        self.lane = lane
        self.cost = cost
        self.future = future
        self.submitted = time.perf_counter()
        self.deadline = self.submitted + time_left
        self.call = current_call()


class _Running:
    """A batch under way."""

    __slots__ = ("begun", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.begun = time.perf_counter()


class MicroBatcher:
    """As many batches are under way as there are places; the queue is bounded by tokens and by the time they will take.

    Used from one event loop.
    """

    def __init__(
        self,
        scorer: Callable[[], Scorer],
        *,
        batch_tokens: int,
        queue_tokens: int,
        queue_seconds: float = 0.5,
        bulk_queue_seconds: float = 10.0,
        on_batch: Callable[[Sequence[Call | None], Part], None] = lambda calls, scored: None,
        backend: Backend | None = None,
    ) -> None:
        """Start nothing yet; run does.

        Args:
            scorer: Returns the scorer in force; asked once a batch, so that a batch has one model and one set of examples.
            batch_tokens: The most tokens of a batch; a single prompt may have more.
            queue_tokens: The most tokens that may wait; single prompts may wait beside as many of the others.
            queue_seconds: How long a single prompt may wait, by the running rate; a batch lasts half as long at most.
            bulk_queue_seconds: How long prompts that were sent together may wait for their turn.
            on_batch: Told of each scored batch, with the call of each prompt that has a verdict; never raises.
            backend: Where batches are scored; None for a thread of this process.
        """
        self._scorer = scorer
        self._batch_tokens = batch_tokens
        self._queue_tokens = queue_tokens
        self._queue_seconds = queue_seconds
        self._bulk_queue_seconds = bulk_queue_seconds
        self._on_batch = on_batch
        self._backend = backend or InProcess(scorer)
        self._waiting: Lanes[_Job] = Lanes()
        self._pace = Pace()
        self._running: set[_Running] = set()
        self._wake = asyncio.Event()
        self._closing = False

    @property
    def waiting_tokens(self) -> int:
        """Tokens, by estimate, of the prompts that wait."""
        return self._waiting.tokens

    @property
    def waiting_prompts(self) -> int:
        """Prompts that wait."""
        return len(self._waiting)

    async def submit(
        self, texts: Sequence[str], *, time_left: float | None = None, urgency: Urgency = Urgency.SINGLE
    ) -> list[Outcome]:
        """Queue prompts and wait for their answers. A cancelled caller's prompts leave the queue.

        Args:
            texts: Prompts: all are queued or none.
            time_left: Seconds until the answers are of no use any more; None for no deadline.
            urgency: How long they may wait for their turn.

        Returns:
            For each prompt its answer, or the error that it met.

        Raises:
            Overloaded: When they do not fit into the queue.
            DeadlineTooShort: When the answers cannot be there in time.
            ShuttingDown: When the server is stopping.
        """
        if self._closing:
            raise ShuttingDown("the server is stopping: send the prompt to another one")
        costs = [self._estimate(text) for text in texts]
        self._admit(sum(costs), time_left, urgency)
        loop = asyncio.get_running_loop()
        left = math.inf if time_left is None else time_left
        lane = self._waiting.single if urgency is Urgency.SINGLE else self._waiting.bulk
        jobs = [_Job(text, cost, loop.create_future(), left, lane) for text, cost in zip(texts, costs, strict=True)]
        for job in jobs:
            lane.add(job)
        self._wake.set()
        try:
            return [await job.future for job in jobs]
        except asyncio.CancelledError:
            for job in jobs:
                job.future.cancel()
                self._waiting.discard(job)
            raise

    async def run(self) -> None:
        """Score batches until close is called and nothing waits."""
        free = asyncio.Semaphore(self._backend.places)
        try:
            async with asyncio.TaskGroup() as batches:
                while not (self._closing and not self._waiting):
                    # First a place, then the batch, so that what comes meanwhile is part of it.
                    await free.acquire()
                    jobs = self._take()
                    if not jobs:
                        free.release()
                        if not self._closing:
                            self._wake.clear()
                            await self._wake.wait()
                        continue
                    running = self._begin(jobs)
                    batches.create_task(self._score(jobs, running)).add_done_callback(lambda _: free.release())
        finally:
            # However this ends, nobody waits for ever.
            self._closing = True
            for job in self._waiting:
                _settle(job, ShuttingDown("the server is stopping: send the prompt to another one"))
            await self._backend.close()

    def close(self) -> None:
        """Take no more prompts; run ends when the waiting ones are answered."""
        self._closing = True
        self._wake.set()

    def _estimate(self, text: str) -> int:
        return cost_of(text, self._scorer().model.windows)

    def _admit(self, own: int, time_left: float | None, urgency: Urgency) -> None:
        """Refuse what does not fit into the queue, and what cannot be answered in time."""
        lane = self._waiting.single if urgency is Urgency.SINGLE else self._waiting.bulk
        running = self._until_free()
        places = self._backend.places
        wait = running + self._pace.seconds(self._waiting.ahead(lane)) / places
        limit = self._queue_seconds if urgency is Urgency.SINGLE else self._bulk_queue_seconds
        # An empty queue takes anything, so that no allowed request is refused for ever; and a lane takes as much as a
        # batch, whatever the rate says, because a burst is no overload.
        # Single prompts count only their own lane: one huge batch that waits must not keep them out.
        room = lane if urgency is Urgency.SINGLE else self._waiting
        full = len(room) and room.tokens + own > self._queue_tokens
        late = len(lane) and lane.tokens + own > self._batch_tokens and wait > limit
        if full or (late and urgency is not Urgency.STREAM):
            if full and urgency is not Urgency.SINGLE:
                wait = running + self._pace.seconds(self._waiting.tokens) / places
            raise Overloaded(
                f"the queue is full: try again in {wait:.2f} seconds, or send less at once", retry_after=wait
            )
        most = self._most()
        until = self._waiting.until(lane, own, most)
        # What stands before the last batch is shared by all places; that batch itself has only one.
        needed = running + self._pace.seconds(min(until, most) + max(0.0, until - most) / places)
        if time_left is not None and needed >= time_left:
            if not self._running and not self._waiting:
                self._pace.hope()
            raise DeadlineTooShort(
                f"the answer would take {1_000 * needed:.0f} ms and {1_000 * time_left:.0f} ms are left: "
                "give more time, or try another server"
            )

    def _until_free(self) -> float:
        """Seconds until a place should be free."""
        if len(self._running) < self._backend.places:
            return 0.0
        ends = min(running.begun + self._pace.seconds(running.tokens) for running in self._running)
        return max(0.0, ends - time.perf_counter())

    def _begin(self, jobs: Sequence[_Job]) -> _Running:
        running = _Running(sum(job.cost for job in jobs))
        self._running.add(running)
        return running

    def _end(self, running: _Running, scored: int, spared: int) -> None:
        # A prompt that is refused costs next to nothing, and must not make the rate look high; nor must a kept window,
        # whose tokens are not encoded.
        if scored > spared:
            self._pace.learn(scored - spared, time.perf_counter() - running.begun)

    def _most(self) -> float:
        """Window tokens of a batch."""
        return min(self._batch_tokens, max(_LEAST_BATCH, self._pace.tokens(self._queue_seconds / 2)))

    def _take(self) -> list[_Job]:
        """The next batch, without what nobody waits for any more; none only when nothing waits."""
        jobs: list[_Job] = []
        while self._waiting and not jobs:
            tokens, now, first_deadline = 0, time.perf_counter(), math.inf
            taken = self._waiting.take(self._most())
            # Who was accepted before the other lane filled did not reckon with it. Later on the turns count, so that
            # tight deadlines do not starve anybody.
            waited = max(now - job.submitted for job in taken)
            urgent = taken if waited > self._queue_seconds else sorted(taken, key=lambda job: job.deadline)
            for place, job in enumerate(urgent):
                if job.future.done():
                    continue
                end = now + self._pace.seconds(tokens + job.cost)
                if end > job.deadline:
                    job.future.set_result(DeadlineTooShort("the time was over in the queue: give more, or try again"))
                    continue
                if end > first_deadline:  # with it the batch would be too late for a neighbour
                    left = set(urgent[place:])
                    for other in reversed(taken):
                        if other in left:
                            other.lane.put_back(other)
                    break
                jobs.append(job)
                tokens += job.cost
                first_deadline = min(first_deadline, job.deadline)
        return jobs

    async def _score(self, jobs: Sequence[_Job], running: _Running) -> None:
        """Have a batch scored and answer it; what breaks it is every prompt's own error."""
        outcomes: Sequence[Outcome] = []
        try:
            parts = await self._backend.score([job.text for job in jobs])
            outcomes = self._outcomes(jobs, parts, running.begun)
            scored = sum(job.cost for job, found in zip(jobs, outcomes, strict=True) if isinstance(found, Answer))
            self._end(running, scored, sum(part.spared for part in parts))
        except StillwatchError as error:
            outcomes = [error] * len(jobs)
        finally:
            self._running.discard(running)
            stopped = [ShuttingDown("the server is stopping: send the prompt to another one")] * len(jobs)
            for job, outcome in zip(jobs, outcomes or stopped, strict=True):
                _settle(job, outcome)

    def _outcomes(self, jobs: Sequence[_Job], parts: Sequence[Part], started: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for part in parts:
            own = jobs[len(outcomes) : len(outcomes) + len(part.found)]
            scored = [job.call for job, found in zip(own, part.found, strict=True) if not isinstance(found, Exception)]
            if scored:
                self._on_batch(scored, part)
            outcomes += [
                found
                if isinstance(found, Exception)
                else Answer(found, part.provenance, part.times, 1_000 * (started - job.submitted), len(scored))
                for job, found in zip(own, part.found, strict=True)
            ]
        return outcomes


def _settle(job: _Job, outcome: Outcome) -> None:
    if not job.future.done():
        job.future.set_result(outcome)
