"""Evasions: seeded, bounded, and what each one says it is."""

import base64
import codecs
import html
import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.conversation import body_text
from classifier.text import fold
from classifier.train.evasions import EVASIONS

TEXT = """You are a dataset writer. Generate forty diverse questions about biology for students!
Each question needs an answer, and every answer needs its reasons: write them step by step.
Return JSON lines only. Do not repeat a topic. Use plain words; keep <b> tags & quotes as they are.
Continue until all forty are written."""
BENIGN = ["Please help me plan a birthday party for my aunt. " * 8, "How do I clean a cast iron pan?\nIt is rusty."]
INVISIBLE = ("zero_width", "bidi", "tag_characters")
PADDED = ("padding_before", "padding_after", "padding_both")


def evaded(name: str, text: str = TEXT, seed: int = 3, benign: Sequence[str] = BENIGN) -> str:
    return EVASIONS[name](text, np.random.default_rng(seed), benign)


@pytest.mark.parametrize("name", EVASIONS)
def test_the_same_seed_gives_the_same_text_and_the_text_is_another_one(name: str) -> None:
    assert evaded(name) == evaded(name)
    assert evaded(name) != TEXT


@given(text=st.text(max_size=300), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_no_evasion_is_longer_than_four_times_the_text_and_two_thousand_characters(text: str, seed: int) -> None:
    for name in EVASIONS:
        assert len(evaded(name, text, seed)) <= 4 * len(text) + 2_000, name


@pytest.mark.parametrize("text", ["a " * 900, "\n" * 900, "\u4f60" * 900, "a\n" * 900, '"' * 900, "\x01" * 900])
def test_texts_that_grow_most_stay_within_the_bound(text: str) -> None:
    for name in EVASIONS:
        assert len(evaded(name, text)) <= 4 * len(text) + 2_000, name


@pytest.mark.parametrize("name", INVISIBLE)
def test_invisible_characters_are_gone_in_the_canonical_form(name: str) -> None:
    assert fold(evaded(name)) == fold(TEXT)


@pytest.mark.parametrize(("name", "least", "most"), [("homoglyphs", 0.3, 0.5), ("homoglyphs_all", 1.0, 1.0)])
def test_homoglyphs_replace_their_share_of_the_letters_that_have_one(name: str, least: float, most: float) -> None:
    every = sum(not letter.isascii() for letter in evaded("homoglyphs_all"))
    assert least <= sum(not letter.isascii() for letter in evaded(name)) / every <= most
    assert len(evaded(name)) == len(TEXT)


def test_leetspeak_changes_about_forty_percent_of_the_letters_that_it_can() -> None:
    changed = [new for old, new in zip(TEXT, evaded("leetspeak"), strict=True) if old != new]
    able = sum(letter.lower() in "abegilost" for letter in TEXT)
    assert 0.3 <= len(changed) / able <= 0.54
    assert set(changed) <= set("0134578 9@$!")


def test_spaced_letters_stand_one_space_apart_and_words_three() -> None:
    assert evaded("spaced_letters", "ask me\nnow") == "a s k   m e\nn o w"


@pytest.mark.parametrize(
    ("name", "decode"),
    [
        ("base64", lambda block: base64.b64decode(block).decode()),
        ("hex", lambda block: bytes.fromhex(block).decode()),
        ("rot13", lambda block: codecs.encode(block, "rot13")),
    ],
)
def test_an_encoding_is_asked_for_in_one_line_and_decodes_to_the_text(name: str, decode: object) -> None:
    assert callable(decode)
    requests = set()
    for seed in range(12):
        request, _, block = evaded(name, seed=seed).partition("\n\n")
        assert name in request
        assert decode(block) == TEXT
        requests.add(request)
    assert len(requests) > 2


def test_markdown_adds_marks_only() -> None:
    plain = re.sub(r"[*_~`>#\-]|1\. ", "", evaded("markdown"))
    assert plain.split() == TEXT.replace(">", "").split()


def test_html_shows_the_text_once_tags_are_removed() -> None:
    assert html.unescape(re.sub(r"<[^>]*>", "", evaded("html"))) == TEXT


@pytest.mark.parametrize("name", PADDED)
def test_padding_puts_about_150_benign_words_around_the_whole_text(name: str) -> None:
    before, found, after = evaded(name).partition(TEXT)
    assert found
    assert 140 <= len((before + after).split()) <= 150
    assert bool(before) == (name != "padding_after")
    assert bool(after) == (name != "padding_before")
    assert before.endswith("\n\n") or not before
    assert after.startswith("\n\n") or not after


def test_padding_without_benign_text_is_refused() -> None:
    with pytest.raises(ValueError, match="padding needs benign texts"):
        evaded("padding_both", benign=[" "])


def test_split_messages_are_a_chat_body_that_holds_the_whole_text_in_three_to_five_parts() -> None:
    counts = set()
    for seed in range(20):
        body = evaded("split_messages", seed=seed)
        messages = json.loads(body)["messages"]
        users = [message["content"] for message in messages if message["role"] == "user"]
        assert "".join(users) == TEXT
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(users) - 1) + ["user"]
        assert all(part.rstrip()[-1] in ".!?:;" for part in users)
        assert body_text(body.encode()).count("user: ") == len(users)
        counts.add(len(users))
    assert counts == {3, 4, 5}


@pytest.mark.parametrize("text", ["", "a", "ab", "one two", "a long line without any end " * 5])
def test_a_text_without_sentences_is_still_split_into_what_it_was(text: str) -> None:
    messages = json.loads(evaded("split_messages", text))["messages"]
    assert "".join(message["content"] for message in messages if message["role"] == "user") == text
