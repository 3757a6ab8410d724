"""Health, reflection and channelz: their calls are bounded, so that they cannot take every place."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import running_server
from test_guard import details

from classifier.client import AsyncClient
from classifier.errors import Overloaded
from classifier.serve.spare import MOST_CALLS_OF_A_PEER, MOST_STREAMS_OF_A_PEER, SPARE_RPCS, Places


def test_watches_of_health_cannot_take_the_places_of_checks_and_of_prompts(tmp_path: Path) -> None:
    asked = health_pb2.HealthCheckRequest()

    async def flood(address: str) -> None:
        async with AsyncClient(address) as client, grpc.aio.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watches: list[Any] = [stub.Watch(asked) for _ in range(SPARE_RPCS + 8)]
            first = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
            refused = [answer for answer in first if isinstance(answer, grpc.aio.AioRpcError)]
            assert len(first) - len(refused) == MOST_STREAMS_OF_A_PEER
            assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert {details(error, error_details_pb2.ErrorInfo).reason for error in refused} == {"QUEUE_FULL"}
            assert (await stub.Check(asked, timeout=5)).status == health_pb2.HealthCheckResponse.SERVING
            await client.classify("What is the capital of Peru?")
            for watch in watches:
                watch.cancel()
            deadline = time.monotonic() + 10
            while True:  # a watch that ended leaves its place as soon as the server has heard of it
                try:
                    answer = await stub.Watch(asked, timeout=5).read()
                    break
                except grpc.aio.AioRpcError:
                    assert time.monotonic() < deadline
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    with running_server(tmp_path / "home", max_concurrent_rpcs=2) as server:
        asyncio.run(flood(server.address))


def test_checks_of_health_without_a_message_are_bounded_and_ended(tmp_path: Path) -> None:
    async def flood(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            check: Any = channel.stream_stream("/grpc.health.v1.Health/Check")
            calls: list[Any] = [check() for _ in range(MOST_CALLS_OF_A_PEER + 3)]
            codes = [await asyncio.wait_for(call.code(), 20) for call in calls]
            assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3
            assert codes.count(grpc.StatusCode.INVALID_ARGUMENT) == MOST_CALLS_OF_A_PEER
            answered = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert answered.status == health_pb2.HealthCheckResponse.SERVING

    with running_server(tmp_path / "home") as server:
        asyncio.run(flood(server.address))


def test_a_place_is_one_peers_and_is_free_again_afterwards() -> None:
    places = Places(3, 2)
    with places.taken("a"), places.taken("a"), places.taken("b"):
        for peer in ("a", "c"):
            with pytest.raises(Overloaded), places.taken(peer):
                pass
    with places.taken("a"), places.taken("a"), pytest.raises(Overloaded), places.taken("a"):
        pass
