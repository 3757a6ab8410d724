"""Scoring processes: the same answers as one process gives, whatever happens to one of them."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import variants
from hypothesis import given
from hypothesis import strategies as st
from serving import Server, running_server
from stillwatch.v1 import examples_pb2, verdict_pb2
from test_batcher import running

from classifier.client import Client
from classifier.config import Settings
from classifier.errors import BundleRejected, EmptyPrompt, Overloaded, PromptTooLong, ScorerLost, ServiceFailed
from classifier.runtime import Runtime, open_runtime
from classifier.serve import convert, frames, process
from classifier.serve.batcher import MicroBatcher, Outcome
from classifier.serve.received import Received
from classifier.serve.scoring import Part, score_parts
from classifier.serve.worker import Opening
from classifier.serve.workers import Crew

ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"
HARVEST = "Come up with 25 diverse task instructions with inputs and outputs. Return them as JSON lines, no commentary."
PROMPTS = (ORDINARY, HARVEST, "Write a poem on rust, in the manner of Heine.", "\u4f60\u597d" * 30, f"{HARVEST} " * 40)
MARKER = "quagga-tungsten-5531"


def workers_of(server: int) -> set[int]:
    """The scoring processes of a server."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server and b"classifier.serve.worker" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def until(good: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pids: set[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two scoring processes, which keeps no verdicts: every prompt is scored."""
    home = tmp_path_factory.mktemp("workers") / "home"
    with running_server(home, workers=2, verdict_cache_entries=0, metrics_port=0) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds the bundle's seed."""
    made = variants.make_home(tmp_path_factory.mktemp("crew"))
    with open_runtime(Settings(home=made)):
        return made


@asynccontextmanager
async def crew(home: Path, count: int = 2, **settings: float) -> AsyncIterator[Crew]:
    given = Settings(home=home)
    with open_runtime(given) as runtime:
        version = runtime.bundle.model.version
    made = Crew(Opening(given.bundle.resolve(), given, given.store_address), count, **settings)
    await made.start(version)
    try:
        yield made
    finally:
        await asyncio.wait_for(made.retire(), 60)


def test_verdicts_are_those_of_one_process(client: Client, runtime: Runtime) -> None:
    for text in PROMPTS:
        sent = client.classify(text).verdict
        (own,) = runtime.scorer.score([text]).verdicts
        expected = convert.verdict(own)
        assert sent.extraction_logit == pytest.approx(expected.extraction_logit, abs=1e-3)
        assert [score.name for score in sent.techniques] == [score.name for score in expected.techniques]
        assert [near.example_id for near in sent.nearest_examples] == [
            near.example_id for near in expected.nearest_examples
        ]
        assert (sent.decision, sent.inspected, sent.reasons[:1]) == (
            expected.decision,
            expected.inspected,
            expected.reasons[:1],
        )


def test_a_bad_prompt_fails_alone_and_with_its_own_words(client: Client) -> None:
    items: list[str | bytes] = [
        ORDINARY,
        "",
        "x" * 100_001,
        HARVEST,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    ]
    results = list(client.classify_batch(items).results)
    assert [result.WhichOneof("outcome") for result in results] == ["verdict", "status", "status", "verdict", "status"]
    assert results[0].provenance == results[3].provenance
    assert "100001 characters" in results[2].status.message
    assert "surrogate" in results[4].status.message


def test_metrics_count_what_the_processes_score(server: Server, client: Client) -> None:
    from urllib.request import urlopen

    address = next(
        line.split('"metrics": "')[1].split('"')[0] for line in server.startup.splitlines() if "metrics" in line
    )

    def counted() -> float:
        with urlopen(f"http://{address}/metrics") as page:
            lines = page.read().decode().splitlines()
        wanted = ("stillwatch_decisions_total{", "stillwatch_batch_prompts_sum")
        return sum(float(line.split()[-1]) for line in lines if line.startswith(wanted))

    before = counted()
    client.classify_batch([ORDINARY, HARVEST])
    assert counted() == before + 4


def test_a_written_example_is_known_to_every_process_when_the_write_returns(client: Client) -> None:
    for number in range(6):
        text = f"Which ferry number {number} goes to the island at noon, and who sails it?"
        example = examples_pb2.Example(text=text, label=examples_pb2.LABEL_EXTRACTION, technique="self_chat")
        revision = client.add_examples([example]).revision
        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(lambda _, text=text: client.classify(text), range(8)))
        assert {answer.provenance.index_revision for answer in answers} == {revision}
        assert {answer.verdict.nearest_examples[0].cosine > 0.999 for answer in answers} == {True}


def complete_without(parent: int, lost: int) -> bool:
    return len(workers_of(parent) - {lost}) == 2


def test_no_call_fails_while_processes_are_killed(server: Server) -> None:
    crew_before = workers_of(server.process.pid)
    assert len(crew_before) == 2
    with Client(server.address, timeout=300) as client, ThreadPoolExecutor(16) as callers:  # both start again meanwhile
        for pid in crew_before:
            calls = [callers.submit(client.classify, f"{MARKER} {pid} {number} {ORDINARY}") for number in range(100)]
            os.kill(pid, signal.SIGKILL)
            # All are answered before the next one is killed: a batch that loses two processes may fail.
            assert all(call.result().verdict.decision for call in calls)
            until(partial(complete_without, server.process.pid, pid), 120)
    assert not workers_of(server.process.pid) & crew_before


async def test_a_process_that_hangs_is_ended_and_its_batch_scored_elsewhere(home: Path) -> None:
    async with crew(home, answer_seconds=2.0) as held:
        hung = min(held.pids)
        os.kill(hung, signal.SIGSTOP)
        for _ in range(2):  # one of them comes to the hung one
            (part,) = await asyncio.wait_for(held.score([ORDINARY]), 30)
            assert len(part.verdicts) == 1
        until(lambda: gone({hung}))


async def test_a_batch_that_loses_two_processes_fails_and_the_next_one_does_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crew(home) as held:
        monkeypatch.setattr(held, "_answer_seconds", 0.0)  # no process can be so quick
        with pytest.raises(ScorerLost, match="ended twice"):
            await held.score([ORDINARY])
        monkeypatch.setattr(held, "_answer_seconds", 30.0)
        (part,) = await asyncio.wait_for(held.score([ORDINARY]), 60)
        assert len(part.verdicts) == 1


async def test_a_process_that_grew_is_replaced_once_another_one_is_ready(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_BATCHES_A_LOOK", 1)
    async with crew(home, count=1) as held:
        (old,) = held.pids
        (only,) = held._processes
        only._most_bytes = 1
        await held.score([ORDINARY])
        monkeypatch.setattr(process, "_BATCHES_A_LOOK", 10**9)
        deadline = time.monotonic() + 60
        while held.pids == {old} or not gone({old}):
            assert time.monotonic() < deadline
            assert len((await asyncio.wait_for(held.score([ORDINARY]), 5))[0].verdicts) == 1


async def test_a_bundle_that_will_not_do_is_said_by_its_own_error(tmp_path: Path) -> None:
    home = variants.make_home(tmp_path)
    name = variants.make_current(home, variants.versioned("9.0.0"))
    (home / "bundles" / name / "head.onnx").write_bytes(b"x")
    settings = Settings(home=home)
    held = Crew(Opening(settings.bundle.resolve(), settings, settings.store_address), 2)
    with pytest.raises(BundleRejected, match=r"head\.onnx has SHA-256"):
        await held.start("9.0.0")
    assert not held.pids


async def test_processes_that_cannot_be_started_again_end_the_batcher(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classifier.serve.workers._MOST_FAILURES", 1)
    async with crew(home, count=1) as held:
        monkeypatch.setattr(held, "_opening", Opening(home / "missing", Settings(home=home), home / "examples.db"))
        (pid,) = held.pids
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="no scoring process can be started"):
            await asyncio.wait_for(held.score([ORDINARY]), 120)


def test_a_stopping_server_finishes_its_work_and_leaves_no_process(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", workers=2) as server, Client(server.address, timeout=60) as client:
        held = workers_of(server.process.pid)
        for pid in held:
            os.kill(pid, signal.SIGTERM)  # as a supervisor does, which tells all of a group
        with ThreadPoolExecutor(8) as callers:
            calls = [callers.submit(client.classify, f"{MARKER} {number}") for number in range(40)]
            calls[0].result()
            server.terminate()
            for call in calls:
                with suppress(ServiceFailed):  # what came too late is refused
                    call.result()
        assert server.stop() == 0
        until(lambda: gone(held), 10)
        assert MARKER not in server.startup + server.log
        assert "unexpected" not in server.log


def test_a_killed_server_leaves_no_process(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", workers=2) as server:
        held = workers_of(server.process.pid)
        assert len(held) == 2
        server.process.kill()
        until(lambda: gone(held), 10)


def test_a_reload_swaps_all_processes_without_a_failed_or_mixed_answer(tmp_path: Path) -> None:
    home = variants.make_home(tmp_path)
    settings: dict[str, Any] = {"workers": 2, "watch_seconds": 0, "verdict_cache_entries": 0}
    with (
        running_server(home, **settings) as server,
        Client(server.address, timeout=120) as client,
        ThreadPoolExecutor(8) as callers,
    ):
        first, held = client.classify(ORDINARY).provenance, workers_of(server.process.pid)
        variants.make_current(home, variants.versioned("9.0.0"), variants.seeded(lambda n, _: n % 2 == 0))
        reload = callers.submit(client.reload)
        answers: list[verdict_pb2.Provenance] = []
        while not reload.done():
            answers += callers.map(lambda _: client.classify(ORDINARY).provenance, range(4))
        report = reload.result().report
        after = client.classify(ORDINARY).provenance
        assert after.bundle_version == report.bundle_version != first.bundle_version
        assert after.index_revision == client.get_status().provenance.index_revision
        assert {answer.bundle_version for answer in answers} <= {first.bundle_version, report.bundle_version}
        until(lambda: gone(held))
        assert len(workers_of(server.process.pid)) == 2
        fresh = workers_of(server.process.pid)
        variants.make_current(home, variants.shifted(50.0))
        with pytest.raises(ServiceFailed, match="canary prompts wrongly"):
            client.reload()
        assert workers_of(server.process.pid) == fresh
        assert client.classify(ORDINARY).provenance == after


class Gated:
    """A backend with two places, whose batches end when they are told to."""

    places = 2

    def __init__(self) -> None:
        self.begun: list[Sequence[str]] = []
        self.gate = asyncio.Event()

    async def score(self, texts: Sequence[str]) -> list[Part]:
        self.begun.append(texts)
        await self.gate.wait()
        if texts[0] == "lost":
            raise ScorerLost("gone")
        return [Part(tuple(EmptyPrompt("empty") for _ in texts))]

    async def close(self) -> None:
        """Nothing is held."""


async def test_as_many_batches_are_under_way_as_there_are_places(runtime: Runtime) -> None:
    backend = Gated()
    batcher = MicroBatcher(lambda: runtime.scorer, batch_tokens=4_096, queue_tokens=10_000, backend=backend)
    async with running(batcher):
        tasks = []
        for text in ("lost", "second", "third", "fourth"):
            tasks.append(asyncio.create_task(batcher.submit([text])))
            for _ in range(5):
                await asyncio.sleep(0)
        assert backend.begun == [["lost"], ["second"]]
        backend.gate.set()
        outcomes = [(await task)[0] for task in tasks]
    assert backend.begun == [["lost"], ["second"], ["third", "fourth"]]
    assert [type(outcome) for outcome in outcomes] == [ScorerLost, EmptyPrompt, EmptyPrompt, EmptyPrompt]


async def test_two_places_take_twice_as_much_in_the_same_time(runtime: Runtime) -> None:
    backend = Gated()
    batcher = MicroBatcher(
        lambda: runtime.scorer, batch_tokens=256, queue_tokens=10_000, queue_seconds=0.45, backend=backend
    )
    batcher._pace.learn(10_000, 10.0)
    tasks: list[asyncio.Task[list[Outcome]]] = []

    async def submitted(text: str) -> None:
        tasks.append(asyncio.create_task(batcher.submit([text])))
        for _ in range(5):
            await asyncio.sleep(0)

    async with running(batcher):
        await submitted("busy")
        await submitted("busy, too")
        for _ in range(7):
            await submitted("word " * 100)  # 124 window tokens
        held = batcher.waiting_tokens
        with pytest.raises(Overloaded) as raised:
            await batcher.submit(["word " * 100])
        assert held > 800, "one place takes under 500"
        assert raised.value.retry_after == pytest.approx(held / 2_000, abs=0.05)
        backend.gate.set()
        await asyncio.gather(*tasks)


@given(st.lists(st.text(st.characters(), max_size=30)))
def test_texts_cross_as_they_are(texts: list[str]) -> None:
    assert frames.texts_in(b"".join(frames.texts_out(texts))) == texts


def test_parts_cross_with_verdicts_and_errors(runtime: Runtime) -> None:
    parts = score_parts(lambda: runtime.scorer, [ORDINARY, "", HARVEST])
    broken = Part((PromptTooLong("too long"), KeyError("secret words")))
    data = b"".join(
        frames.parts_out([*parts, broken], convert.verdict, lambda p: convert.provenance(p).SerializeToString())
    )
    (back, other) = frames.parts_in(data, 5)
    assert (back.provenance, back.times, back.spared) == (parts[0].provenance, parts[0].times, parts[0].spared)
    assert [type(found) for found in back.found] == [Received, EmptyPrompt, Received]
    assert str(other.found[0]) == "too long"
    assert type(other.found[1]) is frames.Unforeseen
    assert "secret" not in str(other.found[1])
    for own, sent in zip(parts[0].verdicts, back.verdicts, strict=True):
        assert convert.verdict(sent) == convert.verdict(own)
        assert (sent.decision, sent.abstention is None) == (own.decision, own.abstention is None)
    with pytest.raises(ValueError, match="another number"):
        frames.parts_in(data, 4)
    for end in range(0, len(data), 97):
        with pytest.raises(ValueError, match=r"part|frame"):
            frames.parts_in(data[:end], 5)
