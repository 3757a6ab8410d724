"""The batcher under pressure of time: bounded waits, deadlines, and neighbours that are unharmed."""

import asyncio
from typing import Any

import pytest
from test_batcher import GatedEncoder, closed_gate, make_scorer, running, until_busy

from classifier.errors import DeadlineTooShort, Overloaded
from classifier.kept import KeptEmbeddings
from classifier.serve.batcher import Answer, MicroBatcher, Outcome, Urgency

LONG = "word " * 100  # 124 window tokens


def make_batcher(encoder: GatedEncoder, rate: int, **settings: float) -> MicroBatcher:
    """A batcher that believes in a rate."""
    given = {"batch_tokens": 256, "queue_tokens": 100_000} | settings
    batcher = MicroBatcher(make_scorer(encoder), **given)  # type: ignore[arg-type]
    batcher._pace.learn(10 * rate, 10.0)
    batcher._pace.learn = lambda tokens, seconds: None  # type: ignore[method-assign]
    return batcher


async def kinds(tasks: list[asyncio.Task[list[Outcome]]]) -> set[type]:
    return {type(outcome) for outcomes in await asyncio.gather(*tasks) for outcome in outcomes}


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_single_prompt_that_would_wait_too_long_is_refused_with_the_time_that_the_queue_takes() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=1_000, queue_seconds=0.45)
    async with running(batcher):
        with closed_gate(encoder):
            tasks = [asyncio.create_task(batcher.submit(["busy"]))]
            await until_busy(encoder)
            tasks += [asyncio.create_task(batcher.submit([LONG])) for _ in range(4)]
            await settle()
            held = batcher.waiting_tokens
            with pytest.raises(Overloaded) as raised:
                await batcher.submit([LONG])
            assert held > 400
            assert raised.value.retry_after == pytest.approx(held / 1_000, abs=0.05)
            assert batcher.waiting_tokens == held
        assert await kinds(tasks) == {Answer}


async def test_a_burst_of_one_batch_is_taken_whatever_the_rate() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=10, queue_seconds=0.5, batch_tokens=1_000)
    async with running(batcher):
        with closed_gate(encoder):
            tasks = [asyncio.create_task(batcher.submit(["busy"]))]
            await until_busy(encoder)
            tasks += [asyncio.create_task(batcher.submit([LONG])) for _ in range(8)]
            await settle()
            assert batcher.waiting_tokens > 900
        assert await kinds(tasks) == {Answer}


async def test_a_batch_may_wait_longer_and_does_not_keep_single_prompts_out() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=1_000, queue_seconds=0.5, bulk_queue_seconds=5.0)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            bulk = asyncio.create_task(batcher.submit([LONG] * 30, urgency=Urgency.BATCH))
            await settle()
            more = asyncio.create_task(batcher.submit([LONG] * 20, urgency=Urgency.BATCH))
            single = asyncio.create_task(batcher.submit(["hello"]))
            await settle()
            with pytest.raises(Overloaded):
                await batcher.submit([LONG], urgency=Urgency.BATCH)
            stream = asyncio.create_task(batcher.submit([LONG], urgency=Urgency.STREAM))
            await settle()
        assert isinstance((await single)[0], Answer)
        assert not bulk.done(), "a single prompt is not behind the whole of a batch"
        for task in (busy, bulk, more, stream):
            assert all(isinstance(outcome, Answer) for outcome in await task)


async def test_one_huge_batch_in_an_empty_queue_does_not_fill_it_for_single_prompts() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=100_000, queue_tokens=1_000, bulk_queue_seconds=60.0)
    async with running(batcher):
        with closed_gate(encoder):
            tasks = [asyncio.create_task(batcher.submit(["busy"]))]
            await until_busy(encoder)
            tasks.append(asyncio.create_task(batcher.submit([LONG] * 30, urgency=Urgency.BATCH)))
            await settle()
            assert batcher.waiting_tokens > 3_000
            tasks += [asyncio.create_task(batcher.submit([LONG])) for _ in range(8)]
            await settle()
            for urgency in Urgency:
                with pytest.raises(Overloaded):
                    await batcher.submit([LONG], urgency=urgency)
        assert await kinds(tasks) == {Answer}


async def test_work_that_cannot_be_done_in_time_is_refused_before_it_costs_anything() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=1_000)
    async with running(batcher):
        with pytest.raises(DeadlineTooShort):
            await batcher.submit([LONG] * 2, time_left=0.1)
        assert encoder.runs == []
        with closed_gate(encoder):
            tasks = [asyncio.create_task(batcher.submit(["busy"], time_left=60))]
            await until_busy(encoder)
            tasks += [asyncio.create_task(batcher.submit([LONG], time_left=60)) for _ in range(3)]
            await settle()
            with pytest.raises(DeadlineTooShort):
                await batcher.submit(["short"], time_left=0.3)
            tasks.append(asyncio.create_task(batcher.submit(["short"])))  # without a deadline it is fine
            await settle()
        assert await kinds(tasks) == {Answer}


async def test_a_prompt_whose_time_is_over_in_the_queue_is_dropped_and_its_neighbours_are_answered() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=1_000_000, batch_tokens=4_096)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            first, middle, last = (
                asyncio.create_task(batcher.submit([text], time_left=left))
                for text, left in (("first", 60), ("middle", 0.01), ("last", None))
            )
            await asyncio.sleep(0.02)
        assert isinstance((await first)[0], Answer)
        assert isinstance((await last)[0], Answer)
        assert isinstance((await middle)[0], DeadlineTooShort)
        await busy
    assert encoder.runs == [1, 2]


async def test_the_time_foretold_ends_with_the_batch_in_which_the_prompt_rides() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=1_000, batch_tokens=500)
    async with running(batcher):
        with closed_gate(encoder):
            tasks = [asyncio.create_task(batcher.submit(["busy"]))]
            await until_busy(encoder)
            tasks.append(asyncio.create_task(batcher.submit([LONG] * 10, urgency=Urgency.BATCH)))
            await settle()
            with pytest.raises(DeadlineTooShort):  # alone it takes 25 ms, and the batch 500
                await batcher.submit(["short"], time_left=0.3)
            tasks.append(asyncio.create_task(batcher.submit(["short"], time_left=60)))
            await settle()
        assert await kinds(tasks) == {Answer}


async def test_a_batch_grows_no_longer_than_the_earliest_deadline_in_it() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=100, batch_tokens=4_096, queue_seconds=100.0)
    async with running(batcher):
        with closed_gate(encoder):
            tasks = [asyncio.create_task(batcher.submit(["busy"]))]
            await until_busy(encoder)
            tasks.append(asyncio.create_task(batcher.submit(["soon"], time_left=1.2)))
            tasks += [asyncio.create_task(batcher.submit([LONG])) for _ in range(5)]
            tasks.append(asyncio.create_task(batcher.submit([LONG] * 2, urgency=Urgency.BATCH)))
            await settle()
        assert await kinds(tasks) == {Answer}
    assert encoder.runs == [1, 1, 7], "what would make the first prompt late is scored next, and together"


@pytest.mark.parametrize(("waited", "first"), [(0.0, "soon"), (200.0, LONG)])
async def test_deadlines_go_before_turns_until_somebody_has_waited_for_long(waited: float, first: str) -> None:
    batcher = make_batcher(GatedEncoder(), rate=100, batch_tokens=4_096, queue_seconds=100.0)
    tasks = [asyncio.create_task(batcher.submit(["soon"], time_left=1.2))]
    await settle()
    tasks.append(asyncio.create_task(batcher.submit([LONG], urgency=Urgency.BATCH)))
    await settle()
    for job in batcher._waiting.bulk:
        job.submitted -= waited
    batcher._waiting._bulk_first = True
    assert [job.text for job in batcher._take()] == [first]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_queue_of_nothing_but_late_prompts_does_not_stop_the_worker() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=1_000_000)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            late = [asyncio.create_task(batcher.submit([LONG], time_left=0.01)) for _ in range(9)]
            await asyncio.sleep(0.02)
            good = asyncio.create_task(batcher.submit(["good"]))
            await settle()
        assert isinstance((await asyncio.wait_for(good, 5))[0], Answer)
        assert await kinds(late) == {DeadlineTooShort}
        await busy


async def test_a_wrong_rate_does_not_refuse_for_ever() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=10)
    async with running(batcher):
        for _ in range(60):
            try:
                answers = await batcher.submit(["hello"], time_left=0.5)
                break
            except DeadlineTooShort:
                continue
    assert isinstance(answers[0], Answer)


async def test_all_prompts_of_a_cancelled_batch_leave_the_queue_and_the_rest_is_answered() -> None:
    encoder = GatedEncoder()
    batcher = make_batcher(encoder, rate=1_000_000, batch_tokens=4_096)
    async with running(batcher):
        with closed_gate(encoder):
            busy = asyncio.create_task(batcher.submit(["busy"]))
            await until_busy(encoder)
            bulk = asyncio.create_task(batcher.submit(["bulk"] * 50, urgency=Urgency.BATCH))
            stream = asyncio.create_task(batcher.submit(["stream"], urgency=Urgency.STREAM))
            await settle()
            bulk.cancel()
            await settle()
            assert batcher.waiting_tokens == batcher._estimate("stream")
        assert isinstance((await stream)[0], Answer)
        await busy
    assert encoder.runs == [1, 1]


async def test_refused_prompts_do_not_make_the_rate_look_high() -> None:
    encoder = GatedEncoder()
    batcher = MicroBatcher(make_scorer(encoder), batch_tokens=100_000, queue_tokens=1_000_000)
    learned: list[int] = []
    batcher._pace.learn = lambda tokens, seconds: learned.append(tokens)  # type: ignore[method-assign]
    async with running(batcher):
        await batcher.submit(["", "x" * 100_001, "good"])
    assert learned == [batcher._estimate("good")]


async def test_kept_windows_do_not_make_the_rate_look_high() -> None:
    kept: Any = KeptEmbeddings(GatedEncoder(), entries=100)
    batcher = MicroBatcher(make_scorer(kept), batch_tokens=100_000, queue_tokens=1_000_000)
    learned: list[int] = []
    batcher._pace.learn = lambda tokens, seconds: learned.append(tokens)  # type: ignore[method-assign]
    prefix = "You answer the questions of a railway's passengers. " * 60
    async with running(batcher):
        await batcher.submit([f"{prefix} May I take a bicycle?"])
        first = kept.spared
        await batcher.submit([f"{prefix} When does the last train leave?"])
    assert kept.spared > first + 500
    assert learned == [
        batcher._estimate(f"{prefix} May I take a bicycle?") - first,
        batcher._estimate(f"{prefix} When does the last train leave?") - (kept.spared - first),
    ]
