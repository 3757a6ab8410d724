"""Undoes disguises: look-alike letters, leetspeak, spaced letters, encodings, markup. What it finds is scored as well.

A disguise changes what a reader sees and leaves what a model understands, so undoing one is a guess: the canonical text
(`classifier.text`) is always scored, and the undisguised form beside it. Every step is bounded and linear in the text,
begins with a cheap look that ordinary texts fail, and leaves less of what it looks for.
"""

import base64
import codecs
import html
import itertools
import json
import math
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from classifier.text import fold

Ranks = Mapping[str, int]
"""Lower-case words with their rank by frequency, the most frequent first; a rank below 0 counts as 0."""
MAX_CHARS = 60_000
"""Only so many characters of a text are looked at."""
_ROUNDS = 6  # disguises inside disguises are undone to this depth
_MOST_JUDGED = 4_000  # words, or sentences, by which it is told whether a text is disguised
_MOST_SPLIT = 10_000  # letters run together that are split into words; what follows is left in one
_LEET = {"0": "o", "1": "il", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g", "@": "a", "$": "s", "!": "il"}
_INLINE = "b|i|u|s|em|strong|span|mark|font|small|big|sub|sup|ins|del|tt|kbd|samp|var|cite|q|abbr|a|wbr"
_ALSO_SIMILAR = "\u043a\u043c\u0442\u0432\u043d\u03ba\u03c4\u03c9\u03b7\u03b5\u0406\u0399\u04cf"
"""Small letters of a capital's form, which Unicode does not count as confusable; the last three it calls l, l, i."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufff0-\uffff]")
_WORD = re.compile(r"[^\W\d_]+")
_ALPHABETIC = re.compile(r"[^\W\d_\u2e80-\ua48f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]+")
_FOREIGN = re.compile(r"[\u0250-\u02af\u0370-\u058f\u10a0-\u10ff\u13a0-\u13ff\ua4d0-\uabff\U00010000-\U00011fff]")
_LEET_SIGN = re.compile(r"[01345789@$!][A-Za-z]")
_LEET_WORD = re.compile(r"(?<![\w@$!])(?:[\w@$!]{1,23}[\w@$])(?![\w@$])")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]{{0,200}})?/?>|<!--[^<>]{{0,200}}-->", re.IGNORECASE)
_EMPHASIS = re.compile(r"(?<!\w)([*_~`]{1,3})(?=[^\s*_~`])[^*~`\n]{1,60}?(?<=[^\s*_~`])\1(?!\w)")
_MARKS = re.compile(r"[*~`]+|(?<![^\W_])_+|_+(?![^\W_])")
_LINE_MARKS = re.compile(r"^(?:[>#]+ ?|[-*+] )+", re.MULTILINE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_LETTER_ENTITY = re.compile(r"&#(?:6[5-9]|[78]\d|90|9[7-9]|1[01]\d|12[0-2]);")
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}(?:\n[A-Za-z0-9+/_-]{16,})*(?:\n[A-Za-z0-9+/_-]{1,15}(?==|\Z))?={0,2}")
_HEX = re.compile(r"(?a:[\da-fA-F](?<![\dA-Za-wyz].)[\da-fA-F][\s:,]?(?:(?:0x|\\x)?[\da-fA-F]{2}[\s:,]?){19,})(?!\w)")
_SPACED = re.compile(r"(?<!\S)\S(?: \S){7,}(?!\S)|(?<!\w)\w(?:[.\-_*|/ ]{1,3}\w){7,}(?!\w)")
_DOTTED = re.compile(r"[.\-_*|/](?:\w[.\-_*|/]{1,3}){6}")
_RUN = re.compile(r"[A-Za-z\u00c0-\u024f]+|\d+|[^\sA-Za-z\d\u00c0-\u024f]+")
_SEGMENT = re.compile(r"(\n|(?<=[.:!?])\s)")
_COMMON = "the and of to in is for with you that each from this give all it me on as are not your write que los para"
_TURNED = {codecs.encode(word, "rot13") for word in _COMMON.split()} | {word[::-1] for word in _COMMON.split()}
_TURNED -= {"dna", "si", "ni", "ti", "em", "no", "era", "ton", "sol", "sa"}
"""Words that rot13 or reversal makes of the most common ones, less those that are words of their own."""


@dataclass(frozen=True, slots=True)
class Undisguised:
    """A text with its disguises undone.

    Attributes:
        text: The text, canonical once more.
        means: The disguises' names, in the order in which they were undone.
    """

    text: str
    means: tuple[str, ...]


def undisguise(text: str, ranks: Ranks) -> Undisguised | None:
    """Undo what disguises a text, if anything does.

    Args:
        text: Canonical text.
        ranks: The words that are known.

    Returns:
        The undisguised form of the first 60,000 characters, not empty; None when nothing was found.
    """
    text = text[:MAX_CHARS]
    means: list[str] = []
    for _ in range(_ROUNDS):
        found = len(means)
        for name, undo in _STEPS:
            if (undone := undo(text, ranks)) != text:
                text = fold(undone)[:MAX_CHARS].rstrip()
                means.append(name)
        if len(means) == found:
            break
    return Undisguised(text, tuple(dict.fromkeys(means))) if means and text else None


def _unescaped(text: str, _ranks: Ranks) -> str:
    """Undo escapes where a tenth of the text is made of them, and entities that stand for plain letters."""
    if "&" in text and (_is_dense(_ENTITY, text) or len(_LETTER_ENTITY.findall(text)) >= 2):
        text = html.unescape(re.sub("&(?:amp;)+", "&", text))
    if "%" in text and _is_dense(_PERCENT, text):
        text = urllib.parse.unquote(re.sub("%(?:25)+", "%", text), errors="ignore")
    if "\\" in text and _is_dense(_ESCAPE, text):
        text = _ESCAPE.sub(lambda match: chr(int(match[0].lstrip("\\ux"), 16)), text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")  # joins the halves of a pair
    return text


def _is_dense(pattern: re.Pattern[str], text: str) -> bool:
    return len(found := pattern.findall(text)) >= 8 and sum(map(len, found)) >= 0.1 * len(text)


def _without_markup(text: str, _ranks: Ranks) -> str:
    """Remove tags and emphasis where they stand around every few words."""
    if "<" in text:
        inline = len(_INLINE_TAG.findall(text))
        if inline >= 6 and inline >= 0.05 * len(_TAG.sub("", text)):
            text = html.unescape(_TAG.sub("\n", _INLINE_TAG.sub("", text)))
    if "*" in text or "_" in text or "~" in text or "`" in text:
        emphasised = len(_EMPHASIS.findall(text))
        if emphasised >= 6 and emphasised >= 0.15 * (text.count(" ") + text.count("\n")):
            text = _MARKS.sub("", _LINE_MARKS.sub("", text))
    return text


def _decoded(text: str, ranks: Ranks) -> str:
    """Decode hex and base64, nested to any depth: every pass makes the blocks shorter."""
    before = None
    while text != before and (max(map(len, text.split()), default=0) >= 24 or sum(map(text.count, "23456789")) >= 9):
        before = text
        text = _HEX.sub(lambda m: _plaintext(re.sub(r"0x|\\x|[\s:,]", "", m[0]), bytes.fromhex, ranks) or m[0], text)
        text = _BASE64.sub(lambda m: _plaintext(m[0], _from_base64, ranks) or m[0], text)
    return text


def _from_base64(block: str) -> bytes:
    bare = re.sub(r"[\s=]", "", block).replace("-", "+").replace("_", "/")
    return base64.b64decode(bare[: len(bare) - (len(bare) % 4 == 1)] + "==")


def _plaintext(block: str, decode: Callable[[str], bytes], ranks: Ranks) -> str | None:
    """What a block decodes to if that is words, or some encoded block once more."""
    try:
        found = decode(block)
    except ValueError:
        return None
    decoded = found.decode(errors="ignore")
    if not found.startswith(decoded.encode()) or len(decoded.encode()) < len(found) - 3 or _CONTROL.search(decoded):
        return None  # only the last character may be cut
    text = (plain := fold(decoded))[:4_000]
    words = [word.lower() for word in _WORD.findall(text)]
    known = sum(word in ranks or not word.isascii() for word in words) >= max(2, 0.4 * len(words))
    prose = len(words) >= 4 and sum(map(len, words)) + text.count(" ") >= 0.9 * len(text)
    foreign = sum(len(word) for word in words if not word.isascii()) >= max(5, 0.5 * len(text))
    return plain if known or prose or foreign or _BASE64.fullmatch(text.strip()) else None


def _without_lookalikes(text: str, ranks: Ranks) -> str:
    if text.isascii() or not _FOREIGN.search(text):
        return text
    table = _lookalikes()
    words = {word for word in _ALPHABETIC.findall(text) if len(word) >= 3 and _FOREIGN.search(word)}
    latin = {word: plain for word in words if not _FOREIGN.search(plain := word.translate(table))}
    mixed = {word for word in latin if _FOREIGN.sub("", word)}
    meant = {word for word, plain in latin.items() if plain.lower() in ranks or (len(word) >= 5 and word in mixed)}
    if len(meant) < (2 if meant <= mixed else 3) or len(meant) < 0.5 * len(words):
        return text
    return _ALPHABETIC.sub(lambda m: m[0] if _FOREIGN.search(plain := m[0].translate(table)) else plain, text)


@cache
def _lookalikes() -> dict[int, str]:
    """Letters outside ASCII that look like one ASCII letter (Unicode's confusables), of the same case if there is one."""
    # The package's own module would keep all of its tables in memory, categories of every character among them.
    data = json.loads((files("confusable_homoglyphs") / "confusables.json").read_text(encoding="utf-8"))
    table = {}
    for letter, similar in data.items():
        letters = [entry["c"] for entry in similar if re.fullmatch("[A-Za-z]", entry["c"])]
        if letters and _FOREIGN.fullmatch(letter):
            table[ord(letter)] = next((c for c in letters if c.isupper() == letter.isupper()), letters[0])
    return table | dict(zip(map(ord, _ALSO_SIMILAR), "kmtbhktwneIIl", strict=True))


def _joined(text: str, ranks: Ranks) -> str:
    lengths = list(map(len, text.split()))
    if lengths.count(1) < 8 and (max(lengths, default=0) < 15 or not _DOTTED.search(text)):
        return text
    left = _MOST_SPLIT

    def replaced(match: re.Match[str]) -> str:
        nonlocal left
        runs = _RUN.findall(re.sub(r"\s" if match[0][1] == " " else r"[\s.\-_*|/]", "", match[0]))
        letters = sum(len(run) for run in runs if run.isalpha())
        words, judged = [], min(letters, left)
        for run in runs:
            part = run[:left] if run.isalpha() and run < "\u0250" else ""  # what is not Latin needs no splitting
            left -= len(part)
            words += [*split_words(part, ranks), run[len(part) :]]
        known = sum(len(word) for word in words if len(word) >= 3 and word.lower() in ranks)
        known += sum(len(run) for run in runs if run.isalpha() and run >= "\u0250")
        if letters < max(8, 0.6 * sum(map(len, runs))) or known < 0.5 * judged:
            return match[0]
        return re.sub(r" (?=[,.;:!?)\]}])|(?<=[(\[{]) ", "", " ".join(filter(None, words)))

    return _SPACED.sub(replaced, text)


def split_words(letters: str, ranks: Ranks) -> list[str]:
    """Split letters that were run together into the most frequent words that they can be.

    Args:
        letters: Letters and digits without separators.
        ranks: The words that are known.

    Returns:
        The words, in order; together they are the letters.
    """
    lower = letters.lower() if len(letters.lower()) == len(letters) else letters
    best = [0.0] + [math.inf] * len(letters)
    back = [0] * (len(letters) + 1)
    for end in range(1, len(letters) + 1):
        for start in range(max(0, end - 16), end):
            rank = ranks.get(lower[start:end])
            cost = 7.0 + 3.0 * (end - start) if rank is None else math.log(max(rank, 0) + 2) + 2.0
            if best[start] + cost < best[end]:
                best[end], back[end] = best[start] + cost, start
    words, end = [], len(letters)
    while end:
        words.append(letters[back[end] : end])
        end = back[end]
    return words[::-1]


def _without_leet(text: str, ranks: Ranks) -> str:
    if not _LEET_SIGN.search(text):
        return text
    words = [word for word in _LEET_WORD.findall(text)[:_MOST_JUDGED] if len(word) >= 3]
    signed = [word for word in words if _LEET_SIGN.search(word)]
    rarest = {word: 2_000.0 if len(word) == 3 else math.inf for word in signed}  # many letters are some rare word
    hits = sum(any(ranks.get(s, math.inf) < rarest[word] for s in _spellings(word.lower())) for word in signed)
    # In a language whose words are not known, many words are spelt so, and some of them are known.
    many = hits >= 3 and len(signed) >= 0.3 * len(words) and hits >= 0.25 * len(signed)
    if hits < 2 or not (many or hits >= (0.15 if hits >= 3 else 0.3) * len(words)):
        return text
    return _LEET_WORD.sub(lambda match: _plain(match[0], ranks), text)


def _spellings(word: str) -> list[str]:
    """What a leet word may mean, at most 8; nothing when it has no letters or no leet."""
    if word.isalpha() or not any(c.isalpha() for c in word) or not any(c in _LEET for c in word):
        return []
    choices = [_LEET.get(character, character) for character in word]
    return ["".join(letters) for letters in itertools.islice(itertools.product(*choices), 8)]


def _plain(word: str, ranks: Ranks) -> str:
    """A leet word's likeliest spelling: the most frequent word, or else what begins with the longest one."""

    def likelihood(spelling: str) -> tuple[int, int]:
        known = next((end for end in range(len(spelling), 1, -1) if spelling[:end].lower() in ranks), 0)
        return known, -ranks.get(spelling[:known].lower(), 0)

    return max(_spellings(word), key=likelihood, default=word)


def _unturned(text: str, ranks: Ranks) -> str:
    """Undo rot13 and reversal, sentence by sentence; less proof is asked for where the text names rot13."""
    lower = text.lower()
    named = "rot13" in lower or "rot-13" in lower
    if not named and _TURNED.isdisjoint(lower.split()):
        return text
    segments = _SEGMENT.split(text, maxsplit=_MOST_JUDGED)
    before = [_known(segment, ranks) for segment in segments]
    doubted = [place for place, (hits, words) in enumerate(before) if hits < 0.6 * words]
    for turn in (lambda segment: codecs.encode(segment, "rot13"), lambda segment: segment[::-1]):
        after = {place: _known(turn(segments[place]), ranks) for place in doubted}
        better = {place for place, (hits, _) in after.items() if hits > before[place][0]}
        hits, words = (sum(after[place][part] for place in better) for part in (0, 1))
        if hits >= (3 if named else 5) and hits >= (0.25 if named else 0.6) * words:
            for place in range(1, len(segments)):  # unknown words go with those before them
                if place - 1 in better and not before[place][0]:
                    better.add(place)
            return "".join(turn(segment) if place in better else segment for place, segment in enumerate(segments))
    return text


def _known(text: str, ranks: Ranks) -> tuple[int, int]:
    """How many words of three ASCII letters and more are known, and how many there are."""
    words = re.findall("[a-z]{3,}", text.lower())
    return sum(map(ranks.__contains__, words)), len(words)


_STEPS: tuple[tuple[str, Callable[[str, Ranks], str]], ...] = (
    ("markup", _without_markup),
    ("escapes", _unescaped),
    ("encoding", _decoded),
    ("look-alike letters", _without_lookalikes),
    ("spaced letters", _joined),
    ("leetspeak", _without_leet),
    ("rot13 or reversal", _unturned),
)
