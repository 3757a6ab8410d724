"""Watches every call from outside of all other interceptors: metrics, traces and the access log of one place."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2

from classifier.config import Settings
from classifier.errors import InvalidSetting, MissingExtra
from classifier.scorer import Scorer
from classifier.serve.batcher import MicroBatcher, Outcome
from classifier.serve.calls import Call, enter, leave
from classifier.serve.edge import log_unknown
from classifier.serve.handlers import rewrapped
from classifier.serve.metrics import Endpoint, Metrics
from classifier.serve.scoring import Part
from classifier.serve.status import DETAILS_KEY, reason_of
from classifier.serve.tracing import Tracing, open_tracing, wanted
from classifier.verdict import Scored

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_log = structlog.get_logger("stillwatch.access")


@contextmanager
def open_watch() -> Iterator["Watch"]:
    """Watch, with traces if the OTEL_... variables ask for them; at the end the endpoint closes and spans are sent.

    Traces that cannot be had are a warning: a server without them is better than none.

    Yields:
        The watch.
    """
    tracing = None
    if wanted():
        try:
            tracing = open_tracing()
        except (MissingExtra, InvalidSetting) as error:
            _log.warning("no_traces", reason=str(error))
    watch = Watch(Metrics(), tracing)
    try:
        yield watch
    finally:
        watch.close()


class Watch(grpc.aio.ServerInterceptor):
    """Stands before all other interceptors, so that it sees their refusals, too.

    What it does never changes an answer: an error of its own is logged and goes no further.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing | None = None) -> None:
        """Watch.

        Args:
            metrics: Where calls are counted.
            tracing: Where spans go; None for nowhere.
        """
        self._metrics = metrics
        self._tracing = tracing
        self._endpoint: Endpoint | None = None

    def report(self, scorer: Callable[[], Scorer], batcher: MicroBatcher, settings: Settings) -> str:
        """Report on model, examples and queue, and show all metrics where the settings say.

        Args:
            scorer: Returns the scorer in force.
            batcher: Whose queue is reported.
            settings: Where to listen, if at all.

        Returns:
            The metrics endpoint's host and port; "" when there is none.

        Raises:
            InvalidSetting: When the endpoint's address cannot be listened on.
        """
        self._metrics.report(scorer, batcher, queue_limit=settings.queue_tokens)
        if settings.metrics_port is None:
            return ""
        self._endpoint = Endpoint(self._metrics.registry, settings.metrics_host, settings.metrics_port)
        return self._endpoint.address

    def close(self) -> None:
        """Close the endpoint and send the spans that are left."""
        if self._endpoint is not None:
            self._endpoint.close()
        if self._tracing is not None:
            self._tracing.close()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the handler of one of Stillwatch's own methods."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None:
            self._metrics.handled("unknown", "UNIMPLEMENTED", 0.0)  # the name is the caller's: no label
            return None
        if not method.startswith("/stillwatch."):
            return handler
        metadata: Metadata = handler_call_details.invocation_metadata or ()
        return rewrapped(
            handler,
            lambda behaviour, streaming: self._watched(method, metadata, behaviour, streaming=streaming),
        )

    def batch(self, calls: Sequence[Call | None], scored: Scored | Part) -> None:
        """A batch was scored.

        Args:
            calls: For each of its prompts the call that it belongs to.
            scored: What came out.
        """
        try:
            self._metrics.batch(scored)
            if self._tracing is not None:
                self._tracing.batch([call for call in calls if call is not None], scored, time.time_ns())
        except Exception as error:  # noqa: BLE001  # see the class
            log_unknown(error, "batch")

    def _watched(self, method: str, metadata: Metadata, behaviour: Any, *, streaming: bool) -> Any:
        async def handle(messages: Any, context: Context) -> Any:
            call = Call(method, streaming=streaming, noted=self._noted)
            self._begin(call, metadata)
            token = enter(call)
            code, reason = grpc.StatusCode.UNKNOWN, ""
            try:
                answer = await behaviour(messages, context)
            except grpc.aio.AbortError:
                code, reason = _CODES.get(_number(context), grpc.StatusCode.UNKNOWN), _reason(context)
                raise
            except BaseException:
                # Cancelled from outside: the caller left, or its time is over.
                left = context.time_remaining()
                late = left is not None and left <= 0
                code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
                raise
            else:
                code = _CODES.get(_number(context), grpc.StatusCode.UNKNOWN)
                return answer
            finally:
                leave(token)
                self._end(call, code, reason)

        return handle

    def _begin(self, call: Call, metadata: Metadata) -> None:
        try:
            self._metrics.begun(call.method)
            if self._tracing is not None:
                self._tracing.begin(call, metadata)
            else:
                call.trace_id = _trace_id(metadata)
        except Exception as error:  # noqa: BLE001  # see the class
            log_unknown(error, call.method)

    def _noted(self, call: Call, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, Exception):
                self._metrics.refused(reason_of(outcome))
                return
            self._metrics.answered(outcome)
            if self._tracing is not None:
                self._tracing.answered(call, outcome, time.time_ns())
        except Exception as error:  # noqa: BLE001  # see the class
            log_unknown(error, call.method)

    def _end(self, call: Call, code: grpc.StatusCode, reason: str) -> None:
        seconds = time.perf_counter() - call.started
        try:
            self._metrics.ended(call.method, code.name, seconds)
            if reason:
                self._metrics.refused(reason)
            if self._tracing is not None:
                self._tracing.end(call, code.name, code.value[0], reason)
            level = logging.DEBUG if code is grpc.StatusCode.OK else logging.INFO
            if _log.is_enabled_for(level):
                _log.log(level, "call", **_facts(call, code, reason, seconds))
        except Exception as error:  # noqa: BLE001  # see the class
            log_unknown(error, call.method)


def _facts(call: Call, code: grpc.StatusCode, reason: str, seconds: float) -> dict[str, str | int | float]:
    """What the access log says of a call."""
    facts: dict[str, str | int | float] = {
        "method": call.method,
        "code": code.name,
        "ms": round(1_000 * seconds, 3),
        "tokens": call.tokens,
        "prompts": call.prompts,
    }
    if call.prompts == 1 and call.last is not None:
        facts["decision"] = call.last.verdict.decision.value
    if call.refused:
        facts["refused"] = call.refused
    named = (("reason", reason), ("trace_id", call.trace_id), ("caller", call.caller))
    return facts | {name: value for name, value in named if value}


def _trace_id(metadata: Metadata) -> str:
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            found = _TRACEPARENT.fullmatch(value)
            return found[1] if found else ""
    return ""


def _number(context: Context) -> int:
    """The status code's number; gRPC gives it as a number or as an enum."""
    code: Any = context.code()
    return int(code.value[0]) if isinstance(code, grpc.StatusCode) else int(code or 0)


def _reason(context: Context) -> str:
    """The ErrorInfo reason of a call that was aborted."""
    for key, value in context.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
