"""The micro-batcher: back-pressure, isolation of callers, bounds."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import pytest

from classifier.encoder import HashEncoder
from classifier.errors import EmptyPrompt, Overloaded, ShuttingDown
from classifier.policy import Calibration, Thresholds
from classifier.scorer import Labels, Model, Scorer
from classifier.serve.batcher import Answer, MicroBatcher, Outcome
from classifier.windows import WindowPlan
from index.live import Side, Snapshot
from index.search import FaissIndex


class GatedEncoder(HashEncoder):
    """Encodes only while its gate is open, and notes what it encoded."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.runs: list[int] = []
        self.poison = -1

    def encode(self, sequences: Sequence[Sequence[int]]) -> Any:
        self.entered.set()
        assert self.gate.wait(10)
        self.runs.append(len(sequences))
        if any(self.poison in sequence for sequence in sequences):
            raise RuntimeError("secret words")
        return super().encode(sequences)


class LinearHead:
    def logits(self, features: Any, terms: Any) -> Any:
        return np.stack([features[:, 0], features[:, 1]], axis=1)


def make_scorer(encoder: HashEncoder) -> Callable[[], Scorer]:
    index = FaissIndex(np.zeros((0, encoder.dimensions), np.float32))
    snapshot = Snapshot(7, Side((), index), Side((), index))
    model = Model(
        version="test",
        encoder=encoder,
        head=LinearHead(),
        labels=Labels((), ("agentic_reasoning",)),
        calibration=(Calibration(1, 0), Calibration(1, 0)),
        thresholds=Thresholds(0.5, 0.9),
        windows=WindowPlan(),
    )
    scorer = Scorer(model, lambda: snapshot)
    return lambda: scorer


@asynccontextmanager
async def running(batcher: MicroBatcher) -> AsyncIterator[None]:
    task = asyncio.create_task(batcher.run())
    try:
        yield
    finally:
        batcher.close()
        await asyncio.wait_for(task, 10)


@contextmanager
def closed_gate(encoder: GatedEncoder) -> Iterator[None]:
    encoder.entered.clear()
    encoder.gate.clear()
    try:
        yield
    finally:
        encoder.gate.set()


async def until_busy(encoder: GatedEncoder) -> None:
    assert await asyncio.to_thread(encoder.entered.wait, 10)


def probability(outcome: Outcome) -> float:
    assert isinstance(outcome, Answer)
    return outcome.verdict.extraction_probability


async def test_a_cancelled_caller_does_not_lose_its_neighbours_answers() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=4096, queue_tokens=4096)
    async with running(batcher):
        alone = [probability((await batcher.submit([text]))[0]) for text in ("first", "third")]
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            first, middle, third = (asyncio.create_task(batcher.submit([t])) for t in ("first", "second", "third"))
            await asyncio.sleep(0)
            middle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await middle
        assert [probability((await first)[0]), probability((await third)[0])] == alone
        await busy
    assert encoder.runs == [1, 1, 1, 2], "the cancelled prompt must not be encoded"


async def test_a_caller_cancelled_while_its_batch_runs_does_not_lose_its_neighbours_answers() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=4096, queue_tokens=4096)
    async with running(batcher):
        with closed_gate(encoder):
            blocker = asyncio.create_task(batcher.submit(["blocker"]))
            await until_busy(encoder)
            tasks = [asyncio.create_task(batcher.submit([text])) for text in ("a", "b", "c")]
            await asyncio.sleep(0)
            encoder.entered.clear()
        await blocker
        await until_busy(encoder)
        tasks[1].cancel()
        for task in (tasks[0], tasks[2]):
            assert isinstance((await task)[0], Answer)


async def test_what_waits_while_a_batch_runs_is_scored_together() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=4096, queue_tokens=4096)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            tasks = [asyncio.create_task(batcher.submit([f"prompt {i}"])) for i in range(20)]
            await asyncio.sleep(0)
        answers = [(await task)[0] for task in tasks]
        await busy
    assert encoder.runs == [1, 20]
    assert all(isinstance(answer, Answer) and answer.batch_size == 20 and answer.queue > 0 for answer in answers)


async def test_a_lone_prompt_does_not_wait_for_company() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=4096, queue_tokens=4096)
    async with running(batcher):
        answer = (await asyncio.wait_for(batcher.submit(["alone"]), 5))[0]
    assert isinstance(answer, Answer)
    assert answer.batch_size == 1


async def test_a_batch_is_bounded_by_tokens() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=140, queue_tokens=100_000)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            task = asyncio.create_task(batcher.submit(["word " * 32] * 6))  # 56 tokens each, by estimate
            await asyncio.sleep(0)
        assert len(await task) == 6
        await busy
    assert encoder.runs == [1, 2, 2, 2]


async def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=256, queue_tokens=300)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            waiting = asyncio.create_task(batcher.submit(["x" * 1000]))
            await asyncio.sleep(0)
            held = batcher.waiting_tokens
            with pytest.raises(Overloaded):
                await batcher.submit(["y" * 1000])
            assert batcher.waiting_tokens == held
        await asyncio.gather(busy, waiting)
        assert batcher.waiting_tokens == 0
        assert isinstance((await batcher.submit(["y" * 1000]))[0], Answer)


async def test_a_cancelled_callers_tokens_leave_the_queue() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=256, queue_tokens=300)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            gone = asyncio.create_task(batcher.submit(["x" * 1000]))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert batcher.waiting_tokens == 0
            waiting = asyncio.create_task(batcher.submit(["y" * 1000]))
            await asyncio.sleep(0)
        await asyncio.gather(busy, waiting)


async def test_a_prompt_that_breaks_the_scorer_fails_alone() -> None:
    encoder = GatedEncoder()
    encoder.poison = encoder.tokenise(["poison"])[0].ids[0]
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=4096, queue_tokens=4096)
    async with running(batcher):
        outcomes = await batcher.submit(["good", "poison", "", "also good"])
    assert [type(outcome) for outcome in outcomes] == [Answer, RuntimeError, EmptyPrompt, Answer]


async def test_a_closing_batcher_answers_what_it_accepted_and_refuses_the_rest() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=4096, queue_tokens=4096)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            waiting = asyncio.create_task(batcher.submit(["accepted"]))
            await asyncio.sleep(0)
            batcher.close()
            with pytest.raises(ShuttingDown):
                await batcher.submit(["late"])
        assert isinstance((await waiting)[0], Answer)
        await busy


class Panic(BaseException):
    """What a library in another language raises when it panics."""


async def test_a_panic_in_the_scorer_fails_its_prompt_alone_and_keeps_its_words() -> None:
    class Panicking(GatedEncoder):
        def tokenise(self, texts: Sequence[str]) -> Any:
            if "panic" in texts:
                raise Panic("secret words")
            return super().tokenise(texts)

    batcher = MicroBatcher(make_scorer(Panicking()), batch_tokens=4096, queue_tokens=4096)
    async with running(batcher):
        outcomes = await batcher.submit(["good", "panic", "also good"])
    assert [type(outcome) for outcome in outcomes] == [Answer, RuntimeError, Answer]
    assert "secret" not in str(outcomes[1])


async def test_nobody_waits_for_a_batcher_that_ended() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=256, queue_tokens=4096)
    task = asyncio.create_task(batcher.run())
    with closed_gate(encoder):
        busy = asyncio.create_task(batcher.submit(["busy"]))
        await until_busy(encoder)
        waiting = asyncio.create_task(batcher.submit(["waiting"]))
        await asyncio.sleep(0)
        task.cancel()
    assert isinstance((await asyncio.wait_for(waiting, 10))[0], ShuttingDown)
    busy.cancel()
    await asyncio.gather(task, busy, return_exceptions=True)
