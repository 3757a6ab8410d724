"""OpenTelemetry GenAI: spans and events of the current conventions, of the older ones, and of OpenLLMetry."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from classifier.batch.fields import Row, first, found, identity, moment, unpacked
from classifier.batch.payloads import Taken, joined, prompt_text
from classifier.batch.reasons import Reason, RowFault
from classifier.conversation import BodyFormat

_RESOURCES = ("resourceSpans", "resource_spans", "resourceLogs", "resource_logs")
_SCOPES = ("scopeSpans", "scope_spans", "scopeLogs", "scope_logs")
_RECORDS = ("spans", "logRecords", "log_records")
_ATTRIBUTES = ("attributes", "SpanAttributes", "LogAttributes")
_EVENT_NAMES = ("eventName", "event_name", "EventName", "event.name", "name")
_MARKS = frozenset((*_RESOURCES, *_SCOPES, *_ATTRIBUTES, *_EVENT_NAMES))
_BODY = ("body", "Body")
_REQUESTS = ("chat", "text_completion", "generate_content")
_MESSAGES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
"""The events until 1.36, one for each message, and whose words they hold."""
_INDEXED = re.compile(r"gen_ai\.prompt\.(\d{1,6})\.(role|content)")
_ACCOUNT = (
    "enduser.id", "user.id", "enduser.pseudo.id", "langfuse.user.id", "traceloop.association.properties.user_id", "gen_ai.conversation.id",
)  # fmt: skip
_REQUEST_ID = ("gen_ai.response.id", "spanId", "span_id", "SpanId", "context.span_id")
_TIME = (
    "startTimeUnixNano", "start_time_unix_nano", "timeUnixNano", "time_unix_nano", "observedTimeUnixNano", "start_time", "timestamp", "Timestamp",
)  # fmt: skip
_CONTENT_OFF = "the span holds no messages: set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT, or read the events' log instead"
FIELDS = frozenset(
    (*_RESOURCES, *_SCOPES, *_RECORDS, *_ATTRIBUTES, *_EVENT_NAMES, *_BODY, *_REQUEST_ID, *_TIME, "events", "context", "traceId", "trace_id", "TraceId", "ResourceAttributes", "resource", "gen_ai")
)  # fmt: skip


@dataclass(slots=True)
class _Exchange:
    """What is recorded of one request: a span, or the events of one."""

    facts: dict[str, object]
    messages: list[object] = field(default_factory=list)


def is_telemetry(row: Row) -> bool:
    """Whether a row is a line of OTLP, or one span or log record with GenAI's names."""
    if _MARKS.isdisjoint(row):  # of nearly all other rows this is all that is asked
        return "gen_ai" in "\n".join(row) and any(name.startswith("gen_ai") for name in row)
    if any(row.get(name) is not None for name in (*_RESOURCES, *_SCOPES)):
        return True
    if any(isinstance(name := row.get(key), str) and name.startswith("gen_ai.") for key in _EVENT_NAMES):
        return True
    return any(name.startswith("gen_ai") for name in row) or any(_has_genai(row.get(name)) for name in _ATTRIBUTES)


def _has_genai(attributes: object) -> bool:
    attributes = unpacked(attributes)
    if isinstance(attributes, list):
        attributes = [one.get("key") for one in attributes if isinstance(one, Mapping)]
    return isinstance(attributes, Mapping | list) and any(str(name).startswith("gen_ai") for name in attributes)


def take_telemetry(row: Row) -> list[Taken | RowFault]:
    """Every request that a row records.

    Args:
        row: A line of OTLP, or one span or log record.

    Returns:
        At least one; spans and events in an OTLP line that are not of GenAI are passed over.

    Raises:
        RowFault: When the row records none.
    """
    exchanges: dict[object, _Exchange] = {}
    for number, facts in enumerate(_records(row)):
        event = next(
            (name for key in _EVENT_NAMES if isinstance(name := facts.get(key), str) and name in _MESSAGES), None
        )
        if event is None:
            if any(name.startswith("gen_ai") for name in facts):
                exchanges[number] = _Exchange(facts)
            continue
        # The events of one request share its span.
        span = first(facts, ("spanId", "span_id", "SpanId")) or number
        exchange = exchanges.setdefault(
            (identity(first(facts, ("traceId", "trace_id", "TraceId"))), span), _Exchange(facts)
        )
        exchange.messages.append({"role": _MESSAGES[event], **_message(facts)})
    found = [_outcome(exchange) for exchange in exchanges.values()]
    if not found:
        raise RowFault(Reason.NOT_A_REQUEST, "the row holds no span or event of GenAI")
    return found


def _outcome(exchange: _Exchange) -> Taken | RowFault:
    facts = exchange.facts
    try:
        prompt = _of_events(exchange.messages) if exchange.messages else _of_attributes(facts)
        return Taken(
            prompt, identity(first(facts, _ACCOUNT)), "", identity(first(facts, _REQUEST_ID)), _time(facts), facts
        )
    except RowFault as fault:
        return fault


def _time(facts: Row) -> int | None:
    return next((time for name in _TIME if (time := moment(first(facts, (name,)))) not in (None, 0)), None)


def _of_events(messages: list[object]) -> str:
    if not any(isinstance(message, Mapping) and message["role"] in ("user", "tool") for message in messages):
        raise RowFault(Reason.NOT_A_REQUEST, "the event is no user's message")
    return joined({"messages": messages}, BodyFormat.OTEL_GENAI)


def _of_attributes(facts: Row) -> str:
    operation = facts.get("gen_ai.operation.name")
    messages = unpacked(facts.get("gen_ai.input.messages"))
    system = unpacked(facts.get("gen_ai.system_instructions"))
    if operation is not None and operation not in _REQUESTS:
        raise RowFault(Reason.NOT_A_REQUEST, "the operation is no inference: its model's own span is scored")
    if messages is not None or system is not None:
        tools = unpacked(facts.get("gen_ai.tool.definitions"))
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return joined({"messages": messages or [], "system": system, "tools": tools}, BodyFormat.OTEL_GENAI)
    if (
        prompt := facts.get("gen_ai.prompt")
    ) is not None:  # an attribute of the span or its event in the oldest conventions
        return prompt_text(prompt, unpack=True)
    if indexed := _indexed(facts):
        return joined({"messages": indexed}, None)
    if any(str(facts.get(key, "")).startswith("gen_ai.") for key in _EVENT_NAMES):
        raise RowFault(Reason.NOT_A_REQUEST, "the event holds no request")
    raise RowFault(Reason.NO_PROMPT, _CONTENT_OFF)


def _indexed(facts: Row) -> list[Mapping[str, object]]:
    """OpenLLMetry's gen_ai.prompt.0.role, gen_ai.prompt.0.content and so on, in their order."""
    messages: dict[int, dict[str, object]] = {}
    for name, value in facts.items():
        if match := _INDEXED.fullmatch(name):
            content = unpacked(value) if match[2] == "content" else value
            messages.setdefault(int(match[1]), {"role": "user"})[match[2]] = content
    return [messages[index] for index in sorted(messages)]


def _message(facts: Row) -> Row:
    """An older event's message: its body, or, from SDKs without bodies, its attributes."""
    body = unpacked(_value(first(facts, _BODY)))
    if isinstance(body, str):
        return {"content": body}
    source = body if isinstance(body, Mapping) else facts
    kept = {name: source[name] for name in ("content", "tool_calls") if source.get(name) is not None}
    return kept or {"content": facts.get("gen_ai.event.content")}


def _records(row: Row) -> Iterator[dict[str, object]]:
    """Each span or log record as one mapping: its own fields, its attributes, its resource's, its prompt events'."""
    if not any(row.get(name) is not None for name in (*_RESOURCES, *_SCOPES)):
        yield _facts(row, {})
        return
    resources = _listed(row, _RESOURCES) or [row]
    for resource in resources:
        shared = _attributes(found(resource, "resource.attributes"))
        for scope in _listed(resource, _SCOPES):
            for record in _listed(scope, _RECORDS):
                yield _facts(record, shared)


def _facts(record: Row, shared: Mapping[str, object]) -> dict[str, object]:
    facts = {**shared, **_attributes(unpacked(record.get("ResourceAttributes")))}
    facts.update((name, value) for name, value in record.items() if name not in _ATTRIBUTES and value is not None)
    for name in (*_ATTRIBUTES, "gen_ai"):  # search engines write the dots as objects
        facts.update(
            _attributes({"gen_ai": value} if name == "gen_ai" else value)
            if (value := unpacked(record.get(name)))
            else {}
        )
    for event in _listed(record, ("events",)):
        if event.get("name") in ("gen_ai.content.prompt", "gen_ai.client.inference.operation.details"):
            facts.update(_attributes(event.get("attributes")))
    return facts


def _attributes(attributes: object) -> dict[str, object]:
    """Attributes as one flat mapping, from OTLP's list of keys and values or from a mapping, nested or not."""
    if isinstance(attributes, list):
        pairs = (one for one in attributes if isinstance(one, Mapping) and isinstance(one.get("key"), str))
        return {str(one["key"]): _value(one.get("value")) for one in pairs}
    return dict(_flat(attributes, "")) if isinstance(attributes, Mapping) else {}


def _flat(attributes: Row, prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in attributes.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and len(path) < 64:
            yield from _flat(value, f"{path}.")
        yield path, value


def _value(value: object) -> object:
    """What an AnyValue of OTLP holds; anything else as it is."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    if kind in ("stringValue", "intValue", "doubleValue", "boolValue", "bytesValue"):
        return inner
    if kind == "arrayValue":
        return [_value(one) for one in _values(inner)]
    if kind == "kvlistValue":
        return _attributes_of(_values(inner))
    return value


def _attributes_of(pairs: Iterable[object]) -> dict[str, object]:
    return {str(one.get("key")): _value(one.get("value")) for one in pairs if isinstance(one, Mapping)}


def _values(inner: object) -> list[object]:
    values = inner.get("values") if isinstance(inner, Mapping) else None
    return values if isinstance(values, list) else []


def _listed(holder: object, names: Iterable[str]) -> list[Row]:
    """The objects of the first list that is there."""
    if not isinstance(holder, Mapping):
        return []
    values = next((value for name in names if isinstance(value := unpacked(holder.get(name)), list)), [])
    return [value for value in values if isinstance(value, Mapping)]
