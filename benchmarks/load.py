"""Light callers of the service's benchmarks."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
from stillwatch.v1 import classifier_pb2

CLASSIFY = "/stillwatch.v1.ClassifierService/Classify"


def encoded(texts: Sequence[str]) -> list[bytes]:
    """Texts as the bytes of ClassifyRequests, so that the callers spend little on them."""
    return [
        classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=text)).SerializeToString() for text in texts
    ]


def throughput(address: str, requests: Sequence[bytes], callers: int) -> float:
    """Requests per second of so many concurrent unary callers over two connections, every answer awaited."""
    return asyncio.run(_throughput(address, requests, callers))


async def _throughput(address: str, requests: Sequence[bytes], callers: int) -> float:
    waiting = iter(requests)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as one, grpc.aio.insecure_channel(address, options) as two:

        async def caller(number: int) -> None:
            classify: Any = (one, two)[number % 2].unary_unary(CLASSIFY)
            for request in waiting:
                await classify(request)

        await asyncio.gather(one.channel_ready(), two.channel_ready())
        started = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(callers)))
        return len(requests) / (time.perf_counter() - started)
