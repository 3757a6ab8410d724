"""The shapes of a logged request, but for OpenTelemetry: which rows have them, and what is taken from each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from classifier.batch.fields import Row, first, identity, key_name, moment, text, unpacked
from classifier.batch.reasons import Reason, RowFault
from classifier.conversation import BodyFormat, conversation_text, recognise
from classifier.errors import UnknownConversation

ACCOUNT = (
    "account_id", "account", "accountId", "customer_id", "customer", "org_id", "organization_id", "organization", "tenant_id", "tenant", "user_id", "userId", "user",
)  # fmt: skip
KEY = ("api_key_id", "key_id", "api_key_name", "api_key_hash", "apiKeyId", "key", "api_key")
REQUEST_ID = ("request_id", "requestId", "custom_id", "id", "trace_id", "traceId")
TIME = (
    "time",
    "ts",
    "timestamp",
    "@timestamp",
    "created_at",
    "createdAt",
    "created",
    "start_time",
    "startTime",
    "datetime",
)
IDENTITY = frozenset((*ACCOUNT, *KEY, *REQUEST_ID, *TIME, "metadata", "safety_identifier"))
_PROMPT = ("prompt", "text", "input")
_BODIES = ("request", "body", "request_body", "requestBody", "payload", "params", "json")
"""Where gateways and batch files put a request's body."""
_BODY_FIELDS = frozenset(
    ("messages", "input", "instructions", "prompt", "system", "tools", "functions", "model", *_BODIES)
)
_LITELLM = ("standard_logging_object", "standard_logging_payload")
_NO_MODEL_TEXT = ("embedding", "image", "speech", "transcription", "moderation", "rerank", "file", "batch")
_OBSERVATIONS = frozenset(
    ("GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL")
)
_TRACE_MARKS = ("project_id", "projectId", "htmlPath", "bookmarked", "session_id", "sessionId")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a shape takes from a row.

    Attributes:
        prompt: The text to score.
        account: The account, or "".
        key: A name of the API key, or "".
        request_id: The request's id, or "".
        time: Microseconds since 1970 UTC, or None.
        source: Where a field map looks: the row, or the one span of many in it.
    """

    prompt: str = field(repr=False)
    account: str
    key: str
    request_id: str
    time: int | None
    source: Row = field(repr=False)


def prompt_text(value: object, *, unpack: bool = False) -> str:
    """The text to score of a field that holds a prompt, messages or a whole request body.

    Args:
        value: The field.
        unpack: Whether a text that holds messages or a body as JSON is read as such; else it is the prompt itself.

    Returns:
        The text.

    Raises:
        RowFault: When there is none.
    """
    if value is None:
        raise RowFault(Reason.NO_PROMPT, "the prompt is missing or null: log the request's text")
    literal = text(value)
    if literal is not None:
        inner = unpacked(literal) if unpack else literal
        if inner is literal:
            return literal
        try:
            return prompt_text(inner)
        except RowFault:  # a prompt may be JSON of the caller's own
            return literal
    if isinstance(value, list):
        if value and all(isinstance(part, str) for part in value):
            return joined({"prompt": value}, BodyFormat.OPENAI_COMPLETIONS)
        value = {"messages": value}
    if isinstance(value, Mapping):
        if "messages" in value or "input" in value or "instructions" in value:
            return joined(value, _format(value))
        if (inner := first(value, ("prompt", "text", "content", "query"))) is not None:
            return prompt_text(inner)
    raise RowFault(Reason.WRONG_TYPE, "the prompt must be a string, a list of messages or a request body")


def joined(body: Row, format: BodyFormat | None) -> str:
    """A request body's text, as the service would score it.

    Args:
        body: The body; messages and tools may be text that holds JSON.
        format: Its API; None recognises it.

    Returns:
        The text.

    Raises:
        RowFault: When it has not the API's shape.
    """
    packed = [name for name in ("messages", "tools", "functions") if isinstance(body.get(name), str)]
    if packed:
        body = {**body, **{name: unpacked(body[name]) for name in packed}}
    body = {name: value for name, value in body.items() if value is not None}
    try:
        return conversation_text(body, format)
    except UnknownConversation as error:
        raise RowFault(Reason.WRONG_TYPE, str(error)) from None
    except RecursionError:
        raise RowFault(Reason.NESTED_TOO_DEEP, "a field is nested too deep: flatten it or remove the row") from None


def _format(body: Row) -> BodyFormat | None:
    messages = unpacked(body.get("messages"))
    parts = isinstance(messages, list) and any(
        isinstance(message, Mapping) and "parts" in message for message in messages
    )
    return BodyFormat.OTEL_GENAI if parts else None


def is_plain(row: Row) -> bool:
    """Whether a row names a prompt."""
    return row.get("prompt") is not None or row.get("text") is not None or row.get("input") is not None


def take_plain(row: Row) -> tuple[Taken]:
    """The prompt and the identity beside it."""
    prompt = first(row, _PROMPT)
    if type(prompt) is not str:
        prompt = prompt_text("" if prompt is None and any(row.get(name) == "" for name in _PROMPT) else prompt)
    return (_taken(row, prompt),)


def body_of(row: Row) -> Row | None:
    """A row's request body: the row itself, or what stands in one of the usual fields.

    Args:
        row: The row.

    Returns:
        The body, or None.
    """
    if _is_body(row):
        return row
    for name in _BODIES:
        inner = row.get(name)
        if inner is None:
            continue
        inner = unpacked(inner)
        if isinstance(inner, Mapping):
            if _is_body(inner):
                return inner
            deeper = unpacked(inner.get("body"))
            if isinstance(deeper, Mapping) and _is_body(deeper):
                return deeper
    return None


def _is_body(row: Row) -> bool:
    if row.get("messages") is not None or row.get("instructions") is not None:
        return True
    if (given := row.get("input")) is not None:
        return isinstance(given, list) or row.get("model") is not None
    return row.get("prompt") is not None and row.get("model") is not None


def body_format(body: Row) -> BodyFormat:
    """The API of a request body.

    Args:
        body: What `body_of` gave.

    Returns:
        Its format; of several messages without blocks it cannot be told, and does not matter, which API they belong to.
    """
    body = {name: unpacked(value) if name == "messages" else value for name, value in body.items() if value is not None}
    try:
        return _format(body) or recognise(body)
    except UnknownConversation:
        return BodyFormat.OPENAI_COMPLETIONS


def take_body(row: Row, format: BodyFormat | None = None) -> tuple[Taken]:
    """A request body's text, with the identity beside or in it."""
    body = body_of(row)
    if body is None:
        raise RowFault(Reason.NO_PROMPT, "there is no request body: name another shape, or map the fields")
    prompt = joined(body, format or body_format(body))
    return (_taken(row, prompt, body),)


def _taken(row: Row, prompt: str, body: Row | None = None) -> Taken:
    account = first(row, ACCOUNT)
    if body is not None and account is None:
        account = first(body, ("safety_identifier", "user", "metadata.user_id"))
    return Taken(
        prompt,
        identity(account),
        key_name(first(row, KEY)),
        identity(first(row, REQUEST_ID)),
        moment(first(row, TIME)),
        row,
    )


def is_litellm(row: Row) -> bool:
    """Whether a row is LiteLLM's standard logging payload, alone or in its callback's arguments, or a row of its spend."""
    if row.get("call_type") is not None:
        return row.get("messages") is not None or row.get("metadata") is not None
    return any(row.get(name) is not None for name in _LITELLM)


def take_litellm(row: Row) -> tuple[Taken]:
    """The messages, with the tools among the model's parameters, and LiteLLM's account of the key."""
    inner = unpacked(first(row, _LITELLM))
    payload: Row = inner if isinstance(inner, Mapping) else row
    if any(part in identity(payload.get("call_type")) for part in _NO_MODEL_TEXT):
        raise RowFault(Reason.NOT_A_REQUEST, "the call is no generation of text")
    metadata = unpacked(payload.get("metadata"))
    metadata = metadata if isinstance(metadata, Mapping) else {}
    # The customer is the team where there are teams; "default_user_id" stands for every key without a user.
    account = first(metadata, ("user_api_key_team_id", "user_api_key_user_id", "user_api_key_org_id"))
    account = account or first(payload, ("team_id", "user", "organization_id", "end_user"))
    return (
        Taken(
            prompt=_litellm_prompt(payload),
            account=identity(account),
            key=key_name(first(metadata, ("user_api_key_hash", "user_api_key_alias")) or payload.get("api_key")),
            request_id=identity(first(payload, ("id", "request_id", "litellm_call_id", "trace_id"))),
            time=moment(first(payload, ("startTime", "start_time"))),
            source=payload,
        ),
    )


def _litellm_prompt(payload: Row) -> str:
    messages, parameters = unpacked(payload.get("messages")), unpacked(payload.get("model_parameters"))
    if not messages or messages in ("redacted-by-litellm", [{"role": "user", "content": "redacted-by-litellm"}]):
        request = unpacked(payload.get("proxy_server_request"))
        body = body_of(request) if isinstance(request, Mapping) else None
        if body is None:
            raise RowFault(Reason.NO_PROMPT, "the messages are empty or redacted: turn message logging on")
        return joined(body, body_format(body))
    if isinstance(messages, list) and isinstance(parameters, Mapping):
        beside = {name: parameters[name] for name in ("system", "tools", "functions") if parameters.get(name)}
        messages = {**beside, "messages": messages}
    return prompt_text(messages)


def is_langfuse(row: Row) -> bool:
    """Whether a row is an observation or a trace of a Langfuse export."""
    if "input" not in row:
        return False
    if row.get("traceId") is not None or row.get("trace_id") is not None:
        kind = row.get("type")
        return isinstance(kind, str) and kind in _OBSERVATIONS
    return "output" in row and "timestamp" in row and any(name in row for name in _TRACE_MARKS)


def take_langfuse(row: Row) -> tuple[Taken]:
    """The input of a generation or of a trace."""
    if row.get("type", "GENERATION") != "GENERATION":
        raise RowFault(Reason.NOT_A_REQUEST, "the observation is no generation")
    account = first(row, ("user_id", "userId", "metadata.user_id", "session_id", "sessionId"))
    return (
        Taken(
            prompt=prompt_text(row.get("input"), unpack=True),
            account=identity(account),
            key=key_name(first(row, ("metadata.user_api_key_hash", "metadata.api_key_id"))),
            request_id=identity(row.get("id")),
            time=moment(first(row, ("start_time", "startTime", "timestamp"))),
            source=row,
        ),
    )


PLAIN_FIELDS = IDENTITY | frozenset(_PROMPT)
BODY_FIELDS = IDENTITY | _BODY_FIELDS
LITELLM_FIELDS = IDENTITY | frozenset(
    ("messages", "metadata", "model_parameters", "proxy_server_request", "call_type", "team_id", "end_user", "litellm_call_id", *_LITELLM)
)  # fmt: skip
LANGFUSE_FIELDS = IDENTITY | frozenset(("input", "output", "type", *_TRACE_MARKS))
