"""What `stillwatch doctor --server` asks a running server: does it answer, how fast, and with what?"""

import http.client
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from classifier.address import stays_here
from classifier.client import Client
from classifier.config import Settings
from classifier.connect import found_credentials, open_channel
from classifier.errors import ServiceFailed
from classifier.finding import Finding, find

_SERVICES = ("stillwatch.v1.ClassifierService", "stillwatch.v1.ExampleService", "stillwatch.v1.AdminService")
_SECONDS = 5.0
_PROBES = 5
MOST_MILLISECONDS = 200.0
"""What a gateway commonly waits for its filter."""
_MOST_SKEW = 2.0
"""Seconds; the header that shows the clock knows whole ones."""
_MOST_PAGE = 2**22


@dataclass(frozen=True, slots=True)
class Local:
    """What this machine holds, to compare the server with.

    Attributes:
        version: The current bundle's; None when there is none.
        revision: The example store's; None when there is none.
    """

    version: str | None
    revision: int | None


def check_server(
    address: str, settings: Settings, local: Local, *, most_milliseconds: float = MOST_MILLISECONDS
) -> Iterator[Finding]:
    """Ask a server all that can be asked from outside; when it does not answer, nothing more.

    Args:
        address: Host and port.
        settings: Where its metrics are shown.
        local: What to compare it with.
        most_milliseconds: The median of the probes that is still good.

    Yields:
        A finding for each check.
    """
    reached = find("server", lambda: reach(address))
    yield reached
    if not reached.good:
        return
    yield find("services", lambda: _services(address))
    yield find("tls", lambda: _tls(address))
    answers: list[tuple[str, int]] = []
    yield find("probe", lambda: _probe(address, answers, most_milliseconds))
    if answers:
        version, revision = answers[-1]
        yield find("version", lambda: _version(version, local))
        yield find("revision", lambda: _revision(address, revision, local))
    dates: list[tuple[float, float]] = []
    yield find("metrics", lambda: _metrics(address, settings, dates))
    yield find("clock", lambda: _clock(dates))


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _health(address: str, service: str) -> str:
    with open_channel(address, found_credentials()) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_SECONDS)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def reach(address: str) -> str:
    """Ask a server whether it serves.

    Args:
        address: Host and port.

    Returns:
        That it does.

    Raises:
        ServiceFailed: When it does not answer, or does not serve.
    """
    try:
        state = _health(address, "")
    except grpc.RpcError as error:
        raise ServiceFailed(f"{address} does not answer ({error.code().name}): is it running?") from None
    if state != "SERVING":
        raise ServiceFailed(f"{address} says {state}: it starts or drains; ask again, or look into its log")
    return f"{address} answers, {state}"


def _services(address: str) -> str:
    for service in _SERVICES:
        try:
            state = _health(address, service)
        except grpc.RpcError as error:
            code = error.code().name
            raise ServiceFailed(f"{service} is not there ({code}): is {address} a Stillwatch server?") from None
        if state != "SERVING":
            raise ServiceFailed(f"{service} says {state}: look into the server's log")
    return f"all {len(_SERVICES)} serve"


def _tls(address: str) -> str:
    """Whether the port speaks TLS; its certificate is for the calls to judge."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as wrapped,
        ):
            return f"yes, {wrapped.version()}"
    except (OSError, ValueError):
        if stays_here(address):
            return "no: plain text, which stays on this machine"
    raise ServiceFailed(f"{address} speaks plain text over the network: give the server a certificate")


def _probe(address: str, answers: list[tuple[str, int]], most: float) -> str:
    took = []
    with Client(address, timeout=_SECONDS) as client:
        for _ in range(_PROBES):
            # Never the same prompt twice: what a cache answers tells nothing of the scorer.
            prompt = f"How do I sort the list {secrets.token_hex(4)} in Python?"
            started = time.perf_counter()
            origin = client.classify(prompt).provenance
            took.append(1_000 * (time.perf_counter() - started))
            answers.append((origin.bundle_version, origin.index_revision))
    middle = median(took)
    if middle > most:
        raise ServiceFailed(
            f"the median of {_PROBES} probes is {middle:.1f} ms, over {most:.0f} ms: "
            "is the queue long, or has it too few cores? see its metrics"
        )
    return f"median {middle:.1f} ms, slowest {max(took):.1f} ms of {_PROBES}"


def _version(version: str, local: Local) -> str:
    if local.version is None:
        return f"{version}; there is no bundle here to compare with"
    if version != local.version:
        raise ServiceFailed(
            f"the server has {version}, here it is {local.version}: restart the server, or set STILLWATCH_HOME"
        )
    return f"{version}, as here"


def _revision(address: str, revision: int, local: Local) -> str:
    if local.revision is None or not stays_here(address):
        return f"{revision}; there is no store here to compare with"
    if revision != local.revision:
        raise ServiceFailed(
            f"the server searches revision {revision}, the store here is at {local.revision}: "
            "it follows within a second, so ask again; else set STILLWATCH_HOME and STILLWATCH_STORE as the server has them"
        )
    return f"{revision}, as in the store here"


def _metrics(address: str, settings: Settings, dates: list[tuple[float, float]]) -> str:
    if settings.metrics_port is None:
        return "not asked: set STILLWATCH_METRICS_PORT"
    if settings.metrics_port == 0:
        return "not asked: the server took a free port, which its log names"
    place = f"http://{_host(address)}:{settings.metrics_port}/metrics"
    connection = http.client.HTTPConnection(_host(address), settings.metrics_port, timeout=_SECONDS)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        page = answer.read(_MOST_PAGE)
    except (OSError, http.client.HTTPException):
        raise ServiceFailed(
            f"{place} does not answer: set STILLWATCH_METRICS_PORT where the server runs, and _HOST if it is elsewhere"
        ) from None
    finally:
        connection.close()
    date = answer.getheader("Date")
    if b"stillwatch_bundle_info" not in page:
        raise ServiceFailed(f"{place} is another program's: set STILLWATCH_METRICS_PORT")
    if date is not None:
        dates.append((parsedate_to_datetime(date).timestamp(), time.time()))
    return f"{place}, {sum(not line.startswith(b'#') for line in page.splitlines())} samples"


def _clock(dates: list[tuple[float, float]]) -> str:
    if not dates:
        return "cannot be seen without the metrics endpoint"
    theirs, ours = dates[-1]
    skew = theirs + 0.5 - ours  # the header was cut to a whole second
    if abs(skew) > _MOST_SKEW:
        way = "ahead of" if skew > 0 else "behind"
        raise ServiceFailed(f"the server's clock is {abs(skew):.0f} s {way} this one: set both by NTP")
    return f"within {_MOST_SKEW:.0f} s of this one"
