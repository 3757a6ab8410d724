"""Gathers concurrent prompts into batches by back-pressure: what waits while a batch runs is the next batch."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from classifier.errors import Overloaded, ShuttingDown, StillwatchError
from classifier.scorer import Scorer
from classifier.verdict import Provenance, StageTimes, Verdict
from classifier.views import Prepared

_CHARS_PER_TOKEN = 4


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

    verdict: Verdict
    provenance: Provenance
    times: StageTimes
    queue: float
    batch_size: int
    cached: bool = False


Outcome = Answer | Exception


class _Job:
    """A prompt that waits for its batch."""

    __slots__ = ("cost", "future", "submitted", "text")

    def __init__(self, text: str, cost: int, future: asyncio.Future[Outcome]) -> None:
        self.text = text
        self.cost = cost
        self.future = future
        self.submitted = time.perf_counter()


class MicroBatcher:
    """One worker thread scores one batch at a time; the queue is bounded by tokens. Used from one event loop."""

    def __init__(self, scorer: Scorer, *, batch_tokens: int, queue_tokens: int) -> None:
        """Start nothing yet; run does.

        Args:
            scorer: What scores.
            batch_tokens: The most tokens of a batch; a single prompt may have more.
            queue_tokens: The most tokens that may wait.
        """
        self._scorer = scorer
        self._batch_tokens = batch_tokens
        self._queue_tokens = queue_tokens
        self._waiting: deque[_Job] = deque()
        self._waiting_tokens = 0
        self._wake = asyncio.Event()
        self._closing = False

    @property
    def waiting_tokens(self) -> int:
        """Tokens, by estimate, of the prompts that wait."""
        return self._waiting_tokens

    async def submit(self, texts: Sequence[str]) -> list[Outcome]:
        """Queue prompts and wait for their answers. A cancelled caller's prompts leave the queue.

        Args:
            texts: Prompts: all are queued or none.

        Returns:
            For each prompt its answer, or the error that it met.

        Raises:
            Overloaded: When they do not fit into the queue.
            ShuttingDown: When the server is stopping.
        """
        if self._closing:
            raise ShuttingDown("the server is stopping: send the prompt to another one")
        costs = [self._estimate(text) for text in texts]
        # An empty queue takes anything, so that no allowed request is refused for ever.
        if self._waiting and self._waiting_tokens + sum(costs) > self._queue_tokens:
            raise Overloaded("the queue is full: try again in a moment, or send less at once")
        loop = asyncio.get_running_loop()
        jobs = [_Job(text, cost, loop.create_future()) for text, cost in zip(texts, costs, strict=True)]
        self._waiting.extend(jobs)
        self._waiting_tokens += sum(costs)
        self._wake.set()
        try:
            return [await job.future for job in jobs]
        except asyncio.CancelledError:
            for job in jobs:
                job.future.cancel()
            self._forget_cancelled()
            raise

    async def run(self) -> None:
        """Score batches until close is called and nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            with ThreadPoolExecutor(1, "score") as worker:
                while not (self._closing and not self._waiting):
                    jobs = self._take()
                    if not jobs:
                        self._wake.clear()
                        await self._wake.wait()
                        continue
                    outcomes = await loop.run_in_executor(worker, self._score, jobs)
                    for job, outcome in zip(jobs, outcomes, strict=True):
                        if not job.future.done():
                            job.future.set_result(outcome)
        finally:
            # However this ends, nobody waits for ever.
            self._closing = True
            for job in self._waiting:
                if not job.future.done():
                    job.future.set_result(ShuttingDown("the server is stopping: send the prompt to another one"))

    def close(self) -> None:
        """Take no more prompts; run ends when the waiting ones are answered."""
        self._closing = True
        self._wake.set()

    def _estimate(self, text: str) -> int:
        return min(len(text) // _CHARS_PER_TOKEN + 1, self._scorer.model.windows.budget)

    def _forget_cancelled(self) -> None:
        self._waiting = deque(job for job in self._waiting if not job.future.done())
        self._waiting_tokens = sum(job.cost for job in self._waiting)

    def _take(self) -> list[_Job]:
        jobs: list[_Job] = []
        tokens = 0
        while self._waiting and (not jobs or tokens + self._waiting[0].cost <= self._batch_tokens):
            job = self._waiting.popleft()
            self._waiting_tokens -= job.cost
            if not job.future.done():
                jobs.append(job)
                tokens += job.cost
        return jobs

    def _score(self, jobs: Sequence[_Job]) -> list[Outcome]:
        started = time.perf_counter()
        try:
            return self._score_together(jobs, started)
        except BaseException as error:  # noqa: BLE001  # a panic in a library is no Exception; it must not spread either
            if len(jobs) == 1:
                return [error if isinstance(error, Exception) else RuntimeError(type(error).__name__)]
            return [outcome for job in jobs for outcome in self._score([job])]

    def _score_together(self, jobs: Sequence[_Job], started: float) -> list[Outcome]:
        prepared = self._scorer.prepare_each([job.text for job in jobs])
        good = [prompt for prompt in prepared if isinstance(prompt, Prepared)]
        if not good:
            return [prompt for prompt in prepared if isinstance(prompt, StillwatchError)]
        scored = self._scorer.score_prepared(good, tokenise_seconds=time.perf_counter() - started)
        verdicts = iter(scored.verdicts)
        return [
            Answer(next(verdicts), scored.provenance, scored.times, 1_000 * (started - job.submitted), len(good))
            if isinstance(prompt, Prepared)
            else prompt
            for job, prompt in zip(jobs, prepared, strict=True)
        ]
