"""Request bodies for tests: any JSON and any body like an API's, sound or broken."""

import json

from hypothesis import strategies as st

from classifier.conversation import BodyFormat

MARK = "XSECRETX"
"""Stands in every text of a generated body; no error may hold it."""
ROLES = ["system", "developer", "user", "assistant", "tool", "function"]
TYPES = [
    "text",
    "input_text",
    "output_text",
    "image_url",
    "image",
    "thinking",
    "tool_use",
    "tool_result",
    "message",
    "function_call",
    "function_call_output",
    "function",
    "reasoning",
]
KEYS = [
    "content",
    "text",
    "thinking",
    "role",
    "name",
    "input",
    "output",
    "arguments",
    "function",
    "tool_calls",
    "parameters",
    "input_schema",
    "description",
]

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8).map(lambda text: MARK + text)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
JSON_VALUES = st.recursive(
    SCALARS | st.just(""),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(TYPES) | st.none() | st.integers() | TEXTS
BLOCKS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({}, optional={"type": KINDS, **dict.fromkeys(KEYS, inner)})
        | st.fixed_dictionaries({"type": st.sampled_from(TYPES)}, optional={"text": TEXTS, "content": inner})
    ),
    max_leaves=10,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES) | TEXTS}, optional={"content": TEXTS | BLOCKS, "tool_calls": BLOCKS, "type": KINDS}
)
MESSAGE_LISTS = st.lists(MESSAGES, max_size=4)
FIELDS = dict.fromkeys(["system", "instructions", "tools", "functions"], BLOCKS)
BODIES = (
    st.fixed_dictionaries({"messages": MESSAGE_LISTS}, optional=FIELDS)
    | st.fixed_dictionaries({"input": MESSAGE_LISTS | TEXTS}, optional=FIELDS)
    | st.fixed_dictionaries({}, optional={"messages": BLOCKS, "input": BLOCKS, **FIELDS})
)
FORMATS = st.none() | st.sampled_from(BodyFormat)


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()
