"""Request bodies to the text that is scored: of OpenAI and Anthropic, and as OpenTelemetry records them."""

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum

from classifier.errors import NotUnicode, PromptTooLong, UnknownConversation

MAX_DEPTH = 64
Json = object


class BodyFormat(StrEnum):
    """The APIs whose request bodies are understood."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC_MESSAGES = "anthropic-messages"
    OPENAI_COMPLETIONS = "openai-completions"
    """Not recognised by itself: many things have a "prompt"."""
    OTEL_GENAI = "otel-genai"
    """Messages of parts as in gen_ai.input.messages, under "messages", "system" and "tools"; not recognised by itself."""


def body_text(body: bytes, format: BodyFormat | None = None, *, max_bytes: int = 8 * 2**20) -> str:
    """Take the text that is scored out of a request body.

    The system prompt comes first, then the tool definitions, then the messages in their order. A single message
    stands as it is; of several, each begins with its role. Images, audio and files are left out.

    Args:
        body: UTF-8 JSON.
        format: The body's API; None recognises it.
        max_bytes: The most bytes that are read.

    Returns:
        The text; it may be empty, which the scorer refuses.

    Raises:
        PromptTooLong: When the body has more than max_bytes bytes.
        NotUnicode: When the body is not UTF-8.
        UnknownConversation: When the body is no JSON object, or has no known shape.
    """
    if len(body) > max_bytes:
        raise PromptTooLong(f"the request body has {len(body)} bytes, at most {max_bytes} are read: shorten it")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotUnicode(f"the request body is not UTF-8 (byte {error.start}): send UTF-8 JSON") from None
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UnknownConversation("the request body is not valid JSON: send the body as the API takes it") from None
    return conversation_text(parsed, format)


def conversation_text(body: Json, format: BodyFormat | None = None) -> str:
    """Take the text that is scored out of a parsed request body.

    Args:
        body: What the JSON holds.
        format: The body's API; None recognises it.

    Returns:
        The text.

    Raises:
        UnknownConversation: When the body has no known shape.
    """
    if not isinstance(body, Mapping):
        raise UnknownConversation("the request body must be a JSON object")
    try:
        return "\n\n".join(part for part in _parts(body, format or recognise(body)) if part.strip())
    except RecursionError:
        raise UnknownConversation("the request body is nested too deep") from None


def _parts(body: Mapping[str, Json], format: BodyFormat) -> list[str]:
    read = {
        BodyFormat.OPENAI_CHAT: _openai_chat,
        BodyFormat.OPENAI_RESPONSES: _openai_responses,
        BodyFormat.ANTHROPIC_MESSAGES: _anthropic,
        BodyFormat.OPENAI_COMPLETIONS: _openai_completions,
        BodyFormat.OTEL_GENAI: _otel,
    }[format]
    system, turns = read(body)
    parts = [*system, *_tools(body.get("tools")), *_tools(body.get("functions"))]
    if len(turns) == 1:
        return [*parts, turns[0][1]]
    return parts + [f"{role}: {text}" for role, text in turns if text]


def recognise(body: Mapping[str, Json]) -> BodyFormat:
    """Tell which API a request body belongs to.

    Args:
        body: The parsed body.

    Returns:
        Its format.

    Raises:
        UnknownConversation: When it belongs to none of them.
    """
    if "messages" in body:
        blocks = isinstance(body.get("system"), str | list) or any(_is_anthropic(m) for m in _list(body["messages"]))
        return BodyFormat.ANTHROPIC_MESSAGES if blocks else BodyFormat.OPENAI_CHAT
    if "input" in body or "instructions" in body:
        return BodyFormat.OPENAI_RESPONSES
    raise UnknownConversation('the request body has neither "messages" nor "input": send an OpenAI or Anthropic body')


Turns = list[tuple[str, str]]


def _openai_chat(body: Mapping[str, Json]) -> tuple[list[str], Turns]:
    system, turns = [], []
    for message in _messages(body, "messages"):
        role = _role(message)
        text = "\n".join([*_content(message.get("content")), *_calls(message)])
        if role in ("system", "developer"):
            system.append(text)
        else:
            turns.append((role, text))
    return system, turns


def _openai_responses(body: Mapping[str, Json]) -> tuple[list[str], Turns]:
    system = list(_content(body.get("instructions")))
    if isinstance(body.get("input"), str):
        return system, [("user", str(body["input"]))]
    turns: Turns = []
    for item in _messages(body, "input"):
        text = "\n".join([*_content(item.get("content")), *_content(item.get("summary")), *_action(item)])
        if "role" not in item:
            turns.append(("tool" if "output" in item else "assistant", text))
        elif _role(item) in ("system", "developer"):
            system.append(text)
        else:
            turns.append((_role(item), text))
    return system, turns


def _anthropic(body: Mapping[str, Json]) -> tuple[list[str], Turns]:
    turns = [(_role(message), "\n".join(_content(message.get("content")))) for message in _messages(body, "messages")]
    return list(_content(body.get("system"))), turns


def _openai_completions(body: Mapping[str, Json]) -> tuple[list[str], Turns]:
    """A prompt, or several of one request; prompts of token ids have no text."""
    prompt = body.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if not all(isinstance(text, str) for text in prompts):
        raise UnknownConversation('"prompt" must be a string or a list of strings')
    return [], [("user", "\n\n".join(map(str, prompts)))]


def _otel(body: Mapping[str, Json]) -> tuple[list[str], Turns]:
    system, turns = list(_otel_parts(body.get("system"))), []
    for message in _messages(body, "messages"):
        parts = message["parts"] if "parts" in message else message.get("content")
        text = "\n".join([*_otel_parts(parts), *_calls(message)])
        if _role(message) in ("system", "developer"):
            system.append(text)
        else:
            turns.append((_role(message), text))
    return system, turns


def _otel_parts(parts: Json) -> Iterator[str]:
    """The texts of parts: text and reasoning, calls and what came of them; blobs, files and URIs are left out."""
    if not isinstance(parts, list):
        yield from _content(parts)
        return
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        if not isinstance(part, Mapping):
            yield from _content(part)
        elif kind == "tool_call":
            arguments = part.get("arguments")
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            yield f"{_string(part, 'name')}({text})"
        elif kind == "tool_call_response":  # "result" by some SDKs
            result = part.get("response", part.get("result"))
            yield result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        elif kind not in ("blob", "file", "uri"):
            yield from _block(part, 0)


def _messages(body: Mapping[str, Json], name: str) -> list[Mapping[str, Json]]:
    messages = body.get(name)
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise UnknownConversation(f'"{name}" must be a list of objects')
    return messages


def _role(message: Mapping[str, Json]) -> str:
    role = message.get("role")
    if not isinstance(role, str):
        raise UnknownConversation('a message has no "role": name who speaks')
    return role[:64]


def _content(content: Json, depth: int = 0) -> Iterator[str]:
    """The texts of a message's content: a string, or blocks that may hold blocks."""
    if depth > MAX_DEPTH:
        raise UnknownConversation(f"content is nested more than {MAX_DEPTH} deep")
    if content is None:
        return
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            yield from _content(block, depth + 1)
    elif isinstance(content, Mapping):
        yield from _block(content, depth)
    else:
        raise UnknownConversation('"content" must be a string or a list of blocks')


def _block(block: Mapping[str, Json], depth: int) -> Iterator[str]:
    kind, source = block.get("type", "text"), block.get("source")
    if kind == "tool_use":
        yield f"{_string(block, 'name')}({json.dumps(block.get('input'), ensure_ascii=False)})"
    elif isinstance(block.get("text"), str):
        yield _string(block, "text")
    elif isinstance(block.get("thinking"), str):
        yield _string(block, "thinking")
    elif "content" in block:  # results of tools and searches
        yield from _content(block["content"], depth + 1)
    elif isinstance(source, Mapping) and source.get("type") == "text":
        yield _string(source, "data")
    elif kind == "text":
        raise UnknownConversation('a text block has no "text"')


def _calls(message: Mapping[str, Json]) -> Iterator[str]:
    """The calls that an assistant's message makes."""
    for call in [*_list(message.get("tool_calls")), {"function": message.get("function_call")}]:
        for inner in (call.get("function"), call.get("custom")) if isinstance(call, Mapping) else ():
            if isinstance(inner, Mapping):
                yield from _action(inner)


def _action(item: Mapping[str, Json]) -> Iterator[str]:
    """A call as "name(arguments)", or what came of it."""
    arguments = _string(item, "arguments") or _string(item, "input")
    if _string(item, "name") or arguments:
        yield f"{_string(item, 'name')}({arguments})"
    if "output" in item:
        yield from _content(item["output"])


def _tools(tools: Json) -> Iterator[str]:
    """Each tool definition as "name: description" and its parameters' schema."""
    for tool in _list(tools):
        if not isinstance(tool, Mapping):
            raise UnknownConversation('"tools" must be a list of objects')
        inner = tool.get("function", tool.get("custom"))
        definition = inner if isinstance(inner, Mapping) else tool
        schema = definition.get("parameters", definition.get("input_schema"))
        head = ": ".join(filter(None, [_string(definition, "name"), _string(definition, "description")]))
        yield f"{head}\n{json.dumps(schema, ensure_ascii=False)}" if schema is not None else head


def _string(mapping: Mapping[str, Json], name: str) -> str:
    value = mapping.get(name)
    return value if isinstance(value, str) else ""


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _is_anthropic(message: Json) -> bool:
    if not isinstance(message, Mapping):
        return False
    kinds = [block.get("type") for block in _list(message.get("content")) if isinstance(block, Mapping)]
    return any(kind in kinds for kind in ("tool_use", "tool_result", "thinking", "document"))


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
