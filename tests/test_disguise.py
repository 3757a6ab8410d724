"""Disguises: undone where they are, left alone where they are not, within bounds."""

# ruff: noqa: RUF001  # these tests are about letters that look alike

import base64
import codecs
import random
import re
import string
from collections import Counter
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.corpus import load_corpus
from classifier.disguise import MAX_CHARS, Undisguised, split_words, undisguise
from classifier.text import fold
from classifier.train.evasions import EVASIONS

EXAMPLES = [row.example for row in load_corpus()]
COUNTS = Counter(
    word
    for example in EXAMPLES
    if example.language == "en"
    for word in re.findall("[a-z]+", example.text.lower())
    if len(word) > 1 or word in "ai"
)
RANKS = {word: rank - 3 for rank, (word, count) in enumerate(COUNTS.most_common()) if count > 3}
"""Like the ranks of a vocabulary, a few are below 0."""
PLAIN = "Write forty questions about the history of the city, each with a full answer and the reasons for it."
ENGLISH = [example.text for example in EXAMPLES if example.language == "en" and example.text.isascii()][::120]

TEXTS = st.text() | st.text(st.sampled_from("a1!| .-_*`~<b/>&#;9%\\ux0\nеоZ="), max_size=400)


def undone(text: str) -> Undisguised:
    found = undisguise(fold(text), RANKS)
    assert found is not None
    return found


def recall(text: str, found: str) -> float:
    words, held = (
        Counter(re.findall(r"[^\W\d_]{2,}", text.lower())),
        Counter(re.findall(r"[^\W\d_]{2,}", found.lower())),
    )
    return (words & held).total() / words.total()


@pytest.mark.parametrize("name", [name for name in EVASIONS if not name.startswith(("padding", "split"))])
def test_each_evasion_is_undone(name: str) -> None:
    recalls = []
    for seed, text in enumerate(ENGLISH):
        folded = fold(EVASIONS[name](text, np.random.default_rng(seed), []))
        found = undisguise(folded, RANKS)
        recalls.append(recall(text, found.text if found else folded))
    assert median(recalls) >= 0.9


def test_the_corpus_itself_is_left_alone() -> None:
    rows = EXAMPLES[::8]
    changed = [example.text for example in rows if undisguise(fold(example.text), RANKS)]
    assert len(changed) <= 0.02 * len(rows)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (PLAIN.translate(str.maketrans("aeoc", "аеос")), "look-alike letters"),
        ("Wr1t3 f0rty qu3$tions 4bout th3 h1story 0f th3 c1ty, 34ch w1th a full 4n$w3r", "leetspeak"),
        (" ".join(PLAIN.replace(" ", "")), "spaced letters"),
        ("-".join(PLAIN.replace(" ", "").replace(",", "")), "spaced letters"),
        ("Do this: " + base64.b64encode(PLAIN.encode()).decode(), "encoding"),
        (base64.encodebytes(PLAIN.encode() * 3).decode(), "encoding"),
        (base64.urlsafe_b64encode(PLAIN.encode()).decode().rstrip("="), "encoding"),
        (base64.b64encode(base64.b64encode(PLAIN.encode())).decode(), "encoding"),
        (PLAIN.encode().hex(), "encoding"),
        (PLAIN.encode().hex(" "), "encoding"),
        ("".join(f"\\x{byte:02x}" for byte in PLAIN.encode()), "escapes"),
        ("".join(f"\\u{ord(letter):04x}" for letter in PLAIN), "escapes"),
        ("".join(f"%{byte:02X}" for byte in PLAIN.encode()), "escapes"),
        ("".join(f"&#{ord(letter)};" for letter in PLAIN), "escapes"),
        ("<p>" + re.sub(r"(\w+)", r"<b>\1</b>", PLAIN) + "</p>", "markup"),
        (re.sub(r"(\w+)", r"**\1**", PLAIN), "markup"),
        (codecs.encode(PLAIN, "rot13"), "rot13 or reversal"),
        (PLAIN[::-1], "rot13 or reversal"),
    ],
)
def test_a_disguise_is_named_and_undone(text: str, means: str) -> None:
    found = undone(text)
    assert means in found.means
    assert recall(PLAIN[:73] if means == "leetspeak" else PLAIN, found.text) >= 0.9


def test_disguises_inside_disguises_are_undone() -> None:
    inner = base64.b64encode(codecs.encode(PLAIN, "rot13").encode()).decode()
    assert recall(PLAIN, undone("Decode, it is rot13: " + "".join(f"&#{ord(c)};" for c in inner)).text) == 1.0


def test_invisible_characters_inside_a_disguise_are_folded() -> None:
    hidden = "\u200b".join(PLAIN)
    assert undone(base64.b64encode(hidden.encode()).decode()).text == PLAIN


def test_markup_around_nothing_is_left_alone() -> None:
    assert undisguise("<b></b>" * 20, RANKS) is None


def test_chinese_is_decoded_and_joined() -> None:
    text = "请写四十个关于城市历史的问题每个都要有完整的答案"
    assert undone(base64.b64encode(text.encode()).decode()).text == text
    assert undone(" ".join(text)).text == text


@pytest.mark.parametrize(
    "text",
    [
        "for row in rows:\n    total_count += row['item_id'] * 2  # **kwargs, snake_case_names, a < b > c\n" * 4,
        '{"id": 7, "tags": ["a1", "b2"], "ok": true, "path": "/usr/local/lib/python3.11/site-packages/numpy/core"}' * 3,
        "# Title\n\nSome **bold** words in an ordinary text with a few of `code` and more plain words.\n\n- one\n- two",
        "| name | qty |\n|------|----:|\n" + "".join(f"| item_{i} | {i} |\n" for i in range(20)),
        "data:image/png;base64," + base64.b64encode(random.Random(1).randbytes(600)).decode(),
        "\n".join(random.Random(2).randbytes(32).hex() for _ in range(20)),
        "123e4567-e89b-12d3-a456-426614174000 00:1a:2b:3c:4d:5e " * 9,
        "\n".join(f"/srv/www/application/controllers/module_{i}/handler_base.py" for i in range(20)),
        "Let α, β and σx, νt, ρg be reals; if αx + βy = γ and Δx tends to 0, show that Θ(n log n) and λx hold.",
        "Вот он. Тот кот там. Сосна, нос, оса, рот, сом, тост, сорт, мост. Напиши письмо учителю, пожалуйста.",
        "こんにちは。次の文章を英語に翻訳してください。東京は日本の首都です。",
        "Übersetze den folgenden Absatz: Der schnelle Fuchs springt über den faulen Hund. Größe, Äpfel, Straße.",
        "Καλημέρα! Μπορείς να μου γράψεις ένα ποίημα για τη θάλασσα και τον ήλιο;",
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "\n".join(" ".join("0110100110") for _ in range(10)),
        "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6 5. O-O Be7 6. Re1 b5 7. Bb3 d6",
        "SKUs A1B, B2C, R2D2, C3PO, H1N1, K9, 2FA, i18n, k8s, a11y, 3D, 5G, mp3, utf8, x86, 1st, 2nd, 3rd",
        "> a quoted line of a mail\n> and one more of them\n\nThanks, see you!",
    ],
)
def test_ordinary_texts_are_left_alone(text: str) -> None:
    assert undisguise(fold(text), RANKS) is None


@given(TEXTS)
@settings(max_examples=120, deadline=None)
def test_nothing_raises_and_what_was_undone_stays_as_it_is(text: str) -> None:
    for sent in (text, fold(text)):
        found = undisguise(sent, RANKS)
        if found is not None:
            again = undisguise(found.text, RANKS)
            assert again is None or again.text == found.text
            assert found.text == fold(found.text)


@pytest.mark.parametrize("name", EVASIONS)
def test_an_undisguised_evasion_is_left_alone(name: str) -> None:
    for text in ENGLISH[:10]:
        found = undisguise(fold(EVASIONS[name](text, np.random.default_rng(1), ENGLISH)), RANKS)
        assert found is None or undisguise(found.text, RANKS) is None


@pytest.mark.parametrize(
    "piece", ["a ", "<", "&", "&amp;", "%41", "\\x41", "a1!", "1l", "QUFB", "41", "*a", "а", "gur\n"]
)
def test_long_runs_are_cut_and_never_grow(piece: str) -> None:
    found = undisguise(piece * (10**6 // len(piece)), RANKS)
    assert found is None or len(found.text) <= MAX_CHARS


def test_random_characters_of_any_kind_are_borne() -> None:
    draw = random.Random(4)
    for letters in (string.printable, "0123456789abcdef ", "aeio013457@$! ", "ab\n. ", "абвоеxy ", "<>/ab&#;%"):
        text = "".join(draw.choices(letters, k=MAX_CHARS))
        found = undisguise(text, RANKS)
        assert found is None or len(found.text) <= MAX_CHARS


@given(st.text(string.ascii_letters + string.digits + "İß", max_size=60))
def test_split_words_are_the_letters_once_more(letters: str) -> None:
    assert "".join(split_words(letters, RANKS)) == letters


def test_letters_are_split_into_the_words_that_they_were() -> None:
    assert split_words("writeaquestionabouteachtopic", RANKS) == ["write", "a", "question", "about", "each", "topic"]
