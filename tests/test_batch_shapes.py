"""What each shape of a log gives: prompt, identity and time; and what is said of rows that have none."""

import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.batch.fields import found, identity, key_name, moment
from classifier.batch.payloads import Taken
from classifier.batch.reasons import Reason, RowFault
from classifier.batch.shapes import NAMES, Shape
from classifier.conversation import BodyFormat
from classifier.errors import DataRejected, InvalidSetting

AUTO = Shape.named("auto")
MARK = "XSECRETX"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
CHAT_TEXT = "Be brief.\n\nHello"
PARTS = [
    {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "1", "name": "weather", "arguments": {"city": "Paris"}}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "rainy"}]},
    {"role": "user", "parts": [{"type": "blob", "mime_type": "image/png", "content": "PICTURE"}]},
]
PARTS_TEXT = 'Be brief.\n\nuser: Weather in Paris?\n\nassistant: weather({"city": "Paris"})\n\ntool: rainy'
NOON = 1_767_614_400_000_000
"""2026-01-05T12:00:00Z in microseconds."""

LITELLM = {
    "id": "chatcmpl-1", "trace_id": "t", "call_type": "acompletion", "status": "success", "startTime": NOON / 1e6, "endTime": NOON / 1e6 + 1,
    "model": "m", "metadata": {"user_api_key_hash": "88dc28d0", "user_api_key_team_id": "team-1", "user_api_key_user_id": "default_user_id"},
    "end_user": "", "messages": CHAT, "response": {"choices": []},
    "model_parameters": {"tools": [{"type": "function", "function": {"name": "f", "description": "does it"}}]},
}  # fmt: skip
OBSERVATION = {
    "id": "obs-1", "trace_id": "t-1", "type": "GENERATION", "start_time": "2026-01-05 12:00:00.000000", "user_id": "u-1", "input": json.dumps(CHAT),
    "output": "x", "project_id": "p",
}  # fmt: skip


def _otlp(attributes: dict[str, object], **span: object) -> dict[str, object]:
    def value(given: object) -> dict[str, object]:
        if isinstance(given, list):
            return {"arrayValue": {"values": [value(one) for one in given]}}
        if isinstance(given, dict):
            return {"kvlistValue": {"values": [{"key": key, "value": value(one)} for key, one in given.items()]}}
        return {"stringValue": given}

    return {**span, "attributes": [{"key": key, "value": value(one)} for key, one in attributes.items()]}


def _spans(*spans: dict[str, object]) -> dict[str, object]:
    resource = _otlp({"enduser.id": "acme"})
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def _one(row: Mapping[str, object], shape: Shape = AUTO) -> Taken:
    (taken,) = shape.take(row)
    assert isinstance(taken, Taken)
    return taken


def _fault(row: dict[str, object], shape: Shape = AUTO) -> Reason:
    with pytest.raises(RowFault) as caught:
        shape.take(row)
    assert MARK not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    ("name", "row", "prompt"),
    [
        ("plain", {"prompt": "Hello", "ts": 1}, "Hello"),
        ("plain", {"text": "Hello"}, "Hello"),
        ("plain", {"input": "Hello"}, "Hello"),
        ("plain", {"prompt": ["One", "Two"]}, "One\n\nTwo"),
        ("openai-chat", {"model": "m", "messages": CHAT}, CHAT_TEXT),
        ("openai-chat", {"messages": json.dumps(CHAT)}, CHAT_TEXT),
        ("openai-chat", {"custom_id": "a", "method": "POST", "body": {"model": "m", "messages": CHAT}}, CHAT_TEXT),
        ("openai-chat", {"request": {"method": "POST", "body": json.dumps({"messages": CHAT})}}, CHAT_TEXT),
        ("openai-completions", {"model": "m", "prompt": "Hello"}, "Hello"),
        ("openai-responses", {"model": "m", "input": "Hello", "instructions": "Be brief."}, CHAT_TEXT),
        ("openai-responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, "Hi"),
        ("anthropic-messages", {"system": "Be brief.", "messages": CHAT[1:]}, CHAT_TEXT),
        ("anthropic-messages", {"custom_id": "a", "params": {"system": "Be brief.", "messages": CHAT[1:]}}, CHAT_TEXT),
        ("litellm", LITELLM, "Be brief.\n\nf: does it\n\nHello"),
        ("litellm", {"standard_logging_object": LITELLM}, "Be brief.\n\nf: does it\n\nHello"),
        ("litellm", {**LITELLM, "messages": "Hello"}, "Hello"),
        ("langfuse", OBSERVATION, CHAT_TEXT),
        ("langfuse", {**OBSERVATION, "input": {"messages": CHAT}}, CHAT_TEXT),
        ("langfuse", {**OBSERVATION, "input": "Hello"}, "Hello"),
        ("langfuse", {**OBSERVATION, "input": '{"mine": 1}'}, '{"mine": 1}'),
        ("langfuse", {"id": "t", "timestamp": "2026-01-05", "input": "Hi", "output": "x", "sessionId": "s"}, "Hi"),
        ("otel", {"gen_ai.input.messages": PARTS, "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}]}, PARTS_TEXT),
        ("otel", {"name": "chat m", "attributes": {"gen_ai.input.messages": json.dumps(PARTS[:1])}}, "Weather in Paris?"),
        ("otel", {"gen_ai": {"input": {"messages": PARTS[:1]}}}, "Weather in Paris?"),
        ("otel", {"SpanName": "chat", "SpanAttributes": {"gen_ai.prompt": '[{"role": "user", "content": "Hi"}]'}}, "Hi"),
        ("otel", {"event_name": "gen_ai.user.message", "body": {"content": "Hello"}}, "Hello"),
        ("otel", {"attributes": {"event.name": "gen_ai.user.message", "gen_ai.event.content": "Hello"}}, "Hello"),
        ("otel", {"attributes": {"gen_ai.prompt.1.content": "Hello", "gen_ai.prompt.1.role": "user", "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "Be brief."}}, CHAT_TEXT),
    ],
)  # fmt: skip
def test_a_shape_is_recognised_and_gives_its_prompt(name: str, row: dict[str, object], prompt: str) -> None:
    assert Shape.detect([row]).name == name
    assert _one(row).prompt == prompt
    assert _one(row, Shape.named(name)).prompt == prompt


def test_messages_of_parts_are_joined_even_without_the_names_of_telemetry() -> None:
    assert _one({"messages": PARTS[:1]}).prompt == "Weather in Paris?"


def test_plain_rows_carry_identity_and_time() -> None:
    row = {"ts": "2026-01-05T12:00:00Z", "account_id": "acct", "request_id": "req", "api_key_id": "k", "prompt": "Hi"}
    assert _one(row) == Taken("Hi", "acct", "k", "req", NOON, row)


def test_a_body_gives_the_user_it_names_when_nothing_stands_beside_it() -> None:
    assert _one({"messages": CHAT, "safety_identifier": "hash"}).account == "hash"
    assert _one({"body": {"messages": CHAT, "metadata": {"user_id": "u"}}, "id": "r"}).account == "u"
    assert _one({"account": "a", "body": {"messages": CHAT, "user": "u"}}).account == "a"


def test_litellm_gives_the_keys_team_hash_and_start() -> None:
    taken = _one(LITELLM)
    assert (taken.account, taken.key, taken.request_id, taken.time) == ("team-1", "88dc28d0", "chatcmpl-1", NOON)


def test_langfuse_gives_user_id_and_start_in_either_spelling() -> None:
    camel = {
        "id": "obs-1",
        "traceId": "t",
        "type": "GENERATION",
        "startTime": "2026-01-05T12:00:00.000Z",
        "userId": "u-1",
        "input": "x",
    }
    for row in (OBSERVATION, camel):
        taken = _one(row)
        assert (taken.account, taken.request_id, taken.time) == ("u-1", "obs-1", NOON)


def test_every_request_of_an_otlp_line_is_taken_with_its_resources_identity() -> None:
    line = _spans(
        _otlp({"http.method": "GET"}, name="GET", spanId="0"),
        _otlp(
            {"gen_ai.operation.name": "chat", "gen_ai.input.messages": PARTS[:1]},
            spanId="1",
            startTimeUnixNano=str(NOON * 1000),
        ),
        _otlp({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"}, spanId="2"),
        _otlp({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, spanId="3"),
    )
    first, tool, empty = AUTO.take(line)
    assert isinstance(first, Taken)
    assert (first.prompt, first.account, first.request_id, first.time) == ("Weather in Paris?", "acme", "1", NOON)
    assert isinstance(tool, RowFault)
    assert tool.reason is Reason.NOT_A_REQUEST
    assert isinstance(empty, RowFault)
    assert empty.reason is Reason.NO_PROMPT
    assert "CAPTURE_MESSAGE_CONTENT" in empty.detail


def test_the_older_events_of_one_span_in_a_line_are_one_request() -> None:
    def event(name: str, body: str, span: str) -> dict[str, object]:
        content = {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": body}}]}}
        return {"eventName": name, "body": content, "traceId": "t", "spanId": span}

    events = [
        event("gen_ai.system.message", "Be brief.", "1"),
        event("gen_ai.user.message", "Other", "2"),
        event("gen_ai.user.message", "Hello", "1"),
        event("gen_ai.choice", "Answer", "1"),
    ]
    line = {"resourceLogs": [{"scopeLogs": [{"logRecords": events}]}]}
    prompts = [one.prompt for one in AUTO.take(line) if isinstance(one, Taken)]
    assert prompts == [CHAT_TEXT, "Other"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": None}, Reason.NO_PROMPT),
        ({"messages": None, "model": "m"}, Reason.NO_PROMPT),
        ({"prompt": 5}, Reason.WRONG_TYPE),
        ({"prompt": {"deep": MARK}}, Reason.WRONG_TYPE),
        ({"prompt": [1, 2]}, Reason.WRONG_TYPE),
        ({"messages": MARK}, Reason.WRONG_TYPE),
        ({"messages": [{"content": MARK}]}, Reason.WRONG_TYPE),
        ({"messages": [MARK]}, Reason.WRONG_TYPE),
        ({"model": MARK}, Reason.UNKNOWN_SHAPE),
        ({}, Reason.UNKNOWN_SHAPE),
        ({"prompt": "x", "account_id": 1e23}, Reason.WRONG_TYPE),
        ({**LITELLM, "messages": [{"role": "user", "content": "redacted-by-litellm"}]}, Reason.NO_PROMPT),
        ({**LITELLM, "call_type": "aembedding"}, Reason.NOT_A_REQUEST),
        ({**OBSERVATION, "type": "SPAN"}, Reason.NOT_A_REQUEST),
        ({**OBSERVATION, "input": None}, Reason.NO_PROMPT),
        ({"event_name": "gen_ai.choice", "body": {"content": MARK}}, Reason.NOT_A_REQUEST),
        (_spans(_otlp({"http.method": MARK})), Reason.NOT_A_REQUEST),
        ({"prompt": b"\xff"}, Reason.BROKEN_UTF8),
    ],
)
def test_a_row_that_gives_no_prompt_says_why(row: dict[str, object], reason: Reason) -> None:
    assert _fault(row) is reason


def test_only_a_row_that_is_no_request_is_no_damage() -> None:
    assert [reason for reason in Reason if not reason.is_damage] == [Reason.NOT_A_REQUEST]


def test_a_log_of_mixed_shapes_is_read_row_by_row() -> None:
    rows: list[dict[str, object]] = [
        {"prompt": "One"},
        {"messages": CHAT},
        {"system": "Be brief.", "messages": CHAT[1:]},
    ]
    shape = Shape.detect(rows)
    assert shape.name == "openai-chat+anthropic-messages+plain"
    assert [_one(row, shape).prompt for row in rows] == ["One", CHAT_TEXT, CHAT_TEXT]


def test_a_named_shape_does_not_take_another_ones_rows() -> None:
    assert _fault({"prompt": MARK}, Shape.named("openai-chat")) is Reason.NO_PROMPT
    assert _fault({"messages": MARK}, Shape.named("plain")) is Reason.NO_PROMPT


def test_an_unknown_shape_names_the_keys_and_no_value() -> None:
    with pytest.raises(DataRejected) as caught:
        Shape.detect([{"question": MARK, "who": {"id": MARK}}, {"asked": MARK}], "log.jsonl")
    message = str(caught.value)
    assert MARK not in message
    for part in ("log.jsonl", "asked, question, who", "prompt=", "plain"):
        assert part in message


def test_a_source_without_rows_has_the_shape_that_judges_each() -> None:
    assert Shape.detect([]) == AUTO
    assert Shape.detect([{"prompt": None}]) == AUTO


def test_a_field_map_reads_dotted_paths_lists_keys_with_dots_and_packed_json() -> None:
    row: dict[str, object] = {
        "req": json.dumps({"turns": [{"q": "Hello"}]}),
        "who.id": "a",
        "meta": {"key": {"name": "k"}, "at": NOON / 1e6},
    }
    mapping = {"prompt": "req.turns.0.q", "account": "who.id", "key": "meta.key.name", "time": "meta.at"}
    taken = _one(row, Shape.mapped(mapping))
    assert (taken.prompt, taken.account, taken.key, taken.time) == ("Hello", "a", "k", NOON)


def test_a_mapped_text_is_taken_literally_unless_it_is_said_to_be_json() -> None:
    row: dict[str, object] = {"body": json.dumps({"messages": CHAT})}
    assert _one(row, Shape.mapped({"prompt": "body"})).prompt == row["body"]
    assert _one(row, Shape.mapped({"prompt": "json:body"})).prompt == CHAT_TEXT
    assert _one({"body": {"messages": CHAT}}, Shape.mapped({"prompt": "body"})).prompt == CHAT_TEXT
    assert _one({"body": CHAT}, Shape.mapped({"prompt": "body"})).prompt == CHAT_TEXT


def test_a_map_may_override_single_fields_of_a_shape() -> None:
    shape = Shape.named("litellm").overriding({"account": "metadata.user_api_key_user_id"})
    assert _one(LITELLM, shape).account == "default_user_id"
    assert _one(LITELLM, shape).key == "88dc28d0"
    line = _spans(_otlp({"gen_ai.input.messages": PARTS[:1], "team": "red"}))
    assert _one(line, Shape.named("otel").overriding({"account": "team"})).account == "red"


@pytest.mark.parametrize(
    "mapping", [{"account": "a"}, {"prompt": ""}, {"prompt": "json:"}, {"prompt": "a", "colour": "b"}]
)
def test_a_field_map_that_cannot_be_is_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(InvalidSetting):
        Shape.mapped(mapping)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSetting, match="plain"):
        Shape.named("Plain")


def test_only_needed_columns_are_asked_for() -> None:
    available = [
        "prompt",
        "response",
        "ts",
        "embedding",
        "account_id",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "a.b",
        "c",
    ]
    assert AUTO.columns(available) == ["prompt", "ts", "account_id", "gen_ai.input.messages"]
    assert Shape.mapped({"prompt": "a.b", "account": "c.d"}).columns(available) == ["a.b", "c"]


def test_a_shape_is_plain_data() -> None:
    for shape in [*map(Shape.named, NAMES), Shape.mapped({"prompt": "a", "time": "b"})]:
        assert pickle.loads(pickle.dumps(shape)) == shape
        assert eval(repr(shape)) == shape  # a manifest's fingerprint may hold it


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-05T12:00:00Z", "2026-01-05T12:00:00", "2026-01-05 12:00:00.000000", "2026-01-05T13:00:00+01:00", "20260105T120000Z",
        "2026-01-05T12:00:00.000000000Z", NOON // 10**6, NOON / 10**6, NOON // 10**3, NOON, NOON * 1000, str(NOON * 1000), str(NOON // 1000), f" {NOON / 10**6} ",
        datetime(2026, 1, 5, 12, tzinfo=UTC).replace(tzinfo=None), datetime(2026, 1, 5, 12, tzinfo=UTC),
    ],
)  # fmt: skip
def test_a_time_is_read_in_every_usual_form(written: object) -> None:
    assert moment(written) == NOON


@pytest.mark.parametrize(
    "written", [None, "", "yesterday", True, [], {}, float("nan"), float("inf"), 1e30, "1e400", "9" * 100, "nan"]
)
def test_what_is_no_time_is_none(written: object) -> None:
    assert moment(written) is None


@given(st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.dates() | st.datetimes())
def test_any_time_is_in_range_or_none(written: object) -> None:
    time = moment(written)
    assert time is None or -(2**62) < time < 2**62


@given(st.datetimes().filter(lambda at: 1980 < at.year < 2100))
def test_iso_and_microseconds_agree(at: datetime) -> None:
    micros = moment(at.isoformat())
    assert micros is not None
    if micros > 10**14:
        assert moment(micros) == moment(str(micros)) == micros


def test_an_identity_is_text_whatever_its_type() -> None:
    values = ["a", 5, 5.0, 2.5, None, True, ["a"], {"a": 1}, b"ab", b"\xff\x00", "x" * 2000]
    assert [identity(value) for value in values] == ["a", "5", "5", "2.5", "", "", "", "", "ab", "ff00", "x" * 1024]


@pytest.mark.parametrize("secret", ["sk-proj-abcdef", "Bearer sk-proj-abcdef"])
def test_a_key_itself_is_never_carried_on(secret: str) -> None:
    name = _one({"prompt": "Hi", "api_key": secret}).key
    assert name.startswith("sha256:")
    assert name == key_name("sk-proj-abcdef")
    assert key_name("prod key") == "prod key"


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "a.b", "b", "0"]), inner, max_size=3)), st.sampled_from(["a", "a.b", "a.b.a", "0", "a.0", "b.a.b", "."]))  # fmt: skip
def test_any_path_in_any_value_gives_something_or_none(value: object, path: str) -> None:
    found(value, path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4).map(lambda text: MARK + text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "parts", "type", "text", "key", "value", "stringValue", "kvlistValue", "values", "name", "body", "messages", "spans"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
ROW_KEYS = [
    "prompt", "text", "input", "messages", "model", "system", "tools", "body", "request", "call_type", "metadata", "model_parameters", "traceId", "type", "attributes",
    "resourceSpans", "scopeSpans", "resourceLogs", "gen_ai.input.messages", "gen_ai.system_instructions", "gen_ai.prompt", "gen_ai.prompt.0.role", "event_name", "time", "user", "api_key",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(ROW_KEYS), JSON_VALUES, max_size=6), st.sampled_from(NAMES))
def test_any_row_gives_requests_or_a_fault_without_its_text(row: dict[str, object], name: str) -> None:
    try:
        taken = Shape.named(name).take(row)
    except RowFault as fault:
        taken = [fault]
    assert taken
    for one in taken:
        if isinstance(one, RowFault):
            assert MARK not in str(one)
        else:
            assert isinstance(one.prompt, str)


def test_every_body_format_is_a_shape_or_belongs_to_telemetry() -> None:
    assert {api.value for api in BodyFormat} - set(NAMES) == {"otel-genai"}


def test_the_docs_name_every_shape_and_every_reason() -> None:
    page = (Path(__file__).parent.parent / "docs" / "batch.md").read_text(encoding="utf-8")
    assert [name for name in (*NAMES, *Reason) if f"| `{name}` |" not in page] == []
