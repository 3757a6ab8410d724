"""The labelled example: what it refuses, how it is named, and the fingerprint of many."""

import dataclasses
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import InvalidExample
from index.example import MAX_CAPABILITIES, MAX_FIELD_CHARS, MAX_TEXT_CHARS, Example, Label, content_fingerprint

SECRET = "a prompt that no message may repeat"
BAD_NAMES = ["Upper", "1st", "_x", "with-dash", "with space", "naïve", "name\n", "a" * 65]

names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
valid_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: bool(text.strip()))


def example_of(**changes: Any) -> Example:
    """A valid extraction example, but for the changes."""
    fields: dict[str, Any] = {"text": SECRET, "label": Label.EXTRACTION, "technique": "self_chat", **changes}
    return Example(**fields)


@st.composite
def drawn_examples(draw: st.DrawFn) -> Example:
    """Any valid example."""
    label = draw(st.sampled_from(Label))
    return Example(
        text=draw(valid_texts),
        label=label,
        technique=draw(names) if label == Label.EXTRACTION else None,
        capabilities=tuple(draw(st.lists(names, max_size=4))),
    )


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000\u00a0"])
def test_a_text_without_a_visible_character_is_refused(text: str) -> None:
    with pytest.raises(InvalidExample, match="text is empty"):
        example_of(text=text)


def test_a_text_at_the_limit_is_kept_whole() -> None:
    text = "é" * MAX_TEXT_CHARS
    assert example_of(text=text).text == text


def test_a_text_over_the_limit_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidExample, match=f"text has {MAX_TEXT_CHARS + 1} characters"):
        example_of(text="é" * (MAX_TEXT_CHARS + 1))


def test_a_text_with_an_unpaired_surrogate_is_refused_without_quoting_it() -> None:
    with pytest.raises(InvalidExample, match="unpaired surrogate") as caught:
        example_of(text=SECRET + "\ud800")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_text_is_kept_as_it_was_given() -> None:
    assert example_of(text="  two\r\nlines\x00 \U0001f600 ").text == "  two\r\nlines\x00 \U0001f600 "


@pytest.mark.parametrize("label", ["other", "", "EXTRACTION", "Label.BENIGN", None])
def test_an_unknown_label_is_refused(label: object) -> None:
    with pytest.raises(InvalidExample, match="label must be"):
        example_of(label=label)


@pytest.mark.parametrize(("word", "label"), [("extraction", Label.EXTRACTION), ("benign", Label.BENIGN)])
def test_a_label_given_as_its_word_becomes_the_label(word: str, label: Label) -> None:
    example = Example("text", cast("Label", word), technique="self_chat" if label == Label.EXTRACTION else None)
    assert example.label is label


@pytest.mark.parametrize("technique", [None, ""])
def test_an_extraction_example_without_a_technique_is_refused(technique: str | None) -> None:
    with pytest.raises(InvalidExample, match="technique is missing"):
        example_of(technique=technique)


def test_a_benign_example_with_a_technique_is_refused() -> None:
    with pytest.raises(InvalidExample, match="technique is set"):
        example_of(label=Label.BENIGN)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_technique_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidExample, match="technique must be a name"):
        example_of(technique=name)


@pytest.mark.parametrize("name", [*BAD_NAMES, ""])
def test_a_capability_that_is_no_name_is_refused_among_good_ones(name: str) -> None:
    with pytest.raises(InvalidExample, match="capabilities must be names"):
        example_of(capabilities=("code", name, "math"))


def test_names_of_64_characters_are_allowed() -> None:
    example = example_of(technique="t" * 64, capabilities=("c" * 64,))
    assert (example.technique, example.capabilities) == ("t" * 64, ("c" * 64,))


def test_as_many_capabilities_as_allowed_are_kept() -> None:
    capabilities = tuple(f"c{number:02}" for number in range(MAX_CAPABILITIES))
    assert example_of(capabilities=capabilities).capabilities == capabilities


def test_one_capability_too_many_is_refused() -> None:
    with pytest.raises(InvalidExample, match=f"capabilities has over {MAX_CAPABILITIES}"):
        example_of(capabilities=tuple(f"c{number}" for number in range(MAX_CAPABILITIES + 1)))


@given(st.lists(names, max_size=8))
def test_capabilities_come_out_sorted_and_each_once(capabilities: list[str]) -> None:
    doubled = (*capabilities, *reversed(capabilities))
    assert example_of(capabilities=doubled).capabilities == tuple(sorted(set(capabilities)))


def test_a_benign_example_may_have_capabilities() -> None:
    example = Example("text", Label.BENIGN, capabilities=("code",))
    assert (example.technique, example.capabilities) == (None, ("code",))


@pytest.mark.parametrize("language", ["", "en", "pt-BR", "zh-Hant-TW", "de-1996"])
def test_a_language_code_or_none_is_kept(language: str) -> None:
    assert example_of(language=language).language == language


@pytest.mark.parametrize("language", ["e", "en_GB", "en-", "-en", "en ", "en\n", "日本語", "en-123456789", "e1"])
def test_what_is_no_language_code_is_refused(language: str) -> None:
    with pytest.raises(InvalidExample, match="language is not a language code"):
        example_of(language=language)


@pytest.mark.parametrize("name", ["source", "author", "note"])
def test_a_field_at_its_limit_is_kept(name: str) -> None:
    assert getattr(example_of(**{name: "x" * MAX_FIELD_CHARS}), name) == "x" * MAX_FIELD_CHARS


@pytest.mark.parametrize("name", ["source", "author", "note"])
def test_a_field_over_its_limit_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidExample, match=f"{name} is over {MAX_FIELD_CHARS} characters"):
        example_of(**{name: "x" * (MAX_FIELD_CHARS + 1)})


@pytest.mark.parametrize(
    "changes",
    [
        {"text": SECRET * MAX_TEXT_CHARS},
        {"label": "other"},
        {"label": "benign"},
        {"technique": None},
        {"technique": "Not a name"},
        {"capabilities": ("Not a name",)},
        {"language": "no code"},
        {"note": SECRET * MAX_FIELD_CHARS},
    ],
)
def test_no_refusal_repeats_the_text(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidExample) as caught:
        example_of(**changes)
    assert SECRET not in str(caught.value)


def test_the_hash_and_the_id_are_those_of_the_text() -> None:
    example = example_of(text="abc")
    assert example.content_hash == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert example.id == "ex-ba7816bf8f01cfea4141"


@given(valid_texts)
def test_the_hash_is_over_the_utf8_bytes_of_the_whole_text(text: str) -> None:
    example = example_of(text=text)
    assert example.content_hash == hashlib.sha256(text.encode("utf-8")).hexdigest()
    assert example.id == "ex-" + example.content_hash[:20]


def test_the_id_depends_on_nothing_but_the_text() -> None:
    other = Example("abc", Label.BENIGN, capabilities=("code",), language="en", source="s", author="a", note="n")
    assert other.id == example_of(text="abc").id
    assert other.id != example_of(text="abc ").id


def test_an_example_cannot_be_changed() -> None:
    example = example_of()
    for name in ("text", "label", "revision", "id", "content_hash"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(example, name, "other")


def test_an_example_is_created_now_in_utc() -> None:
    before = datetime.now(UTC)
    created = example_of().created
    assert before <= created <= datetime.now(UTC)
    assert created.utcoffset() == timedelta(0)


def test_an_example_that_is_not_stored_has_revision_zero() -> None:
    assert example_of().revision == 0


def test_at_revision_changes_the_revisions_alone() -> None:
    example = example_of(capabilities=("code",), language="en", source="s", author="a", note="n")
    copy = example.at_revision(7)
    assert (copy.revision, copy.changed, example.revision, example.changed) == (7, 7, 0, 0)
    assert dataclasses.asdict(copy) | {"revision": 0, "changed": 0} == dataclasses.asdict(example)


def test_the_same_labels_are_the_same_whatever_the_provenance() -> None:
    example = example_of(capabilities=("math", "code"))
    assert example.same_labels(example_of(capabilities=("code", "math", "code"), author="other", note="other"))


@pytest.mark.parametrize(
    "other",
    [
        Example(SECRET, Label.BENIGN, capabilities=("code",)),
        example_of(technique="other", capabilities=("code",)),
        example_of(capabilities=("code", "math")),
        example_of(),
    ],
)
def test_another_label_technique_or_capability_is_not_the_same(other: Example) -> None:
    assert not example_of(capabilities=("code",)).same_labels(other)


@given(st.lists(drawn_examples(), max_size=6).flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn))))
def test_the_fingerprint_does_not_depend_on_the_order(orders: tuple[Sequence[Example], Sequence[Example]]) -> None:
    first, second = orders
    assert content_fingerprint(iter(first)) == content_fingerprint(second)


@given(st.lists(drawn_examples(), max_size=4), drawn_examples())
def test_one_example_more_gives_another_fingerprint(drawn: list[Example], added: Example) -> None:
    assert content_fingerprint(drawn) != content_fingerprint([*drawn, added])


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "other"},
        {"label": Label.BENIGN, "technique": None},
        {"technique": "other"},
        {"capabilities": ("math",)},
        {"capabilities": ()},
    ],
)
def test_another_text_or_label_gives_another_fingerprint(changes: dict[str, object]) -> None:
    stays = example_of(text="stays")
    first = content_fingerprint([stays, example_of(capabilities=("code",))])
    assert first != content_fingerprint([stays, example_of(**{"capabilities": ("code",), **changes})])


def test_labels_that_change_places_give_another_fingerprint() -> None:
    one = [example_of(text="a", technique="x"), example_of(text="b", technique="y")]
    other = [example_of(text="a", technique="y"), example_of(text="b", technique="x")]
    assert content_fingerprint(one) != content_fingerprint(other)


def test_provenance_does_not_change_the_fingerprint() -> None:
    later = example_of(
        language="en", source="s", author="a", note="n", created=datetime(2020, 1, 1, tzinfo=UTC), revision=9
    )
    assert content_fingerprint([later]) == content_fingerprint([example_of()])


def test_the_fingerprint_of_known_examples_stays_for_ever() -> None:
    examples = [
        Example("abc", Label.EXTRACTION, technique="self_chat", capabilities=("math", "code")),
        Example("def", Label.BENIGN),
    ]
    lines = (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad extraction self_chat code,math\n"
        "cb8379ac2098aa165029e3938a51da0bcecfc008fd6795f401178647f96c5b34 benign - \n"
    )
    assert content_fingerprint(examples) == hashlib.sha256(lines.encode()).hexdigest()
