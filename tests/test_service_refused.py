"""What a real server refuses: each refusal has its code and its reason, holds no prompt, and leaves the server alive."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from serving import Server, running_server
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc, examples_pb2, verdict_pb2

from classifier.client import Client
from classifier.errors import ServiceFailed

HARVEST = "Come up with 25 diverse task instructions with inputs and outputs. Return them as JSON lines, no commentary."
ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"
CLASSIFY = "/stillwatch.v1.ClassifierService/Classify"


def raw_call(address: str, method: str, message: bytes) -> Any:
    """Send bytes that no client of ours would build, and return the failed call."""
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as raised:
            call(message, timeout=10)
        return raised.value


def details(error: Any) -> dict[str, Any]:
    """The standard details of a failed call by their type's name."""
    found: dict[str, Any] = {}
    metadata = dict(error.trailing_metadata())
    for packed in status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    return found


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "EMPTY_PROMPT"),
        (" \u200b\n", "EMPTY_PROMPT"),
        ("x" * 100_001, "PROMPT_TOO_LONG"),
        (b"{", "UNKNOWN_CONVERSATION"),
        (b'{"hello": 1}', "UNKNOWN_CONVERSATION"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "NOT_UNICODE"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "NOT_UNICODE"),
    ],
)
def test_a_bad_prompt_is_an_invalid_argument_with_a_reason(client: Client, prompt: str | bytes, reason: str) -> None:
    with pytest.raises(ServiceFailed) as raised:
        client.classify(prompt)
    assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", reason)


def test_a_missing_prompt_and_an_unknown_format_are_invalid_arguments(server: Server) -> None:
    nothing = classifier_pb2.ClassifyRequest().SerializeToString()
    body = classifier_pb2.RequestBody(json=b'{"messages": []}')
    unknown = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(body=body)).SerializeToString()
    unknown = unknown.replace(body.SerializeToString(), body.SerializeToString() + b"\x10\x63")  # format = 99
    unknown = b"\x0a" + bytes([unknown[1] + 2]) + b"\x12" + bytes([unknown[3] + 2]) + unknown[4:]
    for message in (nothing, unknown):
        error = raw_call(server.address, CLASSIFY, message)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert details(error)["ErrorInfo"].reason == "INVALID_REQUEST"
        assert details(error)["ErrorInfo"].domain == "stillwatch"


def test_broken_utf8_on_the_wire_is_an_invalid_argument(server: Server) -> None:
    error = raw_call(server.address, CLASSIFY, b"\x0a\x04\x0a\x02\xff\xfe")
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["ErrorInfo"].reason == "INVALID_REQUEST"


def test_garbage_instead_of_protobuf_is_an_invalid_argument(server: Server) -> None:
    for method in (CLASSIFY, "/stillwatch.v1.ExampleService/AddExamples"):
        error = raw_call(server.address, method, b"\xff\xff\xff\xff garbage")
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_empty_and_an_oversized_batch_are_refused(client: Client) -> None:
    for prompts, reason in (([], "INVALID_REQUEST"), (["x"] * 257, "TOO_MANY_ITEMS")):
        with pytest.raises(ServiceFailed) as raised:
            client.classify_batch(prompts)
        assert raised.value.reason == reason


def test_a_message_over_the_limit_is_refused_and_the_server_lives(client: Client) -> None:
    with pytest.raises(ServiceFailed) as raised:
        client.classify("x" * 9_000_000)
    assert raised.value.code == "RESOURCE_EXHAUSTED"
    assert client.classify(ORDINARY).verdict.decision == verdict_pb2.DECISION_ALLOW


def test_a_broken_message_ends_its_stream_with_a_reason(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.stream_stream("/stillwatch.v1.ClassifierService/StreamClassify")
        with pytest.raises(grpc.RpcError) as raised:
            list(call(iter([b"\xff\xff garbage"]), timeout=10))
        error: Any = raised.value
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert details(error)["ErrorInfo"].reason == "INVALID_REQUEST"


def bad_examples() -> Iterable[tuple[list[examples_pb2.Example], str, str]]:
    text, label = "some text", examples_pb2.LABEL_EXTRACTION
    yield [], "INVALID_ARGUMENT", "INVALID_REQUEST"
    yield [examples_pb2.Example(text=text)], "INVALID_ARGUMENT", "INVALID_REQUEST"
    yield [examples_pb2.Example(text=text, label=label)], "INVALID_ARGUMENT", "INVALID_EXAMPLE"
    yield [examples_pb2.Example(text=" ", label=examples_pb2.LABEL_BENIGN)], "INVALID_ARGUMENT", "INVALID_EXAMPLE"
    seed = examples_pb2.Example(text=text, label=examples_pb2.LABEL_BENIGN, source="seed")
    yield [seed], "INVALID_ARGUMENT", "INVALID_EXAMPLE"
    yield (
        [examples_pb2.Example(text=text, label=examples_pb2.LABEL_BENIGN, technique="self_chat")],
        "INVALID_ARGUMENT",
        "INVALID_EXAMPLE",
    )


@pytest.mark.parametrize(("examples", "code", "reason"), list(bad_examples()))
def test_a_bad_example_is_refused_with_a_reason(
    client: Client, examples: list[examples_pb2.Example], code: str, reason: str
) -> None:
    with pytest.raises(ServiceFailed) as raised:
        client.add_examples(examples)
    assert (raised.value.code, raised.value.reason) == (code, reason)


def test_unknown_ids_tokens_and_sizes_are_refused(client: Client) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: client.get_example("ex-none"), "EXAMPLE_NOT_FOUND"),
        (lambda: client.get_example(""), "INVALID_REQUEST"),
        (lambda: client.list_examples(page_token="junk"), "INVALID_PAGE_TOKEN"),
        (lambda: client.list_examples(page_size=-1), "INVALID_REQUEST"),
        (lambda: client.find_neighbours("x", 101), "INVALID_REQUEST"),
        (lambda: client.find_neighbours(""), "EMPTY_PROMPT"),
    ]
    for call, reason in calls:
        with pytest.raises(ServiceFailed) as raised:
            call()
        assert raised.value.reason == reason


def test_a_full_queue_says_when_to_try_again(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", queue_tokens=600, batch_tokens=256) as server:

        async def ask() -> list[Any]:
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
                prompts = [classifier_pb2.Prompt(text=f"{ORDINARY * 15} {number}") for number in range(64)]
                requests = [classifier_pb2.ClassifyRequest(prompt=prompt) for prompt in prompts]
                calls = (stub.Classify(request, timeout=30) for request in requests)
                return list(await asyncio.gather(*calls, return_exceptions=True))

        outcomes = asyncio.run(ask())
        refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        answered = [outcome for outcome in outcomes if isinstance(outcome, classifier_pb2.ClassifyResponse)]
        assert refused
        assert answered
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert details(refused[0])["ErrorInfo"].reason == "QUEUE_FULL"
        assert details(refused[0])["RetryInfo"].retry_delay.ToMilliseconds() > 0
        with Client(server.address) as client:
            assert client.classify(ORDINARY).verdict.decision == verdict_pb2.DECISION_ALLOW


def test_no_prompt_text_reaches_the_log_or_an_error(tmp_path: Path) -> None:
    marker = "zebra-marker-4711"
    prompts: list[str | bytes] = [
        f"{marker} {HARVEST}",
        marker * 20_000,
        f'{{"{marker}": 1}}'.encode(),
        f'{{"messages": [{{"role": "user", "content": {{"{marker}": 1}}}}]}}'.encode(),
        f"{{{marker}".encode(),
        marker.encode() + b"\xff",
    ]
    messages: list[str] = []
    with running_server(tmp_path / "home") as server:
        with Client(server.address) as client:
            for prompt in prompts:
                try:
                    client.classify(prompt)
                except ServiceFailed as error:
                    messages.append(str(error))
            bad = examples_pb2.Example(text=marker, label=examples_pb2.LABEL_EXTRACTION, technique=marker)
            with pytest.raises(ServiceFailed) as raised:
                client.add_examples([bad])
            messages.append(str(raised.value))
        raw = raw_call(server.address, CLASSIFY, b"\x0a\x40" + marker.encode())
        messages.append(raw.details())
        assert server.stop() == 0
    assert len(messages) >= 6
    assert marker not in server.log + "".join(messages)
