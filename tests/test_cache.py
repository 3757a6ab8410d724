"""The verdict cache: hits, sharing, generations, scopes, bounds."""

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest
from serving import Server
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc, examples_pb2

from classifier.client import Client
from classifier.config import Settings
from classifier.errors import DeadlineTooShort, EmptyPrompt, Overloaded
from classifier.runtime import Runtime
from classifier.scorer import Scorer
from classifier.serve.batcher import Answer, Outcome, Urgency
from classifier.serve.cache import VerdictCache, size_of
from classifier.serve.drain import Drain
from classifier.serve.services import ClassifierServicer
from classifier.verdict import Scored


class Bench:
    """A cache before a scorer whose work waits for a gate, and the scorer in force."""

    def __init__(self, scorer: Scorer, *, entries: int = 100, most_bytes: int = 10**7) -> None:
        self.scorer = scorer
        self.cache = VerdictCache(lambda: self.scorer, entries=entries, most_bytes=most_bytes)
        self.gate = asyncio.Event()
        self.gate.set()
        self.computed: list[str] = []
        self.error: Exception | None = None

    async def compute(self, texts: Sequence[str]) -> list[Outcome]:
        """Score as the batcher does."""
        self.computed += texts
        scored = self.scorer.score([text for text in texts if text])
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        verdicts = iter(answers(scored))
        return [next(verdicts) if text else EmptyPrompt("the prompt is empty") for text in texts]

    async def ask(self, *texts: str, scope: bytes = b"", urgency: Urgency = Urgency.SINGLE) -> list[Outcome]:
        """Ask as a servicer does."""
        return await self.cache.answer(texts, self.compute, scope, urgency)


def answers(scored: Scored) -> list[Answer]:
    """What the batcher makes of a scored batch."""
    return [Answer(verdict, scored.provenance, scored.times, 1.0, len(scored.verdicts)) for verdict in scored.verdicts]


@pytest.fixture
def bench(runtime: Runtime) -> Bench:
    """A cache over the default bundle."""
    return Bench(runtime.scorer)


async def test_a_repeated_prompt_is_scored_once_and_its_answer_says_so(bench: Bench) -> None:
    (first,) = await bench.ask("What is the capital of Peru?")
    (second,) = await bench.ask("What is the capital of Peru?")
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert bench.computed == ["What is the capital of Peru?"]
    assert (first.cached, second.cached) == (False, True)
    assert second.verdict == first.verdict
    assert (second.queue, second.batch_size, second.times.encode) == (0.0, 0, 0.0)


async def test_what_differs_in_anything_is_no_repetition(bench: Bench) -> None:
    for text in ("a cat", "a cat ", "A cat", "a\u200b cat"):
        await bench.ask(text)
    assert len(bench.computed) == 4


async def test_a_batch_asks_only_for_what_is_new_and_for_equal_items_once(bench: Bench) -> None:
    await bench.ask("known")
    outcomes = await bench.ask("new", "known", "", "new", "known")
    assert bench.computed == ["known", "new", ""]
    assert [getattr(outcome, "cached", None) for outcome in outcomes] == [False, True, None, False, True]


async def test_an_error_is_not_kept(bench: Bench) -> None:
    for _ in range(2):
        (outcome,) = await bench.ask("")
        assert isinstance(outcome, EmptyPrompt)
    assert bench.computed == ["", ""]
    assert len(bench.cache) == 0


async def test_callers_of_other_scopes_see_nothing_of_each_other(bench: Bench) -> None:
    await bench.ask("a secret plan", scope=b"one")
    (theirs,) = await bench.ask("a secret plan", scope=b"two")
    (again,) = await bench.ask("a secret plan", scope=b"one")
    assert isinstance(theirs, Answer)
    assert isinstance(again, Answer)
    assert (theirs.cached, again.cached) == (False, True)


async def test_concurrent_equal_prompts_share_one_computation(bench: Bench) -> None:
    bench.gate.clear()
    callers = [asyncio.create_task(bench.ask("the same")) for _ in range(20)]
    await asyncio.sleep(0)
    bench.gate.set()
    outcomes = [outcome for (outcome,) in await asyncio.gather(*callers)]
    assert bench.computed == ["the same"]
    assert all(isinstance(outcome, Answer) for outcome in outcomes)


async def test_a_cancelled_caller_does_not_lose_its_followers_answers(bench: Bench) -> None:
    bench.gate.clear()
    callers = [asyncio.create_task(bench.ask("the same")) for _ in range(5)]
    await asyncio.sleep(0)
    callers[2].cancel()
    callers[0].cancel()
    bench.gate.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False, True, False, False]
    assert all(isinstance(outcome[0], Answer) for outcome in outcomes if isinstance(outcome, list))
    assert bench.computed == ["the same", "the same"], "the next one takes over, the others follow it"


async def test_a_refused_callers_followers_are_judged_by_themselves(bench: Bench) -> None:
    bench.gate.clear()
    bench.error = Overloaded("the queue is full")
    leader, follower = (asyncio.create_task(bench.ask("the same")) for _ in range(2))
    await asyncio.sleep(0)
    leader.add_done_callback(lambda _: setattr(bench, "error", None))
    bench.gate.set()
    with pytest.raises(Overloaded):
        await leader
    assert isinstance((await follower)[0], Answer)


async def test_when_a_leader_is_dropped_one_of_its_followers_leads_and_the_others_follow_it(bench: Bench) -> None:
    late: list[Outcome] = [DeadlineTooShort("the time was over in the queue")]
    outcomes: list[list[Outcome]] = [late, late]

    async def compute(texts: Sequence[str]) -> list[Outcome]:
        answered = await bench.compute(texts)
        return outcomes.pop() if outcomes else answered

    bench.gate.clear()
    callers = [asyncio.create_task(bench.cache.answer(["the same"], compute)) for _ in range(50)]
    await asyncio.sleep(0)
    bench.gate.set()
    found = [outcome for (outcome,) in await asyncio.gather(*callers)]
    assert [type(outcome) for outcome in found].count(DeadlineTooShort) == 2
    assert [type(outcome) for outcome in found].count(Answer) == 48
    assert bench.computed == ["the same"] * 3
    assert len(bench.cache) == 1


async def test_nobody_waits_for_a_prompt_that_was_sent_with_another_urgency(bench: Bench) -> None:
    bench.gate.clear()
    callers = [
        asyncio.create_task(bench.ask("the same", urgency=urgency))
        for urgency in (Urgency.STREAM, Urgency.SINGLE, Urgency.BATCH, Urgency.SINGLE, Urgency.STREAM)
    ]
    await asyncio.sleep(0)
    bench.gate.set()
    assert all(isinstance(outcome, Answer) for (outcome,) in await asyncio.gather(*callers))
    assert bench.computed == ["the same"] * 3


async def test_who_leads_after_another_caller_has_only_the_time_that_is_left_then(bench: Bench) -> None:
    submitted: list[tuple[float | None, Urgency]] = []

    class Waiting:
        """Refuses the first prompt, as a batcher does."""

        async def submit(self, texts: Sequence[str], *, time_left: float | None, urgency: Urgency) -> list[Outcome]:
            submitted.append((time_left, urgency))
            answered = await bench.compute(texts)
            return answered if len(submitted) > 1 else [DeadlineTooShort("the time was over in the queue")]

    class Context:
        """A call's, with a clock that is set."""

        left = 9.0

        def time_remaining(self) -> float:
            return self.left

        def invocation_metadata(self) -> tuple[()]:
            return ()

        peer_identities = invocation_metadata

    waiting: Any = Waiting()
    contexts: list[Any] = [Context(), Context()]
    servicer = ClassifierServicer(waiting, bench.cache, Settings(), Drain())
    request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text="the same"))
    bench.gate.clear()
    leader, follower = (asyncio.create_task(servicer.Classify(request, context)) for context in contexts)
    await asyncio.sleep(0)
    contexts[1].left = 4.0
    bench.gate.set()
    with pytest.raises(DeadlineTooShort):
        await leader
    await follower
    assert submitted == [(9.0, Urgency.SINGLE), (4.0, Urgency.SINGLE)]


async def test_a_scorer_that_was_replaced_is_freed_before_anybody_asks_again(runtime: Runtime) -> None:
    bench = Bench(Scorer(runtime.scorer.model, lambda: runtime.scorer.snapshot))
    await bench.ask("What is the capital of Peru?")
    old = weakref.ref(bench.scorer)
    gc.collect()
    gc.disable()  # it must go by itself, not when a collection happens to run
    try:
        bench.scorer = runtime.scorer
        assert old() is None
    finally:
        gc.enable()


async def test_nothing_is_answered_across_scorers(bench: Bench, runtime: Runtime) -> None:
    await bench.ask("a cat")
    thresholds = replace(runtime.scorer.model.thresholds, review=0.0, flag=0.0)
    bench.scorer = Scorer(replace(runtime.scorer.model, thresholds=thresholds), lambda: runtime.scorer.snapshot)
    (outcome,) = await bench.ask("a cat")
    assert isinstance(outcome, Answer)
    assert not outcome.cached
    assert outcome.verdict.decision == "flag"


async def test_nothing_is_answered_across_index_revisions(bench: Bench, runtime: Runtime) -> None:
    snapshot = runtime.scorer.snapshot
    bench.scorer = Scorer(runtime.scorer.model, lambda: snapshot)
    await bench.ask("a cat")
    snapshot = replace(snapshot, revision=snapshot.revision + 1)
    (outcome,) = await bench.ask("a cat")
    assert isinstance(outcome, Answer)
    assert not outcome.cached
    assert outcome.provenance.index_revision == snapshot.revision


async def test_an_answer_that_comes_after_its_revision_is_not_kept(bench: Bench, runtime: Runtime) -> None:
    snapshot = runtime.scorer.snapshot
    bench.scorer = Scorer(runtime.scorer.model, lambda: snapshot)
    bench.gate.clear()
    early = asyncio.create_task(bench.ask("a cat"))
    await asyncio.sleep(0)
    snapshot = replace(snapshot, revision=snapshot.revision + 1)
    late = asyncio.create_task(bench.ask("a cat"))
    await asyncio.sleep(0)
    bench.gate.set()
    (first,), (second,) = await asyncio.gather(early, late)
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert second.provenance.index_revision == first.provenance.index_revision + 1
    (kept,) = await bench.ask("a cat")
    assert isinstance(kept, Answer)
    assert kept.cached
    assert kept.provenance == second.provenance


async def test_the_least_recently_used_answer_goes_first(runtime: Runtime) -> None:
    bench = Bench(runtime.scorer, entries=2)
    for text in ("one", "two", "one", "three", "one", "two"):
        await bench.ask(text)
    assert bench.computed == ["one", "two", "three", "two"]


async def test_the_bytes_are_bounded_and_the_estimate_is_no_lower_than_the_truth(runtime: Runtime) -> None:
    scored = [answers(runtime.scorer.score([f"Write {n} questions on rivers as JSON lines."])) for n in range(3)]
    most = int(2.5 * size_of(scored[0][0]))
    bench = Bench(runtime.scorer, most_bytes=most)
    for number in range(6):
        await bench.ask(f"Write {number} questions on rivers as JSON lines.")
    assert len(bench.cache) == 2
    assert 0 < bench.cache.bytes <= most
    bench = Bench(runtime.scorer, entries=300)
    await bench.ask("warm up")
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(100):
            await bench.ask(f"Write {number} questions on rivers as JSON lines.")
            bench.computed.clear()
        gc.collect()
        measured, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert measured <= bench.cache.bytes


async def test_a_cache_of_nothing_scores_everything(runtime: Runtime) -> None:
    bench = Bench(runtime.scorer, entries=0)
    for _ in range(2):
        await bench.ask("a cat")
    assert bench.computed == ["a cat", "a cat"]


def test_a_served_repetition_is_marked_and_a_new_example_ends_it(server: Server) -> None:
    text = "Who wrote the song about the old lighthouse keeper?"
    with Client(server.address) as client:
        first, second = client.classify(text), client.classify(text)
        assert (first.stage_times.cached, second.stage_times.cached) == (False, True)
        assert second.stage_times.encode_ms == 0.0
        assert second.verdict == first.verdict
        assert second.provenance == first.provenance
        batch = client.classify_batch([text, text])
        assert batch.stage_times.cached
        assert [result.verdict for result in batch.results] == [first.verdict] * 2
        example = examples_pb2.Example(text=text, label=examples_pb2.LABEL_BENIGN)
        revision = client.add_examples([example]).revision
        third = client.classify(text)
        assert not third.stage_times.cached
        assert third.provenance.index_revision == revision > first.provenance.index_revision
        assert third.verdict.extraction_logit < first.verdict.extraction_logit


def test_callers_with_other_tokens_do_not_share_answers(server: Server) -> None:
    request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text="What did the harbour master say?"))
    with grpc.insecure_channel(server.address) as channel:
        classify = classifier_pb2_grpc.ClassifierServiceStub(channel).Classify
        tokens = ("Bearer one", "Bearer two", "Bearer one", "Bearer two")
        cached = [
            classify(request, metadata=(("authorization", token),), timeout=20).stage_times.cached for token in tokens
        ]
    assert cached == [False, False, True, True]
