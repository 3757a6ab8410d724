"""OpenTelemetry traces: a span for each RPC with its stages, and one for each batch that links to them.

Off unless the standard OTEL_... variables name an exporter; the otel extra brings the packages. A span holds figures,
names of the bundle and codes: never text, never an id that a caller chose.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from classifier.errors import InvalidSetting, MissingExtra
from classifier.serve.batcher import Answer
from classifier.serve.calls import Call
from classifier.serve.scoring import Part
from classifier.verdict import Scored

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_MOST_STAGED = 8
"""Of a call with several prompts so many show their stages."""
_MOST_LINKS = 128
_FLUSH_MILLISECONDS = 3_000
_PROPAGATED = ("traceparent", "tracestate")
_NANOSECONDS = 1_000_000
_SERVERS_FAULT = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
"""The status codes that make a server's span an error, by OpenTelemetry's conventions for gRPC."""


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the standard variables ask for traces.

    Args:
        environment: The variables.

    Returns:
        True when an exporter or an endpoint is named and the SDK is not disabled.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    return exporter != "none" and bool(exporter or any(environment.get(name) for name in _ENDPOINTS))


def open_tracing(environment: Mapping[str, str] = os.environ) -> "Tracing":
    """Trace to the exporter that the standard variables name.

    Args:
        environment: The variables; the SDK reads the others from the process's own.

    Returns:
        The tracing.

    Raises:
        MissingExtra: When the otel extra is not installed.
        InvalidSetting: When the exporter is none that this server has.
    """
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra("opentelemetry-sdk", "otel") from None
    return Tracing(BatchSpanProcessor(_exporter(environment)))


class Tracing:
    """Makes the spans. Every method is safe to call from any thread."""

    def __init__(self, processor: Any) -> None:
        """Send spans to a processor.

        Args:
            processor: An opentelemetry.sdk.trace.SpanProcessor.
        """
        from opentelemetry import trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from classifier import __version__

        base = Resource({"service.name": "stillwatch", "service.version": __version__})
        # A provider of its own: a library in the same process must not trace what it likes with it.
        self._provider = TracerProvider(resource=base.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("stillwatch", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def begin(self, call: Call, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Open a call's span, as a child of the caller's.

        Args:
            call: The call; gets its span and trace id.
            metadata: The caller's metadata.
        """
        carrier = {key: value for key, value in metadata if key in _PROPAGATED and isinstance(value, str)}
        service, _, method = call.method.strip("/").partition("/")
        call.span = self._tracer.start_span(
            call.method.strip("/"),
            self._propagator.extract(carrier) if carrier else self._context(),
            self._trace.SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
            start_time=call.opened,
        )
        call.trace_id = f"{call.span.get_span_context().trace_id:032x}"

    def answered(self, call: Call, answer: Answer, now: int) -> None:
        """Show one prompt's stages.

        Args:
            call: Whose prompt it is.
            answer: Its answer.
            now: Nanoseconds of the wall clock.
        """
        if call.span is None or not call.span.is_recording() or call.prompts > _MOST_STAGED or not answer.batch_size:
            return
        times = answer.times
        stages = (
            ("queue", answer.queue),
            ("tokenise", times.tokenise),
            ("encode", times.encode),
            ("search", times.search),
            ("classify", times.classify),
        )
        # The prompts of a unary call were queued when it came; of a stream nobody noted when.
        begun = now - int(_NANOSECONDS * sum(took for _, took in stages)) if call.streaming else call.opened
        context = self._trace.set_span_in_context(call.span, self._context())
        for name, took in stages:
            ended = begun + int(_NANOSECONDS * took)
            self._tracer.start_span(name, context, start_time=begun).end(ended)
            begun = ended

    def end(self, call: Call, code: str, number: int, reason: str) -> None:
        """Close a call's span.

        Args:
            call: The call.
            code: The status code's name.
            number: The status code.
            reason: The ErrorInfo reason; "" where there is none.
        """
        span = call.span
        if span is None or not span.is_recording():
            return
        span.set_attributes({"rpc.grpc.status_code": number, "stillwatch.prompts": call.prompts})
        if reason:
            span.set_attribute("stillwatch.reason", reason)
        if call.refused:
            span.set_attribute("stillwatch.prompts_refused", call.refused)
        if call.last is not None:
            span.set_attributes(_origin(call.last.provenance.bundle_version, call.last.provenance.index_revision))
            span.set_attribute("stillwatch.tokens", call.tokens)
            if call.prompts == 1:
                span.set_attribute("stillwatch.decision", call.last.verdict.decision.value)
                span.set_attribute("stillwatch.batch_size", call.last.batch_size)
        if code in _SERVERS_FAULT:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, code))
        span.end()

    def batch(self, calls: Sequence[Call], scored: Scored | Part, now: int) -> None:
        """Show a batch, with links to the calls whose prompts it held.

        Args:
            calls: Those calls; one may stand there more than once.
            scored: What came out.
            now: Nanoseconds of the wall clock.
        """
        spans = {id(call): call.span for call in calls if call.span is not None and call.span.is_recording()}
        if not spans:
            return
        links = [self._trace.Link(span.get_span_context()) for span in list(spans.values())[:_MOST_LINKS]]
        times = scored.times
        tokens = sum(verdict.inspected.tokens_inspected for verdict in scored.verdicts)
        figures = {
            "stillwatch.batch_size": len(scored.verdicts),
            "stillwatch.tokens": tokens,
            "stillwatch.tokenise_ms": times.tokenise,
            "stillwatch.encode_ms": times.encode,
            "stillwatch.search_ms": times.search,
            "stillwatch.classify_ms": times.classify,
            **_origin(scored.provenance.bundle_version, scored.provenance.index_revision),
        }
        took = int(_NANOSECONDS * (times.tokenise + times.encode + times.search + times.classify))
        span = self._tracer.start_span("batch", self._context(), attributes=figures, links=links, start_time=now - took)
        span.end(now)

    def close(self) -> None:
        """Send what is left, within some seconds."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()

    @staticmethod
    def _context() -> Any:
        """An empty context: what else runs in this process must not become a parent."""
        from opentelemetry.context import Context

        return Context()


def _origin(version: str, revision: int) -> dict[str, str | int]:
    return {"stillwatch.bundle_version": version, "stillwatch.index_revision": revision}


def _exporter(environment: Mapping[str, str]) -> Any:
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    protocol = (
        environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "grpc"
    )
    if name == "console":
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    if name != "otlp":
        raise InvalidSetting(f"the exporter of OTEL_TRACES_EXPORTER={name} is unknown: use otlp, console or none")
    if protocol != "grpc":
        raise InvalidSetting(f"the protocol {protocol} of OTEL_EXPORTER_OTLP_PROTOCOL is not there: use grpc")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise MissingExtra("opentelemetry-exporter-otlp-proto-grpc", "otel") from None
    return OTLPSpanExporter()
