"""A short cut through the tokenizer: plain ASCII texts are tokenised word by word, and each word is looked up.

What the vocabulary lacks, most Chinese signs among it, gets a number of its own, so that the head can tell it from others.
"""

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import overload

from tokenizers import Tokenizer

_WORDS = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
"""What BERT's pre-tokenizer makes of lower-case ASCII text: words, and each mark for itself."""
_MOST_WORDS = 65_536
_LONGEST_WORD = 40
UNSEEN = 2**31
"""Numbers from here on stand for pieces that the vocabulary lacks; the encoder takes them all for its one unknown token."""


def named(ids: list[int], pieces: Iterable[tuple[int, int]], text: str, unknown: int) -> list[int]:
    """Give every piece that the vocabulary lacks a number of its own.

    Args:
        ids: Token ids.
        pieces: For each its half-open range of code points.
        text: The text.
        unknown: The id of what is not in the vocabulary.

    Returns:
        The ids, with numbers in [UNSEEN, 2 UNSEEN) for the unknown ones.
    """
    if unknown not in ids:
        return ids
    return [
        number if number != unknown else UNSEEN | zlib.crc32(text[start:end].lower().encode(errors="replace"))
        for number, (start, end) in zip(ids, pieces, strict=True)
    ]


class Words:
    """Token ids of plain texts, as the tokenizer itself would give them. Safe from any thread.

    Attributes:
        unknown: The id of what the vocabulary lacks; -1 where it has none.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take over the vocabulary's whole words; others are asked for when they come.

        Args:
            tokenizer: A tokenizer; where its form is not uncased BERT's, nothing is taken for plain.
        """
        self._tokenizer = tokenizer
        form = json.loads(tokenizer.to_str())
        self._marks = tuple(token["content"].lower() for token in form["added_tokens"])
        self._applies = _is_uncased_bert(form)
        self.unknown: int = form["model"]["vocab"].get(form["model"].get("unk_token"), -1)
        # A word that is in the vocabulary is its own longest piece.
        vocabulary = form["model"]["vocab"].items() if self._applies else ()
        self._known: dict[str, tuple[int, ...]] = {
            word: (number,) for word, number in vocabulary if _WORDS.fullmatch(word)
        }
        self._given = len(self._known)

    def ids(self, text: str) -> list[int] | None:
        """A text's token ids without special ones.

        Args:
            text: Any text.

        Returns:
            The ids, unknown words by numbers of their own; None where the text is not plain: the tokenizer itself must be asked.
        """
        if not (self._applies and text.isascii() and text.replace("\n", " ").isprintable()):
            return None
        lower = text.lower()
        if any(mark in lower for mark in self._marks):
            return None
        words, known = _WORDS.findall(lower), self._known
        try:
            return list(chain.from_iterable(map(known.__getitem__, words)))
        except KeyError:
            return list(chain.from_iterable(known.get(word) or self._learnt(word) for word in words))

    def _learnt(self, word: str) -> tuple[int, ...]:
        encoding = self._tokenizer.encode(word, add_special_tokens=False)
        found = tuple(named(encoding.ids, encoding.offsets, word, self.unknown))
        if len(word) <= _LONGEST_WORD:
            if len(self._known) - self._given >= _MOST_WORDS:
                self._known = dict(islice(self._known.copy().items(), self._given))  # what is learnt stands behind
            self._known[word] = found
        return found


class LateSpans(Sequence[tuple[int, int]]):
    """The spans of a text's tokens, found when they are first asked for: most prompts never need theirs."""

    def __init__(self, tokenizer: Tokenizer, text: str, count: int) -> None:
        """Hold what is needed to find them.

        Args:
            tokenizer: The tokenizer.
            text: The text.
            count: How many tokens it has.
        """
        self._tokenizer = tokenizer
        self._text = text
        self._count = count
        self._spans: list[tuple[int, int]] | None = None

    def __len__(self) -> int:
        """How many tokens there are."""
        return self._count

    @overload
    def __getitem__(self, place: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, place: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        """The half-open range of code points of a token, or of several."""
        return self._found()[place]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every token's span."""
        return iter(self._found())

    def _found(self) -> list[tuple[int, int]]:
        if self._spans is None:
            self._spans = self._tokenizer.encode(self._text, add_special_tokens=False).offsets
        return self._spans


def _is_uncased_bert(form: dict[str, dict[str, object]]) -> bool:
    normaliser, splitter, model = (form[part] or {} for part in ("normalizer", "pre_tokenizer", "model"))
    return (
        normaliser.get("type") == "BertNormalizer"
        and normaliser.get("lowercase") is True
        and splitter.get("type") == "BertPreTokenizer"
        and model.get("type") == "WordPiece"
    )
