"""What the service's benchmarks share: a server process on a free port, light callers, and what a process takes."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from stillwatch.v1 import classifier_pb2

from classifier.config import Settings

CLASSIFY = "/stillwatch.v1.ClassifierService/Classify"
SERVE = ("-m", "classifier.cli", "serve")


@dataclass(frozen=True, slots=True)
class Served:
    """A server process that takes requests.

    Attributes:
        address: Host and port.
        pid: The process.
        started: Seconds from the start of the process until it served.
    """

    address: str
    pid: int
    started: float

    @property
    def resident(self) -> float:
        """Resident memory in MiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def served(home: Path, command: Sequence[str] = SERVE, **settings: object) -> Iterator[Served]:
    """Run a server on a home that borrows the built bundle, and end it.

    Args:
        home: Where its example store is.
        command: What Python runs; it says "... is serving on HOST:PORT" on stderr.
        settings: The server's settings.

    Yields:
        The server.
    """
    if not (home / "bundles").exists():
        (home / "bundles").symlink_to(Settings().bundles.absolute())
    environment = {**os.environ, "STILLWATCH_HOME": str(home), "STILLWATCH_PORT": "0"}
    environment |= {f"STILLWATCH_{name.upper()}": str(value) for name, value in settings.items()}
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = next((line.split()[-1] for line in process.stderr if " is serving on " in line), None)
            if address is None:
                raise SystemExit("the server did not start: run  stillwatch doctor")
            yield Served(address, process.pid, time.perf_counter() - begun)
        finally:
            process.terminate()


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
