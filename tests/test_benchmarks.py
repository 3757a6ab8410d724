"""What the benchmarks of load rest on: prompts that come again are work again, and no two probes are the same."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import overload
import reload
import variants
from processes import NO_VERDICTS_KEPT, served

from classifier.client import Client

PROMPT = "What is the capital of Peru?"


def test_no_two_probes_of_the_overload_benchmark_are_the_same() -> None:
    asked: list[bytes] = []

    def record(message: bytes, _: grpc.ServicerContext) -> bytes:
        asked.append(message)
        return b""

    def enough(times: Sequence[float]) -> bool:
        return len(times) >= 20

    server = grpc.server(ThreadPoolExecutor(1))
    handlers: dict[str, Any] = {"Classify": grpc.unary_unary_rpc_method_handler(record)}
    service = grpc.method_handlers_generic_handler("stillwatch.v1.ClassifierService", handlers)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for _ in range(2):
            overload._probe(f"127.0.0.1:{port}", enough)
    finally:
        server.stop(None).wait()
    assert len(set(asked)) == len(asked) == 40


def kept(address: str) -> list[bool]:
    """Whether the same prompt, asked twice, came from the cache."""
    with Client(address) as client:
        return [client.classify(PROMPT).stage_times.cached for _ in range(2)]


def test_the_servers_under_load_keep_no_verdicts(tmp_path: Path) -> None:
    with reload._server(variants.make_home(tmp_path)) as server:
        assert kept(server.address) == [False, False]
    with served(settings=NO_VERDICTS_KEPT) as server:
        assert kept(server.address) == [False, False]
    assert "settings=NO_VERDICTS_KEPT" in Path(overload.__file__).read_text()
