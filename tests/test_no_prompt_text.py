"""A marker goes along every path into the service and stands in no log, error or status."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serving import Server, running_server
from stillwatch.v1 import classifier_pb2, examples_pb2, review_pb2
from test_cli import borrowed, run

from classifier.client import Client
from classifier.errors import ServiceFailed
from classifier.tokens import Scope, new_token

MARKER = "quagga-tungsten-5531"
LONG = f"{MARKER} " * 9_000
BROKEN = f"{MARKER} ".encode() + b"\xff\xfe"
CLASSIFY = "/stillwatch.v1.ClassifierService/Classify"
BODY = {"messages": [{"role": "user", "content": MARKER}]}


def example(**fields: Any) -> examples_pb2.Example:
    return examples_pb2.Example(**{"text": MARKER, "label": examples_pb2.LABEL_BENIGN, **fields})


def raw(client: Client, message: bytes, method: str = CLASSIFY) -> None:
    """Send bytes that a client of ours would not send."""
    try:
        call: Any = client._channel.unary_unary(method)
        call(message, timeout=20)
    except grpc.RpcError as error:
        found: Any = error
        raise ServiceFailed(f"{found.details()} {found.trailing_metadata()} {found.debug_error_string()}") from None


def zipped(client: Any) -> None:
    with grpc.insecure_channel(client.address, compression=grpc.Compression.Gzip) as channel:
        request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=LONG)).SerializeToString()
        call: Any = channel.unary_unary(CLASSIFY)
        call(request, timeout=20)


def cancelled(client: Client) -> None:
    answers = client.classify_stream((str(number), f"{MARKER} {number}") for number in range(50))
    next(answers)


PATHS: dict[str, Callable[[Any], object]] = {
    "classify": lambda client: client.classify(MARKER),
    "a body": lambda client: client.classify(json.dumps(BODY).encode()),
    "over-long": lambda client: client.classify(LONG),
    "over-long message": lambda client: client.classify(LONG * 60),
    "disguised": lambda client: client.classify(" ".join(MARKER * 9)),
    "unknown body": lambda client: client.classify(json.dumps({MARKER: MARKER}).encode()),
    "body that is no JSON": lambda client: client.classify(f'{{"messages": "{MARKER}'.encode()),
    "odd body": lambda client: client.classify(json.dumps({"messages": [{"role": 1, "content": MARKER}]}).encode()),
    "body in broken UTF-8": lambda client: client.classify(BROKEN),
    "surrogate in a body": lambda client: client.classify(json.dumps({"input": MARKER + "\ud800"}).encode()),
    "batch": lambda client: client.classify_batch([MARKER, "", LONG, BROKEN, json.dumps({MARKER: 1}).encode()]),
    "stream": lambda client: list(client.classify_stream([("a", MARKER), ("b", LONG), ("", MARKER), ("c", BROKEN)])),
    "cancelled stream": cancelled,
    "broken UTF-8": lambda client: raw(
        client, b"\x0a" + bytes([len(BROKEN) + 2]) + b"\x0a" + bytes([len(BROKEN)]) + BROKEN
    ),
    "no protobuf": lambda client: raw(client, b"\xff\xff" + MARKER.encode()),
    "no protobuf for examples": lambda client: raw(
        client, MARKER.encode(), "/stillwatch.v1.ExampleService/AddExamples"
    ),
    "unknown method": lambda client: raw(client, MARKER.encode(), "/stillwatch.v1.ClassifierService/Nothing"),
    "gzip": zipped,
    "add": lambda client: client.add_examples([example()]),
    "add with other labels": lambda client: client.add_examples([example(label=examples_pb2.LABEL_EXTRACTION)]),
    "add over-long": lambda client: client.add_examples([example(text=LONG)]),
    "add odd": lambda client: client.add_examples([example(capabilities=[MARKER] * 50, technique=MARKER)]),
    "add with a long note": lambda client: client.add_examples([example(text="other", note=LONG)]),
    "get": lambda client: client.get_example(MARKER),
    "list": lambda client: client.list_examples(5, MARKER),
    "accept": lambda client: client.accept_examples([MARKER]),
    "relabel": lambda client: client.relabel_examples(
        [examples_pb2.Relabel(id=MARKER, label=examples_pb2.LABEL_BENIGN)]
    ),
    "supersede": lambda client: client.supersede_example("ex-none", example(text=f"{MARKER} again")),
    "revoke a source": lambda client: client.revoke_source(MARKER, reason=MARKER),
    "impact": lambda client: client.preview_impact([example(), example(text=f"{MARKER} again")]),
    "decide": lambda client: client.record_decisions([review_pb2.ReviewDecision(content_hash=MARKER, reason=MARKER)]),
    "neighbours": lambda client: client.find_neighbours(MARKER),
    "neighbours over-long": lambda client: client.find_neighbours(LONG),
}
REFUSED = {
    "over-long", "over-long message", "unknown body", "body that is no JSON", "odd body", "body in broken UTF-8", "surrogate in a body",
    "broken UTF-8", "no protobuf", "no protobuf for examples", "unknown method", "gzip", "add with other labels", "add over-long",
    "add odd", "add with a long note", "get", "list", "accept", "relabel", "supersede", "decide", "neighbours over-long",
}  # fmt: skip


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs all that it and gRPC can log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRPC_VERBOSITY", "debug")
        patch.setenv("PYTHONASYNCIODEBUG", "1")
        with running_server(tmp_path_factory.mktemp("loud") / "home") as server:
            yield server


def taken(client: Client, path: str) -> str:
    """What the error of a path says; "" when there was none. A verdict and what was asked for are no leak."""
    try:
        answer = PATHS[path](client)
    except ServiceFailed as error:
        return f"refused: {error}"
    except grpc.RpcError as error:
        found: Any = error
        return f"refused: {found.details()} {found.trailing_metadata()} {found.debug_error_string()}"
    parts: Any = getattr(answer, "results", answer if isinstance(answer, list) else [])
    return " ".join(str(part.status) for part in parts if part.WhichOneof("outcome") == "status")


def test_no_path_leads_to_a_log_an_error_or_a_status(loud: Server) -> None:
    with Client(loud.address, timeout=120) as client:
        client.address = loud.address  # type: ignore[attr-defined]
        said = {path: taken(client, path) for path in PATHS}
        assert {path for path, words in said.items() if MARKER in words} == set()
        assert {path for path, words in said.items() if words.startswith("refused")} == REFUSED
        assert said["batch"]
        assert said["stream"]
    loud.stop()
    assert "draining" in loud.log, "there is a log to look into"
    assert MARKER not in loud.startup + loud.log
    assert MARKER.partition("-")[0] not in loud.startup + loud.log


def test_neither_do_refused_callers_and_their_tokens(tmp_path: Path) -> None:
    token, lines = new_token("slow", frozenset({Scope.CLASSIFY}), tokens_per_minute=10)
    file = tmp_path / "tokens.toml"
    file.write_text(lines)
    with running_server(tmp_path / "home", tokens_file=file) as server:
        from classifier.connect import Credentials

        for shown in (None, "sw_" + MARKER, token):
            with Client(server.address, credentials=Credentials(token=shown)) as client:
                for call in (
                    lambda open_client: [open_client.classify(MARKER) for _ in range(9)],
                    lambda open_client: open_client.add_examples([example()]),
                ):
                    with pytest.raises(ServiceFailed) as raised:
                        call(client)
                    assert MARKER not in str(raised.value)
                    assert token not in str(raised.value)
        server.stop()
        assert MARKER not in server.log
        assert token not in server.log


def test_neither_do_errors_of_the_command_line(tmp_path: Path) -> None:
    home = borrowed(tmp_path / "home")
    rows = home / "rows.jsonl"
    rows.write_text(f'{{"text": "{MARKER}"}}\n{{"text": "{MARKER}", "label"')
    for arguments, stdin in (
        (["score"], LONG.encode()),
        (["score"], BROKEN),
        (["score", "--jsonl"], f'{{"text": "{MARKER}'.encode()),
        (["examples", "import", str(rows)], b""),
        (["examples", "add", MARKER, "--label", "neither"], b""),
        (["score", MARKER, "--server", "127.0.0.1:1"], b""),
    ):
        ran = run(home, *arguments, stdin=stdin)
        assert ran.code != 0, arguments[0]
        assert ran.err
        assert MARKER not in ran.out + ran.err
