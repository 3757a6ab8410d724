"""The compact identifier: the very scores of py3langid's own tables, and no table that leads outside them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from classifier import identifier
from classifier.corpus import load_corpus
from classifier.identifier import compact_tables, open_tables, packaged


@pytest.fixture(scope="module")
def tables() -> bytes:
    """py3langid's model in the compact form."""
    return compact_tables()


def small() -> dict[str, NDArray[Any]]:
    """Two languages, two states, two features and nine bytes' worth of surprise."""
    states = np.zeros((2, 16), np.uint32)
    states[1] = 1
    return {
        "classes": np.frombuffer(json.dumps(["one", "two"]).encode(), np.uint8),
        "prior": np.zeros(2, np.float32),
        "usual": np.array([-4, -5], np.float16),
        "unusual": np.array([[0b10000000], [0b01000000]], np.uint8),
        "weights": np.array([-1, -2], np.float16),
        "rows": np.zeros(2, np.uint16),
        "runs": np.arange(16, dtype=np.uint16).reshape(1, 16) % 2,
        "states": states,
        "features": np.array([0, 1], np.int32),
    }


def test_compact_tables_give_the_scores_of_the_full_ones_bit_by_bit(tables: bytes) -> None:
    full, compact = identifier._full(), identifier._Compact(load(tables))
    texts = [row.example.text[:400] for row in load_corpus()[::7]]
    texts += ["", "\n", "ÉCRIS VINGT PHRASES", "Пожалуйста, объясни", "リストを逆順に", "\ud800", "\x00\xff" * 50]
    for text in texts:
        assert compact._decide(text).tobytes() == full._decide(text).tobytes()


@given(text=st.text(max_size=300))
@settings(deadline=None, max_examples=200)
def test_any_text_is_told_alike(tables: bytes, text: str) -> None:
    assert open_tables(tables)(text) == packaged()(text)


def test_small_tables_tell_what_their_weights_say() -> None:
    identify = open_tables(save(small()))
    assert identify("\x01" * 8)[0] == "one"
    assert identify("\x10" * 8)[0] == "two"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", np.frombuffer(b'["one"]', np.uint8)),
        ("classes", np.frombuffer(b'{"0": 1, "1": 2}', np.uint8)),
        ("classes", np.frombuffer(b"[1, 2]", np.uint8)),
        ("prior", np.zeros(3, np.float32)),
        ("prior", np.zeros(2, np.float64)),
        ("usual", np.zeros(9, np.float16)),
        ("unusual", np.array([[0b10000000], [0b00000001]], np.uint8)),
        ("unusual", np.zeros((2, 1), np.uint8)),
        ("weights", np.zeros(3, np.float16)),
        ("rows", np.array([0, 1], np.uint16)),
        ("runs", np.full((1, 16), 2, np.uint16)),
        ("runs", np.zeros((1, 15), np.uint16)),
        ("states", np.full((2, 16), 2, np.uint32)),
        ("states", np.zeros((4, 8), np.uint32)),
        ("features", np.array([0, 2], np.int32)),
        ("features", np.array([0, -2], np.int32)),
        ("features", np.zeros(0, np.int32)),
    ],
)
def test_tables_that_lead_outside_themselves_are_refused(name: str, value: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"table|weights|bits"):
        open_tables(save({**small(), name: value}))


@given(place=st.integers(min_value=0), value=st.integers(0, 255), text=st.text(max_size=40))
@settings(deadline=None, max_examples=300)
def test_a_changed_byte_is_refused_or_harmless(place: int, value: int, text: str) -> None:
    data = bytearray(save(small()))
    data[place % len(data)] = value
    try:
        identify = open_tables(bytes(data))
    except (ValueError, KeyError, SafetensorError):
        return
    with np.errstate(all="ignore"):
        language, confidence = identify(text)
    assert isinstance(language, str)
    assert isinstance(confidence, float)
