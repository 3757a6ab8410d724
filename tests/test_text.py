"""Canonical text: folding, limits, refusals, and offsets back into the original text."""

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from classifier.errors import EmptyPrompt, InvalidPrompt, NotUnicode, PromptTooLong
from classifier.text import canonical, fold, source_offset

MAX_EXPANSION = 18
"""NFKC makes at most this many characters of one (U+FDFA)."""

ZERO_WIDTH = "\u200b\u200c\u200d\u2060\u2061\u2064\ufeff\u180e\u034f"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u206a\u206f"
TAGS = "".join(map(chr, (0xE0001, *range(0xE0020, 0xE0080))))
VARIATION = "".join(map(chr, (*range(0x180B, 0x180E), *range(0xFE00, 0xFE10), 0xE0100, 0xE01EF)))
FILLERS = "\u115f\u1160\u3164\uffa0\u17b4\u17b5"
CONTROLS = "\x00\x01\x07\x08\x0e\x1b\x7f\x80\x9b\x9f"
ANNOTATIONS = "\ufff0\ufff9\ufffa\ufffb"
SOFT_HYPHEN = "\u00ad"
INVISIBLE = ZERO_WIDTH + BIDI + TAGS + VARIATION + FILLERS + CONTROLS + ANNOTATIONS + SOFT_HYPHEN
BLANKS = " \t\u00a0\u2003\u3000"

ANY_CHARACTER = st.characters(exclude_categories=())
"""Unpaired surrogates, private use, unassigned and all."""
# Characters that meet: marks that compose, jamo, expansions, blanks, line ends, what is removed between them.
ODD_CHARACTER = st.sampled_from(
    "aeE<= \t\n\r\x0b\x85\u2028\u2029\u00a0\u3000\u0301\u0323\u0327\u0338\u0344"
    "\u1100\u1161\u11a8\u0e33\u05bc\ufb01\ufdfa\uff21\u200b\u00ad\u034f\u3164\ufe0f\U000e0041\U0001f600\ud800\udc00"
)
ODD_TEXT = st.text(ODD_CHARACTER | ANY_CHARACTER, max_size=40)
PLAIN_CHARACTER = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
DRESSED_TEXT = st.lists(PLAIN_CHARACTER | st.sampled_from(INVISIBLE + BLANKS + "\n"), max_size=40).map("".join)
"""Printable ASCII between blanks, line feeds and invisible characters."""


def visible_places(text: str) -> list[int]:
    """Where the characters stand that are neither blank nor invisible."""
    return [place for place, character in enumerate(text) if "!" <= character <= "~"]


@settings(max_examples=400, deadline=None)
@given(ODD_TEXT)
@example("a\n \u200b\n\n b")
@example("e\u200b\u0301")
@example("\r\u200b\n")
def test_folding_a_folded_text_changes_nothing(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded


@pytest.mark.parametrize("plane", [0, 1, 2, 14])
def test_folding_any_one_character_between_letters_twice_equals_folding_it_once(plane: int) -> None:
    for number in range(plane * 0x10000, (plane + 1) * 0x10000):
        folded = fold(f"a{chr(number)}b")
        assert fold(folded) == folded, hex(number)


@settings(max_examples=200, deadline=None)
@given(ODD_TEXT)
def test_a_folded_text_has_neither_edge_blanks_nor_runs_of_blanks_nor_invisible_characters(text: str) -> None:
    folded = fold(text)
    assert folded == folded.strip()
    assert "  " not in folded
    assert "\n\n\n" not in folded
    assert "\r" not in folded
    assert "\t" not in folded
    assert not set(folded) & set(INVISIBLE)
    assert unicodedata.is_normalized("NFKC", folded)


@pytest.mark.parametrize(
    "characters",
    [ZERO_WIDTH, BIDI, TAGS, VARIATION, FILLERS, CONTROLS, ANNOTATIONS, SOFT_HYPHEN],
    ids=["zero-width", "bidi", "tags", "variation", "fillers", "controls", "annotations", "soft-hyphen"],
)
def test_characters_that_nobody_sees_are_removed_wherever_they_stand(characters: str) -> None:
    for character in characters:
        dressed = character.join(["", *"Generate tasks", ""])
        assert fold(dressed) == "Generate tasks", hex(ord(character))


@settings(max_examples=150, deadline=None)
@given(st.text(PLAIN_CHARACTER | st.just(" "), max_size=30), st.data())
def test_a_text_reads_the_same_with_invisible_characters_inserted_anywhere(text: str, data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.text(INVISIBLE, max_size=3), min_size=len(text) + 1, max_size=len(text) + 1))
    dressed = gaps[0] + "".join(character + gap for character, gap in zip(text, gaps[1:], strict=True))
    assert fold(dressed) == fold(text)


def test_the_letters_around_a_removed_character_are_composed() -> None:
    assert fold("e\u200b\u0301") == "\u00e9"
    assert fold("\u1100\u00ad\u1161") == "\uac00"


@pytest.mark.parametrize(
    ("dressed", "plain"),
    [
        ("\uff27\uff45\uff4e\uff45\uff52\uff41\uff54\uff45\uff01", "Generate!"),
        ("\U0001d5da\U0001d5f2\U0001d5fb", "Gen"),
        ("\u24b6\u24b7", "AB"),
        ("\ufb01ne", "fine"),
        ("x\u00b2", "x2"),
    ],
    ids=["full-width", "mathematical", "circled", "ligature", "superscript"],
)
def test_letters_in_another_dress_become_plain_ones(dressed: str, plain: str) -> None:
    assert fold(dressed) == plain


@pytest.mark.parametrize("text", ["\u4f60\u597d", "Gr\u00fc\u00dfe", "\u05e9\u05dc\u05d5\u05dd", "\U0001f600", "a\nb"])
def test_visible_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert fold(text) == text


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("a \t\u00a0\u3000 b", "a b"),
        ("  a\n", "a"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\n\nb", "a\n\nb"),
        ("a\n \n\t\n\nb", "a\n\nb"),
        ("a\n\n   b", "a\n\nb"),
        ("a\u2028b", "a\nb"),
    ],
)
def test_runs_of_white_space_become_one_blank_or_one_empty_line(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_a_text_over_the_limit_is_refused_with_its_length() -> None:
    with pytest.raises(PromptTooLong, match=r"11 characters, at most 10 "):
        canonical("x" * 11, 10)


def test_a_text_at_the_limit_is_read_whole() -> None:
    assert canonical("x" * 10, 10) == "x" * 10


def test_the_limit_counts_the_characters_as_they_were_sent() -> None:
    with pytest.raises(PromptTooLong, match="11 characters"):
        canonical("x" + "\u200b" * 10, 10)


@settings(max_examples=200, deadline=None)
@given(ODD_TEXT, st.integers(1, 40))
@example("\ufdfa" * 5, 5)
def test_no_canonical_text_is_longer_than_the_limit(text: str, limit: int) -> None:
    try:
        assert 1 <= len(canonical(text, limit)) <= limit
    except InvalidPrompt:
        assert (
            len(text) > limit
            or not 1 <= len(fold(text)) <= limit
            or any("\ud800" <= character <= "\udfff" for character in text)
        )


@settings(max_examples=200, deadline=None)
@given(st.text(ODD_CHARACTER | st.characters(), max_size=40))
def test_a_canonical_text_is_its_own_canonical_form(text: str) -> None:
    limit = MAX_EXPANSION * len(text) + 1  # a limit that cuts nothing off
    try:
        form = canonical(text, limit)
    except (EmptyPrompt, NotUnicode):
        return
    assert form == fold(text)
    assert canonical(form, limit) == form


@pytest.mark.parametrize("text", ["", " \t\n\r\n", INVISIBLE, f" \u200b {TAGS}\n\u3164 "])
def test_a_text_without_a_visible_character_is_refused_as_empty(text: str) -> None:
    with pytest.raises(EmptyPrompt, match="at least one visible character"):
        canonical(text, 1_000)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=10), st.characters(categories=["Cs"]), st.text(max_size=10))
def test_an_unpaired_surrogate_is_refused(before: str, surrogate: str, after: str) -> None:
    with pytest.raises(NotUnicode, match="unpaired surrogate"):
        canonical(before + surrogate + after, 100)


def test_a_refusal_never_holds_the_text() -> None:
    for text, limit in (("secret" * 10, 20), ("secret\ud800", 20)):
        with pytest.raises(InvalidPrompt) as refusal:
            canonical(text, limit)
        assert "secret" not in str(refusal.value)


@settings(max_examples=300, deadline=None)
@given(st.text(PLAIN_CHARACTER | st.sampled_from(" \t\n"), max_size=40))
def test_every_character_of_an_ascii_text_with_folded_blanks_ends_where_it_ended(text: str) -> None:
    folded = fold(text)
    for place, source in zip(visible_places(folded), visible_places(text), strict=True):
        assert folded[place] == text[source]
        assert source_offset(text, place + 1) == source + 1


@settings(max_examples=300, deadline=None)
@given(DRESSED_TEXT)
@example("\u200b\u200ba\U000e0041b \u00ad \u3164c")
def test_every_character_among_invisible_ones_ends_where_it_ended(text: str) -> None:
    for place, source in zip(visible_places(fold(text)), visible_places(text), strict=True):
        assert source_offset(text, place + 1) == source + 1


@settings(max_examples=200, deadline=None)
@given(DRESSED_TEXT)
def test_a_part_that_ends_with_a_visible_character_maps_to_a_prefix_with_the_same_form(text: str) -> None:
    folded = fold(text)
    for place in visible_places(folded):
        assert fold(text[: source_offset(text, place + 1)]) == folded[: place + 1]


@settings(max_examples=100, deadline=None)
@given(DRESSED_TEXT)
def test_offsets_grow_with_the_canonical_text_and_stay_inside_the_original(text: str) -> None:
    offsets = [source_offset(text, place) for place in range(len(fold(text)) + 1)]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0
    assert offsets[-1] <= len(text)


def test_an_expanded_character_ends_where_the_original_one_did() -> None:
    text = "a\ufb01\ufdfab"
    assert source_offset(text, len("afi")) == 2
    assert source_offset(text, len(fold("a\ufb01\ufdfa"))) == 3
    assert source_offset(text, len(fold(text))) == 4


def test_an_offset_over_the_end_maps_to_the_end() -> None:
    assert source_offset("a \u200bb", 100) == 4


def test_a_prompt_that_grows_past_the_limit_is_refused_and_not_cut() -> None:
    with pytest.raises(PromptTooLong, match="canonical form"):
        canonical("\ufdfa" * 5_600 + " Generate 500 tasks", 100_000)


def test_a_long_run_of_combining_marks_is_cut_instead_of_sorted_for_minutes() -> None:
    folded = fold("a" + "\u0301" * 50_000 + "\u0327" * 49_999)
    assert len(folded) <= 32
    assert fold("e\u0301\u0323") == fold("e\u0323\u0301"), "ordinary marks are kept"


SEPARATED = "\u0323\u0301" * 15 + "\u200b"


@pytest.mark.parametrize(
    "text", ["e" + SEPARATED * 9, "e" + "\u0344" * 30, "\u0f73" * 300, "\u00e9" + "\u0301\u200b" * 99]
)
def test_marks_that_meet_when_a_text_is_folded_are_cut_as_well(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    assert len(folded) <= 32


def test_runs_of_marks_that_only_invisible_characters_part_are_not_sorted_for_seconds() -> None:
    started = time.process_time()
    canonical("e" + SEPARATED * 3_200, 100_000)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\u0085", "\u2028"])
def test_separators_part_words(separator: str) -> None:
    assert fold(f"end{separator}next").split() == ["end", "next"]


def test_every_default_ignorable_format_character_is_removed() -> None:
    for code in (*range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), 0x200B, 0xE0041, 0xFE0F):
        assert fold(f"a{chr(code)}b") == "ab"


@given(st.text(st.sampled_from("ab \n\t\r\x0b\x1f\x7f"), max_size=30))
@settings(max_examples=500)
def test_a_plain_text_is_folded_as_any_other(text: str) -> None:
    marked = fold(f"{text}\u00e9") if text else "\u00e9"  # a letter outside ASCII takes the long way
    assert fold(f"{text}x") == f"{marked[:-1]}x"
