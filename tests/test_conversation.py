"""Request bodies: how each API's shape is recognised, and what is taken out of it."""

import json
import string

import pytest
from bodies import ROLES, encoded
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.conversation import BodyFormat, Json, body_text, conversation_text, recognise
from classifier.errors import UnknownConversation

IMAGE_URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,PICTURE"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
SCHEMA_TEXT = '{"type": "object", "properties": {"city": {"type": "string"}}}'
# Words that no role, separator or other word holds.
WORDS = st.text(string.ascii_uppercase, min_size=12, max_size=16)


# OpenAI chat completions.


def test_a_single_chat_message_stands_as_it_is() -> None:
    assert conversation_text({"messages": [{"role": "user", "content": "Hello"}]}) == "Hello"


def test_of_several_chat_messages_each_begins_with_its_role() -> None:
    body = {
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two"},
            {"role": "user", "content": "Three"},
        ]
    }
    assert conversation_text(body) == "user: One\n\nassistant: Two\n\nuser: Three"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_chat_system_prompt_comes_first_wherever_it_stands(role: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}, {"role": role, "content": "Be brief."}]}
    assert conversation_text(body) == "Be brief.\n\nHello"


def test_the_text_blocks_of_a_chat_message_are_joined_and_its_images_left_out() -> None:
    content = [{"type": "text", "text": "What is"}, IMAGE_URL, {"type": "text", "text": "this?"}]
    assert conversation_text({"messages": [{"role": "user", "content": content}]}) == "What is\nthis?"


def test_chat_tool_calls_and_tool_answers_are_read() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    body = {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call, call]},
            {"role": "tool", "tool_call_id": "c1", "content": "4 degrees"},
        ]
    }
    line = 'weather({"city": "Oslo"})'
    assert conversation_text(body) == f"user: Weather?\n\nassistant: {line}\n{line}\n\ntool: 4 degrees"


def test_chat_tools_and_functions_stand_between_the_system_prompt_and_the_messages() -> None:
    definition = {"name": "weather", "description": "Tells the weather", "parameters": SCHEMA}
    body = {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "tools": [{"type": "function", "function": definition}],
        "functions": [{"name": "clock", "description": "Tells the time"}],
    }
    assert conversation_text(body) == (
        f"Be brief.\n\nweather: Tells the weather\n{SCHEMA_TEXT}\n\nclock: Tells the time\n\nHello"
    )


# OpenAI responses.


def test_a_string_input_of_responses_stands_after_the_instructions() -> None:
    assert conversation_text({"model": "m", "instructions": "Be brief.", "input": "Hello"}) == "Be brief.\n\nHello"


def test_the_items_of_responses_are_read_in_their_order() -> None:
    body = {
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "Never guess."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "4 degrees"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Cold."}]},
        ],
        "tools": [{"type": "function", "name": "weather", "description": "Tells it", "parameters": SCHEMA}],
    }
    assert conversation_text(body) == (
        f"Be brief.\n\nNever guess.\n\nweather: Tells it\n{SCHEMA_TEXT}\n\nuser: Weather?\n\n"
        'assistant: weather({"city": "Oslo"})\n\ntool: 4 degrees\n\nassistant: Cold.'
    )


def test_an_image_of_responses_is_left_out() -> None:
    content = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": "data:PICTURE"}]
    assert conversation_text({"input": [{"role": "user", "content": content}]}) == "What is this?"


# Anthropic messages.


@pytest.mark.parametrize(
    "system",
    ["Be brief.\nNever guess.", [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Never guess."}]],
)
def test_the_anthropic_system_prompt_comes_first_as_string_or_blocks(system: Json) -> None:
    text = conversation_text({"system": system, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9})
    assert text.split() == ["Be", "brief.", "Never", "guess.", "Hello"]
    assert text.endswith("guess.\n\nHello")


def test_anthropic_tool_use_nested_results_and_thinking_are_read() -> None:
    nested = [{"type": "text", "text": "4 degrees"}, {"type": "image", "source": {"data": "PICTURE"}}]
    body = {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I should look.", "signature": "SIGNATURE"},
                    {"type": "text", "text": "One moment."},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "K\u00f8benhavn"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": nested},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "And rain"},
                    {"type": "tool_result", "tool_use_id": "t3"},
                ],
            },
        ],
        "tools": [{"name": "weather", "description": "Tells the weather", "input_schema": SCHEMA}],
    }
    assert conversation_text(body) == (
        f"weather: Tells the weather\n{SCHEMA_TEXT}\n\nuser: Weather?\n\n"
        'assistant: I should look.\nOne moment.\nweather({"city": "K\u00f8benhavn"})\n\nuser: 4 degrees\nAnd rain'
    )


def test_a_tool_result_inside_a_tool_result_is_read() -> None:
    inner = {"type": "tool_result", "content": [{"type": "text", "text": "deep"}]}
    body = {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [inner]}]}]}
    assert conversation_text(body) == "deep"


# Recognition.


@pytest.mark.parametrize(
    ("body", "format"),
    [
        ({"messages": []}, BodyFormat.OPENAI_CHAT),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE_URL]}]},
            BodyFormat.OPENAI_CHAT,
        ),
        ({"messages": [{"role": "system", "content": "a"}], "input": "b"}, BodyFormat.OPENAI_CHAT),
        ({"messages": [], "system": "a"}, BodyFormat.ANTHROPIC_MESSAGES),
        ({"messages": [], "system": []}, BodyFormat.ANTHROPIC_MESSAGES),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, BodyFormat.ANTHROPIC_MESSAGES),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, BodyFormat.ANTHROPIC_MESSAGES),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]}, BodyFormat.ANTHROPIC_MESSAGES),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, BodyFormat.ANTHROPIC_MESSAGES),
        ({"input": "a"}, BodyFormat.OPENAI_RESPONSES),
        ({"input": []}, BodyFormat.OPENAI_RESPONSES),
        ({"instructions": "a"}, BodyFormat.OPENAI_RESPONSES),
    ],
)
def test_a_body_is_recognised_by_its_shape(body: dict[str, Json], format: BodyFormat) -> None:
    assert recognise(body) == format


def test_a_body_of_no_known_api_is_refused_with_what_is_missing() -> None:
    with pytest.raises(UnknownConversation, match='neither "messages" nor "input"'):
        recognise({"prompt": "Hello"})


def test_a_named_format_is_not_guessed() -> None:
    body = {"instructions": "Be brief.", "input": "Hello", "messages": [{"role": "user", "content": "Other"}]}
    assert conversation_text(body, BodyFormat.OPENAI_RESPONSES) == "Be brief.\n\nHello"
    assert conversation_text(body, BodyFormat.OPENAI_CHAT) == "Other"
    with pytest.raises(UnknownConversation, match='"input" must be a list'):
        conversation_text({"messages": []}, BodyFormat.OPENAI_RESPONSES)


def test_a_named_format_decides_what_a_system_field_means() -> None:
    body = {"system": "Be brief.", "messages": [{"role": "user", "content": "Hello"}]}
    assert conversation_text(body, BodyFormat.OPENAI_CHAT) == "Hello"
    assert conversation_text(body, BodyFormat.ANTHROPIC_MESSAGES) == "Be brief.\n\nHello"


# Every shape.


def test_a_body_without_text_gives_an_empty_text() -> None:
    assert body_text(b'{"messages": []}') == ""
    assert body_text(encoded({"messages": [{"role": "user", "content": [IMAGE_URL]}]})) == ""


def test_blank_texts_leave_no_gaps() -> None:
    messages = [{"role": "system", "content": " \n"}, {"role": "user", "content": "Hello"}]
    assert conversation_text({"messages": messages, "tools": [{"type": "function"}]}) == "Hello"
    silent = {"role": "assistant", "content": ""}
    assert conversation_text({"messages": [silent, *messages, silent]}) == "user: Hello"


def test_a_role_of_any_length_is_shortened() -> None:
    message = {"role": "r" * 10_000, "content": "Hello"}
    assert conversation_text({"messages": [message, message]}) == "\n\n".join([f"{'r' * 64}: Hello"] * 2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ROLES), st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_every_text_of_every_message_is_read_once_in_every_format(messages: list[tuple[str, list[str]]]) -> None:
    turns = [{"role": role, "content": [{"type": "text", "text": word} for word in words]} for role, words in messages]
    expected = sorted(word for _, words in messages for word in words)
    for api, body in (
        (BodyFormat.OPENAI_CHAT, {"messages": turns}),
        (BodyFormat.OPENAI_RESPONSES, {"input": turns}),
        (BodyFormat.ANTHROPIC_MESSAGES, {"messages": turns}),
    ):
        text = conversation_text(body, api)
        assert sorted(word for word in text.split() if word.isupper()) == expected


@settings(max_examples=50, deadline=None)
@given(WORDS, WORDS, WORDS)
def test_names_descriptions_and_schemas_of_tools_are_read_in_every_shape(name: str, words: str, field: str) -> None:
    schema: dict[str, Json] = {"properties": {field: {}}}
    flat = {"name": name, "description": words}
    for tools in (
        {"tools": [{"type": "function", "function": {**flat, "parameters": schema}}]},
        {"tools": [{"type": "function", **flat, "parameters": schema}]},
        {"tools": [{**flat, "input_schema": schema}]},
        {"functions": [{**flat, "parameters": schema}]},
    ):
        text = conversation_text({"messages": [], **tools})
        assert text == f"{name}: {words}\n{json.dumps(schema)}"


def test_what_other_kinds_of_calls_and_blocks_carry_is_scored_too() -> None:
    chat = {
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": None, "function_call": {"name": "old", "arguments": "one"}},
            {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "new", "input": "two"}}]},
        ],
        "tools": [{"type": "custom", "custom": {"name": "grammar", "description": "three"}}],
    }
    items = {
        "input": [
            {"type": "custom_tool_call", "name": "a", "input": "four"},
            {"type": "custom_tool_call_output", "output": "five"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "six"}]},
            {"type": None, "role": "user", "content": "seven"},
        ]
    }
    document = {"type": "document", "source": {"type": "text", "data": "eight"}}
    found = {"type": "search_result", "content": [{"type": "text", "text": "nine"}]}
    blocks = {"system": "s", "messages": [{"role": "user", "content": [document, found]}]}
    read = "\n".join(conversation_text(body) for body in (chat, items, blocks))
    for word in ("old(one)", "new(two)", "grammar: three", "four", "five", "six", "seven", "eight", "nine"):
        assert word in read


@pytest.mark.parametrize("kind", [[], {}, 3, None])
def test_a_block_of_an_odd_type_never_breaks_the_reader(kind: object) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": kind, "text": "hello"}]}]}
    assert conversation_text(body) == "hello"


def test_several_prompts_of_one_completions_request_are_joined_and_token_ids_refused() -> None:
    assert conversation_text({"prompt": ["One", "Two"]}, BodyFormat.OPENAI_COMPLETIONS) == "One\n\nTwo"
    with pytest.raises(UnknownConversation, match="prompt"):
        conversation_text({"prompt": [[1, 2]]}, BodyFormat.OPENAI_COMPLETIONS)


def test_the_parts_of_telemetry_give_texts_calls_and_results_but_no_files() -> None:
    messages = [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "blob", "content": "PICTURE"}, {"type": "text", "content": "Where?"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm."},
                {"type": "tool_call", "name": "f", "arguments": {"a": 1}},
            ],
        },
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "response": {"ok": True}}, {"type": "uri", "uri": "s3://x"}],
        },
    ]
    body = {
        "messages": messages,
        "system": [{"type": "text", "content": "You help."}],
        "tools": [{"name": "f", "parameters": {}}],
    }
    expected = 'You help.\n\nBe brief.\n\nf\n{}\n\nuser: Where?\n\nassistant: Hm.\nf({"a": 1})\n\ntool: {"ok": true}'
    assert conversation_text(body, BodyFormat.OTEL_GENAI) == expected
