"""Traces: the caller's context, the stages, the batch's links, and nothing that a caller chose."""

import queue
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from serving import running_server
from stillwatch.v1 import classifier_pb2, classifier_pb2_grpc

from classifier.client import Client
from classifier.errors import InvalidSetting, MissingExtra, ServiceFailed
from classifier.runtime import Runtime
from classifier.serve.batcher import Answer
from classifier.serve.calls import Call
from classifier.serve.metrics import Metrics
from classifier.serve.tracing import Tracing, open_tracing, wanted
from classifier.serve.watch import Watch

HARVEST = "Come up with 25 diverse task instructions with inputs and outputs. Return them as JSON lines, no commentary."
CLASSIFY = "/stillwatch.v1.ClassifierService/Classify"
MARKER = "zebra-marker-4711"
TRACE, PARENT = "ab" * 16, "cd" * 8
STAGES = ["queue", "tokenise", "encode", "search", "classify"]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps what it gets."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.requests.put(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collector() -> Iterator[tuple[Collector, dict[str, str]]]:
    """A running collector, and the variables that make a server send to it."""
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    grpc_module: Any = trace_service_pb2_grpc  # it brings no types
    grpc_module.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield kept, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    finally:
        server.stop(None).wait()


def spans_of(kept: Collector) -> tuple[list[Any], str]:
    requests = []
    while not kept.requests.empty():
        requests.append(kept.requests.get())
    found = [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    return found, str(requests)


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_servers_spans_reach_a_collector_under_the_callers_trace(tmp_path: Path, runtime: Runtime) -> None:
    with collector() as (kept, variables):
        with running_server(tmp_path / "home", variables) as server:
            with grpc.insecure_channel(server.address) as channel:
                stub: Any = classifier_pb2_grpc.ClassifierServiceStub(channel)
                request = classifier_pb2.ClassifyRequest(prompt=classifier_pb2.Prompt(text=f"{HARVEST} {MARKER}"))
                metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", MARKER))
                stub.Classify(request, timeout=10, metadata=metadata)
            with Client(server.address) as client, pytest.raises(ServiceFailed):
                client.classify("")
            assert server.stop() == 0
        spans, everything = spans_of(kept)
    assert MARKER not in everything
    rpc, refused = (span for span in spans if span.name == CLASSIFY.strip("/"))
    assert (rpc.trace_id.hex(), rpc.parent_span_id.hex()) == (TRACE, PARENT)
    assert refused.trace_id.hex() != TRACE
    facts = attributes(rpc)
    (verdict,) = runtime.scorer.score([f"{HARVEST} {MARKER}"]).verdicts
    assert facts["stillwatch.decision"] == verdict.decision.value
    assert facts["stillwatch.bundle_version"] == runtime.scorer.model.version
    assert facts["stillwatch.index_revision"] == runtime.scorer.snapshot.revision
    assert (facts["stillwatch.batch_size"], facts["stillwatch.prompts"]) == (1, 1)
    assert facts["stillwatch.tokens"] == verdict.inspected.tokens_inspected
    assert (facts["rpc.system"], facts["rpc.method"], facts["rpc.grpc.status_code"]) == ("grpc", "Classify", 0)
    assert attributes(refused)["stillwatch.reason"] == "EMPTY_PROMPT"
    stages = [span for span in spans if span.parent_span_id == rpc.span_id]
    assert [span.name for span in stages] == STAGES
    assert all(span.trace_id == rpc.trace_id for span in stages)
    edges = [stages[0].start_time_unix_nano, *(span.end_time_unix_nano for span in stages)]
    assert edges == sorted(edges)
    assert rpc.start_time_unix_nano <= edges[0]
    assert edges[-1] <= rpc.end_time_unix_nano
    (batch,) = (span for span in spans if span.name == "batch")
    assert [(link.trace_id.hex(), link.span_id) for link in batch.links] == [(TRACE, rpc.span_id)]
    assert attributes(batch)["stillwatch.encode_ms"] > 0
    assert 'string_value: "stillwatch"' in everything


def test_an_exporter_that_nobody_has_is_a_warning_and_the_server_serves(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", {"OTEL_TRACES_EXPORTER": "zipkin"}) as server:
        assert '"no_traces"' in server.startup
        assert "otlp" in server.startup
        with Client(server.address) as client:
            assert client.classify(HARVEST).verdict.extraction_probability > 0


def test_a_collector_that_is_not_there_neither_harms_calls_nor_holds_up_the_end(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as server:
        with Client(server.address) as client:
            client.classify(HARVEST)
        assert server.stop(timeout=15) == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
    ],
)
def test_the_standard_variables_switch_traces_on(environment: dict[str, str], expected: bool) -> None:  # noqa: FBT001
    assert wanted(environment) is expected


def test_without_the_extra_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(MissingExtra, match=r"pip install 'stillwatch\[otel\]'"):
        open_tracing({"OTEL_TRACES_EXPORTER": "otlp"})


def test_an_unknown_protocol_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(InvalidSetting, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        open_tracing({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


@pytest.fixture
def exported() -> tuple[Tracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return Tracing(SimpleSpanProcessor(exporter)), exporter


def begun(tracing: Tracing, *metadata: tuple[str, str | bytes], streaming: bool = False) -> Call:
    call = Call(CLASSIFY, streaming=streaming, noted=lambda call, outcome: None)
    tracing.begin(call, metadata)
    return call


@pytest.mark.parametrize("value", ["", "junk", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "\x00" * 9_000])
def test_a_broken_traceparent_starts_a_new_trace(exported: tuple[Tracing, InMemorySpanExporter], value: str) -> None:
    call = begun(exported[0], ("traceparent", value))
    assert len(call.trace_id) == 32
    assert call.trace_id not in (TRACE, "0" * 32)


def test_a_caller_that_does_not_sample_is_not_traced(exported: tuple[Tracing, InMemorySpanExporter]) -> None:
    tracing, exporter = exported
    call = begun(tracing, ("traceparent", f"00-{TRACE}-{PARENT}-00"))
    tracing.end(call, "OK", 0, "")
    assert call.trace_id == TRACE, "the access log still knows the trace"
    assert exporter.get_finished_spans() == ()


def test_a_long_stream_shows_the_stages_of_its_first_prompts_only(
    exported: tuple[Tracing, InMemorySpanExporter], runtime: Runtime
) -> None:
    tracing, exporter = exported
    scored = runtime.scorer.score([HARVEST])
    answer = Answer(scored.verdicts[0], scored.provenance, scored.times, 1.0, 1)
    call = begun(tracing, streaming=True)
    for _ in range(100):
        call.note(answer)
        tracing.answered(call, answer, call.opened + 10**9)
    tracing.end(call, "INTERNAL", 13, "INTERNAL")
    spans = exporter.get_finished_spans()
    assert len(spans) == 8 * 5 + 1
    assert spans[-1].attributes is not None
    assert spans[-1].attributes["stillwatch.prompts"] == 100
    assert not spans[-1].status.is_ok


def test_a_batch_links_each_of_its_calls_once_and_none_that_is_over(
    exported: tuple[Tracing, InMemorySpanExporter], runtime: Runtime
) -> None:
    tracing, exporter = exported
    watch = Watch(Metrics(), tracing)
    scored = runtime.scorer.score([HARVEST] * 4)
    first, second, over = (begun(tracing) for _ in range(3))
    tracing.end(over, "CANCELLED", 1, "")
    watch.batch([first, first, None, over, second], scored)
    (batch,) = (span for span in exporter.get_finished_spans() if span.name == "batch")
    assert [link.context.span_id for link in batch.links] == [
        call.span.get_span_context().span_id for call in (first, second)
    ]
    exporter.clear()
    watch.batch([None, over], scored)
    assert exporter.get_finished_spans() == ()
