"""Request bodies that are refused: each says what is wrong with it, and none of its text."""

import traceback

import pytest
from bodies import BODIES, FORMATS, JSON_VALUES, MARK, encoded
from hypothesis import example, given, settings
from hypothesis import strategies as st

from classifier.conversation import MAX_DEPTH, BodyFormat, Json, body_text, conversation_text
from classifier.errors import InvalidPrompt, NotUnicode, PromptTooLong, UnknownConversation


def wrapped(value: Json, depth: int) -> Json:
    for _ in range(depth):
        value = [value]
    return value


def assert_text_or_silent_refusal(body: bytes, format: BodyFormat | None) -> None:
    """Nothing but a text or an InvalidPrompt, whose message and traceback hold nothing of the body."""
    told = ""
    try:
        assert isinstance(body_text(body, format), str)
    except InvalidPrompt as error:
        told = "".join(traceback.format_exception(error))
    assert MARK not in told


# Refusals.


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "must be a JSON object"),
        ("Hello", "must be a JSON object"),
        (None, "must be a JSON object"),
        ({}, 'neither "messages" nor "input"'),
        ({"messages": "Hello"}, '"messages" must be a list of objects'),
        ({"messages": None}, '"messages" must be a list of objects'),
        ({"messages": {"role": "user"}}, '"messages" must be a list of objects'),
        ({"messages": ["Hello"]}, '"messages" must be a list of objects'),
        ({"input": 3}, '"input" must be a list of objects'),
        ({"input": ["Hello"]}, '"input" must be a list of objects'),
        ({"messages": [{"content": "Hello"}]}, 'no "role"'),
        ({"messages": [{"role": 3, "content": "Hello"}]}, 'no "role"'),
        ({"input": [{"role": 3, "content": "Hello"}]}, 'no "role"'),
        ({"messages": [{"role": "user", "content": 3}]}, '"content" must be a string or a list'),
        ({"messages": [{"role": "user", "content": [True]}]}, '"content" must be a string or a list'),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 'a text block has no "text"'),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, 'a text block has no "text"'),
        ({"messages": [], "tools": ["weather"]}, '"tools" must be a list of objects'),
    ],
)
def test_a_body_of_unknown_shape_is_refused_with_what_is_wrong(body: Json, message: str) -> None:
    with pytest.raises(UnknownConversation, match=message):
        body_text(encoded(body))


def test_a_body_that_is_not_utf8_is_refused_with_the_place() -> None:
    with pytest.raises(NotUnicode, match=r"byte 14\b"):
        body_text(b'{"messages": "\xff"}')


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_json_in_another_encoding_is_refused(encoding: str) -> None:
    body = '{"messages": [{"role": "user", "content": "Gr\u00fc\u00dfe"}]}'.encode(encoding)
    with pytest.raises(InvalidPrompt, match=r"UTF-8|not valid JSON"):
        body_text(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"Hello",
        b'{"messages": [}',
        b"{'messages': []}",
        b'{"messages": []} more',
        b"\xef\xbb\xbf{}",
        b"\x00",
    ],
)
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(UnknownConversation, match="not valid JSON"):
        body_text(body)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_does_not_know_are_refused(constant: str) -> None:
    with pytest.raises(UnknownConversation, match="not valid JSON"):
        body_text(f'{{"messages": [], "temperature": {constant}}}'.encode())


def test_a_number_of_ten_thousand_digits_is_refused() -> None:
    with pytest.raises(UnknownConversation, match="not valid JSON"):
        body_text(b'{"messages": [], "seed": ' + b"9" * 10_000 + b"}")


@pytest.mark.parametrize(
    "template",
    [
        "%s",
        '{"messages": %s}',
        '{"messages": [{"role": "user", "content": %s}]}',
        '{"messages": [], "tools": [{"name": "f", "parameters": %s}]}',
        '{"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": %s}]}]}',
    ],
)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_hundred_thousand_brackets_are_refused(template: str, opening: str, closing: str) -> None:
    for inside in (opening * 100_000 + "1" + closing * 100_000, opening * 100_000):
        with pytest.raises(UnknownConversation, match="not valid JSON"):
            body_text((template % inside).encode())


def test_content_is_read_down_to_the_greatest_depth_and_refused_below_it() -> None:
    body = {"messages": [{"role": "user", "content": wrapped("deep", MAX_DEPTH)}]}
    assert body_text(encoded(body)) == "deep"
    body = {"messages": [{"role": "user", "content": wrapped("deep", MAX_DEPTH + 1)}]}
    with pytest.raises(UnknownConversation, match=f"more than {MAX_DEPTH} deep"):
        body_text(encoded(body))


@pytest.mark.parametrize("listed", ["in a list", "alone"])
def test_tool_results_nested_too_deep_are_refused(listed: str) -> None:
    content: Json = "deep"
    for _ in range(MAX_DEPTH + 10):
        block = {"type": "tool_result", "content": content}
        content = [block] if listed == "in a list" else block
    with pytest.raises(UnknownConversation, match="deep"):
        body_text(encoded({"messages": [{"role": "user", "content": content}]}))


def test_a_body_over_the_limit_is_refused_with_its_size() -> None:
    body = encoded({"messages": [{"role": "user", "content": "Hello"}]})
    assert body_text(body, max_bytes=len(body)) == "Hello"
    with pytest.raises(PromptTooLong, match=rf"has {len(body)} bytes, at most {len(body) - 1} "):
        body_text(body, max_bytes=len(body) - 1)


def test_a_huge_body_is_refused_before_it_is_parsed() -> None:
    # Parsed, it would be refused as no JSON.
    with pytest.raises(PromptTooLong):
        body_text(b"[" * (8 * 2**20 + 1))


def test_a_deeply_nested_tool_input_is_refused() -> None:
    nested: object = 1
    for _ in range(100_000):
        nested = [nested]
    body = {"messages": [{"role": "user", "content": [{"type": "tool_use", "name": "n", "input": nested}]}]}
    with pytest.raises(UnknownConversation, match="nested"):
        conversation_text(body)


# Properties.


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES, FORMATS)
@example({"messages": [{"role": MARK}]}, BodyFormat.OPENAI_RESPONSES)
def test_any_json_gives_a_text_or_a_refusal_without_its_text(value: Json, format: BodyFormat | None) -> None:
    assert_text_or_silent_refusal(encoded(value), format)


@settings(max_examples=250, deadline=None)
@given(BODIES, FORMATS)
def test_any_body_like_an_apis_gives_a_text_or_a_refusal_without_its_text(
    body: dict[str, Json], format: BodyFormat | None
) -> None:
    assert_text_or_silent_refusal(encoded(body), format)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60).map(lambda tail: b'{"messages": "' + MARK.encode() + tail) | st.binary(max_size=60), FORMATS
)
def test_any_bytes_give_a_text_or_a_refusal_without_their_text(body: bytes, format: BodyFormat | None) -> None:
    assert_text_or_silent_refusal(body, format)


@settings(max_examples=80, deadline=None)
@given(BODIES, st.data())
def test_a_body_that_is_cut_off_is_refused_without_its_text(body: dict[str, Json], data: st.DataObject) -> None:
    whole = encoded(body)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(UnknownConversation, match="not valid JSON") as refusal:
        body_text(cut)
    assert MARK not in "".join(traceback.format_exception(refusal.value))
