"""The guard: who may call what, under whose name, how much, and how much at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import authority
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serving import Server, running_server
from stillwatch.v1 import classifier_pb2, examples_pb2
from test_docs import services

from classifier.client import AsyncClient, Client
from classifier.connect import Credentials
from classifier.errors import ServiceFailed
from classifier.serve.guard import NEEDED, needed
from classifier.tokens import Scope, new_token

PROMPT = "What is the capital of Peru?"
EXAMPLE = examples_pb2.Example(text="an example of nothing", label=examples_pb2.LABEL_BENIGN, author="somebody else")


@dataclass(frozen=True)
class Guarded:
    """A server with a tokens file, and the tokens by their names."""

    server: Server
    file: Path
    tokens: dict[str, str]

    def client(self, name: str | None) -> Client:
        """A client that shows a token."""
        token = self.tokens[name] if name is not None else None
        return Client(self.server.address, timeout=10, credentials=Credentials(token=token))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    wanted: dict[str, tuple[list[Scope], dict[str, float]]] = {
        "gateway": ([Scope.CLASSIFY], {}),
        "reader": ([Scope.EXAMPLES_READ], {}),
        "analyst": ([Scope.CLASSIFY, Scope.EXAMPLES_READ, Scope.EXAMPLES_WRITE], {}),
        "slow": ([Scope.CLASSIFY], {"requests_per_second": 2}),
        "small": ([Scope.CLASSIFY], {"tokens_per_minute": 6_000}),
    }
    made = {name: new_token(name, frozenset(given), **quota) for name, (given, quota) in wanted.items()}
    file = folder / "tokens.toml"
    file.write_text("\n".join(lines for _, lines in made.values()))
    with running_server(folder / "home", tokens_file=file) as server:
        yield Guarded(server, file, {name: token for name, (token, _) in made.items()})


def test_every_method_of_every_service_that_is_served_has_an_entry() -> None:
    methods = [f"/{service.full_name}/{method.name}" for service in services() for method in service.methods]
    assert len(methods) >= 7
    assert [method for method in methods if needed(method) is None] == []


def test_every_entry_of_the_table_names_a_method_or_a_whole_service() -> None:
    methods = {f"/{service.full_name}/{method.name}" for service in services() for method in service.methods}
    ours = {entry for entry in NEEDED if entry.startswith("/stillwatch.") and not entry.endswith("/")}
    assert ours <= methods


@pytest.mark.parametrize(
    "method", ["", "/", "/stillwatch.v1.ClassifierService/New", "/other.Service/Method", "Classify"]
)
def test_what_has_no_entry_is_not_allowed_to_anybody(method: str) -> None:
    assert needed(method) is None


def failure(client: Client, call: str, *args: Any) -> tuple[str, str]:
    with pytest.raises(ServiceFailed) as raised:
        getattr(client, call)(*args)
    return raised.value.code, raised.value.reason


CALLS: dict[str, tuple[Any, ...]] = {
    "classify": (PROMPT,),
    "classify_batch": ([PROMPT],),
    "add_examples": ([EXAMPLE],),
    "list_examples": (),
    "find_neighbours": (PROMPT,),
}
MAY = {
    "gateway": {"classify", "classify_batch"},
    "reader": {"list_examples", "find_neighbours"},
    "analyst": set(CALLS),
}


@pytest.mark.parametrize("name", MAY)
@pytest.mark.parametrize("call", CALLS)
def test_a_token_may_do_what_its_scopes_say_and_nothing_else(guarded: Guarded, name: str, call: str) -> None:
    with guarded.client(name) as client:
        if call in MAY[name]:
            getattr(client, call)(*CALLS[call])
        else:
            assert failure(client, call, *CALLS[call]) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


@pytest.mark.parametrize("call", CALLS)
def test_without_a_token_nothing_may_be_done(guarded: Guarded, call: str) -> None:
    with guarded.client(None) as client:
        assert failure(client, call, *CALLS[call]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


def test_a_stream_needs_a_token_too(guarded: Guarded) -> None:
    with guarded.client(None) as client, pytest.raises(ServiceFailed) as raised:
        list(client.classify_stream([("a", PROMPT)]))
    assert raised.value.code == "UNAUTHENTICATED"
    with guarded.client("reader") as client, pytest.raises(ServiceFailed) as raised:
        list(client.classify_stream([("a", PROMPT)]))
    assert raised.value.code == "PERMISSION_DENIED"
    with guarded.client("gateway") as client:
        assert [answer.id for answer in client.classify_stream([("a", PROMPT)])] == ["a"]


def raw(address: str, *metadata: tuple[str, str]) -> grpc.StatusCode:
    request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=PROMPT)).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/stillwatch.v1.ClassifierService/Classify")
        try:
            call(request, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            found: Any = error
            code: grpc.StatusCode = found.code()
            return code
    return grpc.StatusCode.OK


def test_a_header_that_is_not_one_bearer_token_is_refused(guarded: Guarded) -> None:
    good = guarded.tokens["gateway"]
    address = guarded.server.address
    assert raw(address, ("authorization", f"Bearer {good}")) == grpc.StatusCode.OK
    assert raw(address, ("authorization", f"bearer {good}")) == grpc.StatusCode.OK
    for values in (
        [good],
        ["Bearer "],
        ["Bearer"],
        [f"Basic {good}"],
        [f"Bearer {good}x"],
        [f"Bearer {good[:-1]}"],
        [f"Bearer  {good}"],
        ["Bearer " + "x" * 5_000],
        [f"Bearer {good}", "Bearer wrong"],
        ["Bearer wrong", f"Bearer {good}"],
    ):
        code = raw(address, *(("authorization", value) for value in values))
        assert code == grpc.StatusCode.UNAUTHENTICATED, values


def test_health_is_open_and_reflection_needs_any_token(guarded: Guarded) -> None:
    def names(*metadata: tuple[str, str]) -> list[str]:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=10)
        return [service.name for service in answer.list_services_response.service]

    with grpc.insecure_channel(guarded.server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            names()
        error: Any = raised.value
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        assert "stillwatch.v1.ClassifierService" in names(("authorization", f"Bearer {guarded.tokens['reader']}"))


def test_the_author_of_an_example_is_the_token_and_not_who_the_caller_says(guarded: Guarded) -> None:
    example = examples_pb2.Example(text="who wrote this", label=examples_pb2.LABEL_BENIGN, author="the boss")
    with guarded.client("analyst") as client:
        assert [stored.author for stored in client.add_examples([example]).examples] == ["analyst"]


def details(error: Any, kind: type[Any]) -> Any:
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    message = kind()
    for detail in status_pb2.Status.FromString(packed).details:
        if detail.Unpack(message):
            return message
    raise AssertionError(f"no {kind.__name__}")


def test_a_caller_over_its_quota_is_told_exactly_when_to_come_back(guarded: Guarded) -> None:
    metadata = (("authorization", f"Bearer {guarded.tokens['slow']}"),)
    request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=PROMPT)).SerializeToString()
    with grpc.insecure_channel(guarded.server.address) as channel:
        call: Any = channel.unary_unary("/stillwatch.v1.ClassifierService/Classify")

        def insist() -> None:
            for _ in range(20):
                call(request, metadata=metadata, timeout=10)

        with pytest.raises(grpc.RpcError) as raised:
            insist()
        error: Any = raised.value
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(error, error_details_pb2.ErrorInfo).reason == "QUOTA_EXCEEDED"
        (violation,) = details(error, error_details_pb2.QuotaFailure).violations
        assert violation.subject == "token:slow"
        delay = details(error, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds()
        assert 0 < delay <= 0.5
        time.sleep(delay)
        call(request, metadata=metadata, timeout=10)
    with guarded.client("gateway") as client:
        client.classify(PROMPT)  # another caller's share is its own


def test_a_stream_over_its_quota_is_read_more_slowly_and_loses_nothing(guarded: Guarded) -> None:
    # 100 tokens a second, a minute's worth at once: the first 6,000 pass, then 4 x 50 take about two seconds.
    prompts = [("large", "word " * 4_700), *((str(number), "word " * 38) for number in range(6))]
    started = time.monotonic()
    with guarded.client("small") as client:
        assert {answer.id for answer in client.classify_stream(prompts)} == {name for name, _ in prompts}
        assert time.monotonic() - started > 1.0
        assert failure(client, "classify", "word " * 4_000) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")


def test_a_token_that_is_taken_out_of_the_file_is_refused_within_seconds(tmp_path: Path) -> None:
    token, lines = new_token("leaving", frozenset({Scope.CLASSIFY}))
    file = tmp_path / "tokens.toml"
    file.write_text(lines)
    with running_server(tmp_path / "home", tokens_file=file) as server:
        with Client(server.address, credentials=Credentials(token=token)) as client:
            client.classify(PROMPT)
            file.write_text("")
            deadline = time.monotonic() + 10

            def insist() -> None:
                while time.monotonic() < deadline:
                    client.classify(PROMPT)

            with pytest.raises(ServiceFailed) as raised:
                insist()
            assert raised.value.code == "UNAUTHENTICATED"
        server.stop()
        assert token not in server.log


@pytest.mark.parametrize(
    ("left", "code"),
    [([], "UNAUTHENTICATED"), ([Scope.EXAMPLES_READ], "PERMISSION_DENIED")],
)
def test_an_open_stream_ends_when_its_token_is_taken_back(tmp_path: Path, left: list[Scope], code: str) -> None:
    token, lines = new_token("leaving", frozenset({Scope.CLASSIFY}))
    file = tmp_path / "tokens.toml"
    file.write_text(lines)

    deadline = time.monotonic() + 20

    def prompts() -> Iterator[tuple[str, str]]:
        number = 0
        while time.monotonic() < deadline:
            yield str(number), PROMPT
            number += 1

    with (
        running_server(tmp_path / "home", tokens_file=file) as server,
        Client(server.address, credentials=Credentials(token=token)) as client,
    ):
        answers = client.classify_stream(prompts())
        assert next(answers).id
        file.write_text(lines.replace('"classify"', f'"{left[0]}"') if left else "")
        with pytest.raises(ServiceFailed) as raised:
            list(answers)
    assert raised.value.code == code


def test_an_error_does_not_quote_the_token(guarded: Guarded) -> None:
    credentials = Credentials(token="sw_marker_8812")
    with Client(guarded.server.address, credentials=credentials) as client, pytest.raises(ServiceFailed) as raised:
        client.classify(PROMPT)
    assert "marker_8812" not in str(raised.value)


def test_without_tokens_on_loopback_everything_is_open_and_beyond_it_only_classifying(tmp_path: Path) -> None:
    with running_server(tmp_path / "here") as server, Client(server.address) as client:
        stored = client.add_examples([EXAMPLE])
        assert stored.examples[0].author == "somebody else"
    with running_server(tmp_path / "there", host="0.0.0.0", allow_plaintext=True) as server:
        with Client(server.address) as client:
            client.classify(PROMPT)
            assert failure(client, "add_examples", [EXAMPLE]) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
            assert failure(client, "list_examples") == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        assert "plaintext_allowed" in server.startup
        assert "no_tokens" in server.startup


def test_a_callers_certificate_is_its_name_where_there_are_no_tokens(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ca")
    certificate, key = ours.issue("server")
    with running_server(
        tmp_path / "home",
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=ours.certificate,
        quota_requests_per_second=1,
    ) as server:
        for name in ("first", "second"):  # each has a share of its own
            cert, secret = ours.issue(name, purpose="client")
            credentials = Credentials(ca=ours.certificate, cert=cert, key=secret)
            with Client(server.address, credentials=credentials) as client:
                (stored,) = client.add_examples(
                    [examples_pb2.Example(text=name, label=examples_pb2.LABEL_BENIGN)]
                ).examples
                assert stored.author == f"CN={name}"
                assert failure(client, "classify", PROMPT) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")


def test_calls_over_the_limit_are_refused_while_health_answers(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", max_concurrent_rpcs=3) as server:

        async def ask() -> None:
            async def endless() -> AsyncIterator[tuple[str, str]]:
                yield "a", PROMPT
                await asyncio.Event().wait()

            async with AsyncClient(server.address) as client, grpc.aio.insecure_channel(server.address) as channel:
                streams: list[Any] = [client.classify_stream(endless()) for _ in range(3)]
                for stream in streams:
                    await anext(stream)
                with pytest.raises(ServiceFailed) as raised:
                    await client.classify(PROMPT)
                assert (raised.value.code, raised.value.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
                health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
                assert health.status == health_pb2.HealthCheckResponse.SERVING
                for stream in streams:
                    await stream.aclose()

        asyncio.run(ask())


def test_metadata_over_the_limit_is_refused_and_the_server_lives(guarded: Guarded) -> None:
    token = ("authorization", f"Bearer {guarded.tokens['gateway']}")
    assert raw(guarded.server.address, token, ("x", "y" * 8_000)) == grpc.StatusCode.OK
    assert raw(guarded.server.address, token, ("x", "y" * 20_000)) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raw(guarded.server.address, token) == grpc.StatusCode.OK


def peak_mebibytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1_024
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no peak here")
def test_a_gzip_bomb_is_refused_without_being_inflated(server: Server) -> None:
    with Client(server.address) as client:
        client.classify(PROMPT)
    before = peak_mebibytes(server.process.pid)
    # 300 MB that travel as some 300 kB, far under the limit of 8 MiB for a message.
    bomb = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text="a" * 300_000_000)).SerializeToString()
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options, compression=grpc.Compression.Gzip) as channel:
        call: Any = channel.unary_unary("/stillwatch.v1.ClassifierService/Classify")
        with pytest.raises(grpc.RpcError) as raised:
            call(bomb, timeout=60)
        error: Any = raised.value
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        small = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=PROMPT)).SerializeToString()
        assert call(small, timeout=10), "compressed messages of allowed size are read"
    assert peak_mebibytes(server.process.pid) - before < 64
