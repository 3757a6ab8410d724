"""How the server stops: health first, accepted work finished, nobody idle waited for, and at once when told twice."""

import asyncio
import json
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import Server, running_server
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc

from classifier.client import AsyncClient, Client
from classifier.errors import ServiceFailed

ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"
STREAM = "/stillwatch.v1.ClassifierService/StreamClassify"


def open_stream(channel: grpc.Channel, sent: "queue.Queue[classifier_pb2.StreamClassifyRequest | None]") -> Any:
    def requests() -> Iterator[classifier_pb2.StreamClassifyRequest]:
        while (request := sent.get()) is not None:
            yield request

    return classifier_pb2_grpc.ClassifierServiceStub(channel).StreamClassify(requests())


def prompt(name: str) -> classifier_pb2.StreamClassifyRequest:
    return classifier_pb2.StreamClassifyRequest(id=name, prompt=classifier_pb2.Prompt(text=ORDINARY))


def test_idle_streams_and_health_watches_do_not_hold_up_the_end(tmp_path: Path) -> None:
    sent: queue.Queue[classifier_pb2.StreamClassifyRequest | None] = queue.Queue()
    with (
        running_server(tmp_path / "home", grace_seconds=60) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stream = open_stream(channel, sent)
        sent.put(prompt("a"))
        assert next(stream).id == "a"
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        sent.put(None)
        error: Any = raised.value
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "open a stream to another one" in error.details()
        server.process.wait(20)
        assert server.stop() == 0
        assert "unexpected_error" not in server.log
        assert "Traceback" not in server.log


def test_during_the_pause_health_is_off_and_calls_are_still_answered(tmp_path: Path) -> None:
    with (
        running_server(tmp_path / "home", drain_pause_seconds=2) as server,
        grpc.insecure_channel(server.address) as channel,
        Client(server.address) as client,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
        next(watch)
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert client.classify(ORDINARY).verdict.extraction_probability < 0.5
        server.process.wait(20)
        with pytest.raises(ServiceFailed):
            client.classify(ORDINARY)
        assert server.stop() == 0


def test_accepted_calls_are_answered_although_the_server_was_told_to_stop(tmp_path: Path) -> None:
    async def ask(server: Server) -> list[Any]:
        async with AsyncClient(server.address) as client:
            await client.classify(ORDINARY)  # the connection stands
            calls = [
                asyncio.ensure_future(client.classify_batch([f"{ORDINARY * 2} {i} {j}" for i in range(16)]))
                for j in range(6)
            ]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            server.terminate()
            return list(await asyncio.gather(*calls))

    with running_server(tmp_path / "home", bulk_queue_seconds=600) as server:
        answers = asyncio.run(ask(server))
        assert [result.WhichOneof("outcome") for answer in answers for result in answer.results] == ["verdict"] * 96
        assert server.stop() == 0


def test_a_prompt_that_waits_for_its_quota_is_answered_although_the_server_was_told_to_stop(tmp_path: Path) -> None:
    sent: queue.Queue[classifier_pb2.StreamClassifyRequest | None] = queue.Queue()
    with (
        running_server(tmp_path / "home", quota_requests_per_second=0.5) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stream = open_stream(channel, sent)
        sent.put(prompt("a"))
        assert next(stream).id == "a"
        sent.put(prompt("b"))  # its turn comes after two seconds
        server.terminate()
        assert next(stream).id == "b"
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        sent.put(None)
        error: Any = raised.value
        assert "open a stream to another one" in error.details()
        assert server.stop() == 0


def test_the_grace_period_bounds_a_stream_that_never_ends(tmp_path: Path) -> None:
    done = threading.Event()

    def endless() -> Iterator[tuple[str, str]]:
        while not done.is_set():
            yield "x", ORDINARY

    with running_server(tmp_path / "home", grace_seconds=1.5) as server, Client(server.address) as client:
        answers = client.classify_stream(endless())
        next(answers)
        server.terminate()
        started = time.monotonic()
        with pytest.raises(ServiceFailed):
            for _ in answers:
                pass
        done.set()
        assert server.stop(15) == 0
        assert time.monotonic() - started > 1, "until then it was served"
        events = [json.loads(line)["event"] for line in server.log.splitlines() if line.startswith("{")]
        assert events.count("stopped") == 1, "the cut call's own lines may come after it"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with (
        running_server(tmp_path / "home", drain_pause_seconds=100) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
        next(watch)
        server.terminate()
        next(watch)
        server.process.send_signal(number)
        assert server.process.wait(5) == -number


def test_a_call_whose_time_cannot_suffice_is_refused_with_a_reason(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server, grpc.insecure_channel(server.address) as channel:
        stub: Any = classifier_pb2_grpc.ClassifierServiceStub(channel)
        texts = [f"{number} {ORDINARY * 400}" for number in range(250)]  # minutes; equal ones would be scored once
        prompts = [classifier_pb2.Prompt(text=text) for text in texts]
        long = classifier_pb2.BatchClassifyRequest(items=[classifier_pb2.BatchItem(prompt=each) for each in prompts])
        with pytest.raises(grpc.RpcError) as raised:
            stub.BatchClassify(long, timeout=10)
        error: Any = raised.value
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "are left" in error.details(), "the server said so, before the time was over"
        short = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=ORDINARY))
        assert stub.Classify(short, timeout=20).verdict.extraction_probability < 0.5
