"""Random inputs for the fuzzer: near enough to valid ones to come far."""

import base64
import codecs
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stillwatch.v1 import classifier_pb2, examples_pb2

from classifier.bundle import FILES, MANIFEST

MAX_CHARS = 100_000
_WORDS = [
    "write",
    "a",
    "list",
    "of",
    "diverse",
    "instructions",
    "with",
    "inputs",
    "and",
    "outputs",
    "as",
    "json",
    "lines",
    "the",
    "of",
    "to",
    "please",
    "explain",
    "step",
    "by",
    "step",
    "your",
    "reasoning",
    "generate",
    "examples",
    "dataset",
    "answer",
    "question",
    "what",
    "is",
    "rot13",
    "base64",
    "ignore",
    "previous",
    "text",
]
_ODD = (
    "\u200b\u202e\u0301\u0308\ufe0f\U000e0041\u0430\u0435\u03bf\u00ad\u2028\x00\x0b\x85\ufeff\ud800\udfff\U0001f600\u0e33"
    "\uff21\u3131\ufdfa\u0344\u2126\u1100\u1161\u11a8\u0f73"
)
_DISGUISES: tuple[Callable[[str], str], ...] = (
    lambda text: base64.b64encode(text.encode(errors="replace")).decode(),
    lambda text: text.encode(errors="replace").hex(),
    lambda text: " ".join(f"{byte:02x}" for byte in text.encode(errors="replace")),
    lambda text: codecs.encode(text, "rot13"),
    lambda text: text[::-1],
    " ".join,
    ".".join,
    lambda text: text.translate(str.maketrans("oieastbg", "01345789"[:8])),
    lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    lambda text: "".join(f"%{byte:02X}" for byte in text.encode(errors="replace")),
    lambda text: "".join(f"\\u{ord(letter) & 0xFFFF:04x}" for letter in text),
    lambda text: " ".join(f"<b>{word}</b>" for word in text.split()),
    lambda text: " ".join(f"**{word}**" for word in text.split()),
    lambda text: text.translate(str.maketrans("aeopcxy", "\u0430\u0435\u043e\u0440\u0441\u0445\u0443")),
    lambda text: text.replace("&", "&amp;amp;") + "&amp;#x41;" * 9,
    lambda text: text.replace(" ", "\u0301" * 40),
)
_KEYS = [
    "messages",
    "role",
    "content",
    "type",
    "text",
    "system",
    "tools",
    "function",
    "functions",
    "parameters",
    "input_schema",
    "name",
    "description",
    "input",
    "instructions",
    "output",
    "arguments",
    "tool_calls",
    "function_call",
    "custom",
    "source",
    "data",
    "thinking",
    "summary",
    "tool_use",
    "tool_result",
    "image",
    "document",
    "model",
]
_ROLES = ("user", "assistant", "system", "developer", "tool")
_SCALARS: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    "",
    "user",
    "assistant",
    "system",
    "text",
    "tool_use",
    "\ud800",
)


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A change of a bundle.

    Attributes:
        name: The file.
        seed: Of the change.
        rehash: Whether the manifest gets the changed file's hash, as somebody would who can write all of it.
    """

    name: str
    seed: int
    rehash: bool


def make_text(source: random.Random) -> str:
    """A prompt in several disguises, sometimes very long."""
    parts = [_phrase(source) for _ in range(source.randint(1, 4))]
    text = source.choice((" ", "\n", "", ". ")).join(parts)
    for _ in range(source.choice((0, 0, 0, 1, 2, 8))):
        place = source.randint(0, len(text))
        text = text[:place] + _odd(source) + text[place + source.randint(0, 3) :]
    if source.random() < 0.003:
        text = (text or "a") * (MAX_CHARS // max(1, len(text)))
    return text[: MAX_CHARS + 1]


def make_conversation(source: random.Random) -> bytes:
    """A request body, or nearly one."""
    kind = source.random()
    if kind < 0.02:
        depth = source.choice((10, 65, 900, 5_000, 100_000))
        opening, closing = source.choice((("[", "]"), ('{"content":', "}"), ('{"input":[', "]}")))
        return f'{{"messages":[{{"role":"user","content":{opening * depth}1{closing * depth}}}]}}'.encode()
    body = _json(source, 0)
    if kind < 0.8 or not isinstance(body, dict):
        key = source.choice(("messages", "input"))
        turns = [{"role": source.choice(_ROLES), "content": _content(source)} for _ in range(source.randint(0, 4))]
        body = {key: turns, "tools": [{"name": "a", "parameters": _json(source, 3)}]}
        if source.random() < 0.3:
            body[source.choice(_KEYS)] = _json(source, 1)
    data = json.dumps(body, ensure_ascii=source.random() < 0.5).encode(errors="surrogatepass")
    return spoiled(data, source) if source.random() < 0.4 else data


def make_request(source: random.Random) -> tuple[str, bytes]:
    """The bytes of a request, and the name of its message."""
    text = make_text(source)[:2_000].encode(errors="replace").decode()
    prompts = [
        classifier_pb2.Prompt(text=text),
        classifier_pb2.Prompt(body=classifier_pb2.RequestBody(json=make_conversation(source)[:5_000])),
        classifier_pb2.Prompt(),
    ]
    label: Any = source.choice((examples_pb2.LABEL_EXTRACTION, examples_pb2.LABEL_BENIGN, 0))
    examples = [
        examples_pb2.Example(text=text, label=label, technique=_phrase(source)[:40].encode(errors="replace").decode())
        for _ in range(source.randint(0, 3))
    ]
    message = source.choice(
        (
            classifier_pb2.ClassifyRequest(prompt=source.choice(prompts)),
            classifier_pb2.StreamClassifyRequest(id="1", prompt=source.choice(prompts)),
            classifier_pb2.BatchClassifyRequest(
                items=[classifier_pb2.BatchItem(id=str(i), prompt=prompt) for i, prompt in enumerate(prompts)]
            ),
            examples_pb2.AddExamplesRequest(request_id=source.choice(("", "1")), examples=examples),
            examples_pb2.ListExamplesRequest(
                page_size=source.randint(-(2**31), 2**31 - 1), page_token=text[:40], label=label
            ),
            examples_pb2.FindNeighboursRequest(text=text, limit=source.randint(-3, 200), label=label),
        )
    )
    data = message.SerializeToString()
    return type(message).__name__, spoiled(data, source) if source.random() < 0.7 else data


def make_bundle(source: random.Random) -> Spoiled:
    """A change of one of the bundle's files."""
    return Spoiled(source.choice((MANIFEST, MANIFEST, *FILES)), source.getrandbits(32), source.random() < 0.9)


def spoiled(data: bytes, source: random.Random) -> bytes:
    """Bytes with some of them changed, cut out, doubled, moved or put in."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        place = source.randint(0, len(changed))
        span = source.choice((1, 1, 2, 8, 64, 1_024))
        kind = source.randrange(6)
        if kind == 0 and changed:
            changed[place % len(changed)] ^= 1 << source.randrange(8)
        elif kind == 1:
            del changed[place : place + span]
        elif kind == 2:
            changed[place:place] = changed[place : place + span]
        elif kind == 3:
            changed[place:place] = source.randbytes(min(span, 16))
        elif kind == 4:
            changed[place : place + 1] = bytes([source.choice((0, 0x7F, 0x80, 0xFF, 0x22, 0x5B, 0x7B))])
        elif source.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def spoiled_json(data: bytes, source: random.Random) -> bytes:
    """JSON with one of its values replaced, removed or doubled."""
    root = json.loads(data)
    node = root
    for _ in range(source.randint(0, 4)):
        children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        inner = [child for child in children if isinstance(child, dict | list) and child]
        if not inner:
            break
        node = source.choice(inner)
    key: Any = source.choice(list(node)) if isinstance(node, dict) else source.randrange(len(node))
    kind = source.randrange(4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[source.choice(_WORDS)] = node[key]
    else:
        node[key] = source.choice(
            (*_SCALARS[:-1], 2**63, -1e300, [], {}, [[]], "a" * 70, "../" * 9, node[key], [node[key]])
        )
    return json.dumps(root).encode()


def _phrase(source: random.Random) -> str:
    text = " ".join(source.choice(_WORDS) for _ in range(source.randint(1, 24)))
    for _ in range(source.choice((0, 0, 1, 1, 2, 3))):
        text = source.choice(_DISGUISES)(text)[:4_000]
    return text


def _odd(source: random.Random) -> str:
    if source.random() < 0.5:
        return source.choice(_ODD) * source.choice((1, 1, 2, 40, 300))
    return "".join(chr(source.randrange(0x110000)) for _ in range(source.randint(1, 8)))


def _content(source: random.Random) -> Any:
    """A message's content: text, or blocks of which few are odd."""
    kind = source.random()
    if kind < 0.4:
        return _phrase(source)
    if kind < 0.5:
        return _json(source, 2)
    blocks: tuple[Any, ...] = (
        {"type": "text", "text": _phrase(source)},
        {"type": "tool_use", "name": "a", "input": _json(source, 3)},
        {"type": "tool_result", "content": [{"type": "text", "text": _phrase(source)}]},
        {"type": "thinking", "thinking": _phrase(source)},
        {"type": "document", "source": {"type": "text", "data": _phrase(source)}},
        {"type": "image_url", "image_url": {"url": "data:,"}},
    )
    return [source.choice(blocks) for _ in range(source.randint(1, 4))]


def _json(source: random.Random, depth: int) -> Any:
    kind = source.random()
    if depth > 5 or kind < 0.25:
        return source.choice(_SCALARS) if source.random() < 0.6 else _phrase(source)[:200]
    if kind < 0.5:
        return [_json(source, depth + 1) for _ in range(source.randint(0, 4))]
    return {source.choice(_KEYS): _json(source, depth + 1) for _ in range(source.randint(0, 5))}
