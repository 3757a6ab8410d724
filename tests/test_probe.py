"""`stillwatch doctor --server`: each line says what is wrong with a server, and how to mend it."""

import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from serving import Server, running_server
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc, examples_pb2, verdict_pb2

from classifier.address import stays_here
from classifier.client import Client
from classifier.config import Settings
from classifier.doctor import check
from classifier.finding import Finding, find
from classifier.probe import Local, _tls, check_server
from index.change import Act
from index.example import Example, Label
from index.store import open_store

NAMES = ["server", "services", "tls", "probe", "version", "revision", "metrics", "clock"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Settings]]:
    """A server with metrics, and the settings that fit it."""
    home = tmp_path_factory.mktemp("probe") / "home"
    with running_server(home, metrics_port=0) as server:
        (line,) = [line for line in server.startup.splitlines() if '"serving"' in line]
        port = int(str(json.loads(line)["metrics"]).rpartition(":")[2])
        yield server, Settings(home=home, metrics_port=port)


def by_name(found: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


def test_a_good_server_is_good_in_every_line(seen: tuple[Server, Settings]) -> None:
    server, settings = seen
    found = list(check(settings, server.address))
    assert [finding.name for finding in found] == ["bundle", "encoder", "store", *NAMES]
    bad = [finding for finding in found if not finding.good and finding.name != "probe"]  # a busy machine is slow
    assert bad == []
    details = {finding.name: finding.detail for finding in found}
    assert "as here" in details["version"]
    assert "as in the store here" in details["revision"]
    assert "plain text" in details["tls"]
    assert "ms" in details["probe"]
    assert "samples" in details["metrics"]
    assert "within" in details["clock"]


def test_another_bundle_and_another_revision_fail_with_the_mend(seen: tuple[Server, Settings]) -> None:
    server, settings = seen
    found = by_name(check_server(server.address, settings, Local("0.0.1+abc", 4_711)))
    assert (found["version"].good, found["revision"].good) == (False, False)
    assert "0.0.1+abc" in found["version"].detail
    assert "restart the server" in found["version"].detail
    assert "4711" in found["revision"].detail
    assert "STILLWATCH_STORE" in found["revision"].detail


def test_an_example_that_was_written_beside_the_server_is_seen(tmp_path: Path) -> None:
    with running_server(tmp_path / "home") as server:
        settings = Settings(home=server.home)
        assert by_name(check(settings, server.address))["revision"].good
        with Client(server.address) as client:
            client.add_examples([examples_pb2.Example(text="a first new one", label=examples_pb2.LABEL_BENIGN)])
        assert by_name(check(settings, server.address))["revision"].good
        store = open_store(settings.store_address)
        store.add([Example(text="a second new one", label=Label.BENIGN)], Act("beside"))
        store.close()
        until = time.monotonic() + 5
        while not by_name(check(settings, server.address))["revision"].good:
            assert time.monotonic() < until, "the server follows within a second"


def test_without_a_bundle_a_store_or_metrics_nothing_is_compared(seen: tuple[Server, Settings]) -> None:
    server, settings = seen
    for port in (None, 0):
        alone = settings.model_copy(update={"metrics_port": port})
        found = by_name(check_server(server.address, alone, Local(None, None), most_milliseconds=60_000))
        assert all(finding.good for finding in found.values())
        assert "no bundle here" in found["version"].detail
        assert "no store here" in found["revision"].detail
        assert "not asked" in found["metrics"].detail
        assert "cannot be seen" in found["clock"].detail


def test_metrics_that_are_not_there_fail_with_the_settings_name(seen: tuple[Server, Settings]) -> None:
    server, settings = seen
    closed = settings.model_copy(update={"metrics_port": free_port()})
    found = by_name(check_server(server.address, closed, Local(None, None)))
    assert not found["metrics"].good
    assert "STILLWATCH_METRICS_PORT" in found["metrics"].detail


def web_server(page: bytes, date: Callable[[], str]) -> http.server.HTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", date())
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    started = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=started.serve_forever, args=(0.05,), daemon=True).start()
    return started


@pytest.mark.parametrize(("shift", "words"), [(60, "60 s ahead of"), (-60, "60 s behind"), (0, "within")])
def test_a_clock_that_is_off_is_seen(seen: tuple[Server, Settings], shift: int, words: str) -> None:
    web = web_server(b"stillwatch_bundle_info 1\n", lambda: formatdate(time.time() + shift, usegmt=True))
    try:
        settings = seen[1].model_copy(update={"metrics_port": web.server_port})
        found = by_name(check_server(seen[0].address, settings, Local(None, None)))
    finally:
        web.shutdown()
        web.server_close()
    assert found["metrics"].good
    assert found["clock"].good is (shift == 0)
    assert words in found["clock"].detail


def test_another_programs_metrics_are_not_taken_for_ours(seen: tuple[Server, Settings]) -> None:
    web = web_server(b"other_metric 1\n", lambda: formatdate(usegmt=True))
    try:
        settings = seen[1].model_copy(update={"metrics_port": web.server_port})
        found = by_name(check_server(seen[0].address, settings, Local(None, None)))
    finally:
        web.shutdown()
        web.server_close()
    assert not found["metrics"].good
    assert "another program" in found["metrics"].detail


class Slow(classifier_pb2_grpc.ClassifierServiceServicer):
    """Answers after a quarter of a second."""

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        threading.Event().wait(0.25)
        origin = verdict_pb2.Provenance(bundle_version="1", index_revision=1)
        return classifier_pb2.ClassifyResponse(provenance=origin)

    def BatchClassify(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        raise NotImplementedError

    def StreamClassify(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        raise NotImplementedError


@pytest.fixture
def stranger() -> Iterator[tuple[grpc.Server, health.HealthServicer, str]]:
    """A gRPC server with health alone."""
    server = grpc.server(ThreadPoolExecutor(4))
    state = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    yield server, state, address
    server.stop(None).wait()


def test_a_draining_server_is_asked_nothing_more(stranger: tuple[grpc.Server, health.HealthServicer, str]) -> None:
    server, state, address = stranger
    state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server.start()
    (found,) = check_server(address, Settings(), Local(None, None))
    assert not found.good
    assert "NOT_SERVING" in found.detail


def test_another_grpc_server_is_told_from_ours(stranger: tuple[grpc.Server, health.HealthServicer, str]) -> None:
    server, _, address = stranger
    server.start()
    found = by_name(check_server(address, Settings(), Local(None, None)))
    assert "is not there (NOT_FOUND)" in found["services"].detail
    assert not found["probe"].good
    assert "version" not in found


def test_a_slow_server_fails_with_what_to_look_at(stranger: tuple[grpc.Server, health.HealthServicer, str]) -> None:
    server, state, address = stranger
    classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(Slow(), server)
    for name in ("ClassifierService", "ExampleService", "AdminService"):
        state.set(f"stillwatch.v1.{name}", health_pb2.HealthCheckResponse.SERVING)
    server.start()
    found = by_name(check_server(address, Settings(), Local(None, None)))
    assert found["services"].good
    assert not found["probe"].good
    assert "over 200 ms" in found["probe"].detail


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
        ("127.0.0.1.example.org:1", False),
    ],
)
def test_only_loopback_is_this_machine(address: str, expected: bool) -> None:  # noqa: FBT001
    assert stays_here(address) is expected


def test_a_port_that_speaks_tls_is_seen_to(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-keyout", str(key), "-out", str(cert), "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run(make, check=True, capture_output=True)
    server = grpc.server(ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        found = find("tls", lambda: _tls(f"127.0.0.1:{port}"))
    finally:
        server.stop(None).wait()
    assert found.good
    assert found.detail == "yes, TLSv1.3"
