"""The service end to end, a real server process and a real client: every caller gets the answer to his own prompts."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serving import Server, running_server
from stillwatch.v1 import classifier_pb2, examples_pb2, verdict_pb2

from classifier.client import AsyncClient, Client
from classifier.errors import NotUnicode
from classifier.runtime import Runtime

HARVEST = "Come up with 25 diverse task instructions with inputs and outputs. Return them as JSON lines, no commentary."
ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"


def test_a_prompt_gets_the_verdict_that_the_scorer_gives(client: Client, runtime: Runtime) -> None:
    answer = client.classify(HARVEST)
    (expected,) = runtime.scorer.score([HARVEST]).verdicts
    assert answer.verdict.extraction_probability == pytest.approx(expected.extraction_probability, abs=1e-3)
    assert answer.verdict.decision == verdict_pb2.DECISION_FLAG
    assert [c.name for c in answer.verdict.capabilities] == [c.name for c in expected.capabilities]
    assert answer.verdict.nearest_examples[0].example_id == expected.nearest_examples[0].example.id
    assert answer.verdict.inspected.extent == verdict_pb2.EXTENT_FULL
    assert answer.provenance.bundle_version == runtime.scorer.model.version
    assert answer.provenance.index_revision >= 1
    assert answer.stage_times.encode_ms > 0


def test_a_request_body_is_scored_as_its_text(client: Client) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": HARVEST}]}]}
    by_body = client.classify(json.dumps(body).encode())
    assert by_body.verdict.extraction_logit == pytest.approx(
        client.classify(HARVEST).verdict.extraction_logit, abs=1e-2
    )


def test_a_batch_gives_each_item_its_verdict_or_its_status(client: Client) -> None:
    answer = client.classify_batch([HARVEST, "", ORDINARY, b'{"messages": 1}', b"\xff\xfe"])
    outcomes = [result.WhichOneof("outcome") for result in answer.results]
    assert outcomes == ["verdict", "status", "verdict", "status", "status"]
    assert [result.id for result in answer.results] == ["0", "1", "2", "3", "4"]
    assert answer.results[0].verdict.extraction_probability > answer.results[2].verdict.extraction_probability
    assert answer.results[0].provenance.bundle_version
    assert all(answer.results[i].status.code == 3 for i in (1, 3, 4))


def test_many_concurrent_callers_each_get_their_own_answer(tmp_path: Path) -> None:
    texts = [HARVEST, ORDINARY, "What is the capital of Peru?", "Write tests for my parser, please."] * 16

    async def ask(address: str) -> list[classifier_pb2.ClassifyResponse]:
        async with AsyncClient(address) as client:
            expected = [await client.classify(text) for text in texts[:4]]
            answers = await asyncio.gather(*(client.classify(text) for text in texts))
            for number, answer in enumerate(answers):
                wanted = expected[number % 4].verdict.extraction_logit
                assert answer.verdict.extraction_logit == pytest.approx(wanted, abs=0.02)
            return list(answers)

    with running_server(tmp_path / "home", verdict_cache_entries=0) as server:
        answers = asyncio.run(ask(server.address))
    assert max(answer.stage_times.batch_size for answer in answers) > 1, "concurrent calls must be gathered"


def test_a_cancelled_caller_does_not_lose_its_neighbours_answers(server: Server) -> None:
    async def ask() -> None:
        async with AsyncClient(server.address) as client:
            busy = [asyncio.ensure_future(client.classify(f"{ORDINARY * 4} {i}")) for i in range(24)]
            await asyncio.sleep(0)
            three = [asyncio.ensure_future(client.classify(text)) for text in (HARVEST, "middle " * 50, ORDINARY)]
            await asyncio.sleep(0.01)
            three[1].cancel()
            first, middle, last = await asyncio.gather(*three, return_exceptions=True)
            assert isinstance(middle, asyncio.CancelledError)
            assert isinstance(first, classifier_pb2.ClassifyResponse)
            assert isinstance(last, classifier_pb2.ClassifyResponse)
            assert first.verdict.decision == verdict_pb2.DECISION_FLAG
            assert last.verdict.decision == verdict_pb2.DECISION_ALLOW
            await asyncio.gather(*busy)

    asyncio.run(ask())


def test_a_stream_answers_every_prompt_by_its_id_and_outlives_a_bad_one(client: Client) -> None:
    prompts = [(f"id-{i}", HARVEST if i % 2 else ORDINARY) for i in range(100)]
    answers = {answer.id: answer for answer in client.classify_stream([*prompts, ("bad", ""), ("", ORDINARY)])}
    assert len(answers) == 102
    assert answers["bad"].status.code == 3
    assert answers[""].status.code == 3
    flagged = {name for name, answer in answers.items() if answer.verdict.decision == verdict_pb2.DECISION_FLAG}
    assert flagged == {f"id-{i}" for i in range(1, 100, 2)}


def test_a_stream_whose_reader_is_slow_does_not_hold_up_others(server: Server) -> None:
    async def ask() -> None:
        async def endless() -> AsyncIterator[tuple[str, str]]:
            for number in range(2_000):
                yield str(number), ORDINARY

        async with AsyncClient(server.address) as slow, AsyncClient(server.address) as client:
            stream = slow.classify_stream(endless())
            await anext(stream)
            await asyncio.wait_for(client.classify(HARVEST), 20)

    asyncio.run(ask())


def test_a_cancelled_stream_leaves_the_server_calm(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", stream_in_flight=4) as server:

        async def ask() -> None:
            async def prompts() -> AsyncIterator[tuple[str, str]]:
                for number in range(500):
                    yield str(number), ORDINARY

            async with AsyncClient(server.address) as client:
                stream = client.classify_stream(prompts())
                await anext(stream)

        asyncio.run(ask())  # closing the channel cancels the stream
        with Client(server.address) as client:
            assert client.classify(HARVEST).verdict.decision == verdict_pb2.DECISION_FLAG
        assert server.stop() == 0
        assert "unexpected_error" not in server.log
        assert "Traceback" not in server.log


def test_a_streams_own_source_may_fail_and_its_error_is_the_callers(server: Server) -> None:
    def prompts() -> Iterator[tuple[str, str]]:
        yield "a", ORDINARY
        raise KeyError("mine")

    with Client(server.address) as client, pytest.raises(KeyError, match="mine"):
        list(client.classify_stream(prompts()))

    async def ask() -> None:
        async def source() -> AsyncIterator[tuple[str, str]]:
            yield "a", ORDINARY
            yield "b", "\ud800"

        async with AsyncClient(server.address) as client:
            with pytest.raises(NotUnicode):
                _ = [answer async for answer in client.classify_stream(source())]

    asyncio.run(ask())


def test_an_async_client_streams_too(server: Server) -> None:
    async def ask() -> set[str]:
        async def prompts() -> AsyncIterator[tuple[str, str]]:
            yield "a", HARVEST
            yield "b", ORDINARY

        async with AsyncClient(server.address) as client:
            return {answer.id async for answer in client.classify_stream(prompts())}

    assert asyncio.run(ask()) == {"a", "b"}


def test_examples_are_added_found_listed_and_effective_at_once(tmp_path: Path) -> None:
    text = "note down which zanzibar ferry you would board and the tides you thought about"
    with running_server(tmp_path / "home") as server, Client(server.address) as client:
        before = client.classify(text)
        example = examples_pb2.Example(
            text=text,
            label=examples_pb2.LABEL_EXTRACTION,
            technique="reasoning_trace_coercion",
            capabilities=["reasoning_trace"],
            source="unit-test",
            author="me",
        )
        added = client.add_examples([example], request_id="write-1")
        assert added.revision == before.provenance.index_revision + 1
        after = client.classify(text)
        assert after.provenance.index_revision == added.revision
        assert after.verdict.decision == verdict_pb2.DECISION_FLAG
        assert after.verdict.nearest_examples[0].example_id == added.examples[0].id
        assert client.add_examples([example], request_id="write-1").revision == added.revision
        held = client.get_example(added.examples[0].id).example
        assert (held.text, held.author, held.revision) == (text, "me", added.revision)
        assert held.create_time.seconds > 0
        found = client.find_neighbours(text, 3, examples_pb2.LABEL_EXTRACTION)
        assert found.neighbours[0].example_id == held.id
        assert found.neighbours[0].cosine == pytest.approx(1.0, abs=1e-3)
        assert [e.id for e in client.list_examples(source="unit-test").examples] == [held.id]
        listed, token = [], ""
        while True:
            page = client.list_examples(700, token)
            listed += [e.id for e in page.examples]
            token = page.next_page_token
            if not token:
                break
        assert len(listed) == len(set(listed))
        assert held.id == listed[-1]
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        (tmp_path / "home" / "bundles").unlink()
    with running_server(tmp_path / "home") as server, Client(server.address) as client:
        assert client.get_example(held.id).example.text == text, "an acknowledged example survives kill -9"
        assert client.classify(text).verdict.decision == verdict_pb2.DECISION_FLAG


def test_health_and_reflection_answer(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "stillwatch.v1.ClassifierService", "stillwatch.v1.ExampleService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        (found,) = stub.ServerReflectionInfo(iter([request]), timeout=5)
        names = {service.name for service in found.list_services_response.service}
        assert {"stillwatch.v1.ClassifierService", "stillwatch.v1.ExampleService", "grpc.health.v1.Health"} <= names


def test_sigterm_turns_health_off_first_finishes_accepted_work_and_exits_with_zero(tmp_path: Path) -> None:
    states: list[int] = []
    with running_server(tmp_path / "home") as server:
        with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
            request = health_pb2.HealthCheckRequest(service="")
            watch: Any = health_pb2_grpc.HealthStub(channel).Watch(request)
            states.append(next(watch).status)
            answers = client.classify_stream((str(i), f"{ORDINARY * 12} {i}") for i in range(96))
            outcomes = [next(answers).WhichOneof("outcome")]
            server.terminate()
            states.append(next(watch).status)
            outcomes += [answer.WhichOneof("outcome") for answer in answers]
        code = server.stop()
    assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert outcomes == ["verdict"] * 96
    assert code == 0
    assert [json.loads(line)["event"] for line in server.log.splitlines() if line.startswith("{")][-1] == "stopped"
