"""The short cut through the tokenizer: the very tokens and spans that the tokenizer gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from classifier import words
from classifier.corpus import load_corpus
from classifier.encoder import OnnxEncoder
from classifier.kept import KeptEmbeddings
from classifier.lexical import terms
from classifier.runtime import Runtime
from classifier.text import fold
from classifier.words import Words, named

PIECES = [
    "the",
    "unbelievably",
    "Zq3x",
    "don't",
    "e-mail",
    "[CLS]",
    "[mask]",
    "##ing",
    "\n",
    "  ",
    "_",
    "a" * 120,
    "\t",
    "é",
    "\x7f",
    "1,000",
    "<|x|>",
    "`",
    "[ SEP ]",
]


@pytest.fixture(scope="module")
def tokenizer(runtime: Runtime) -> Tokenizer:
    """The default bundle's tokenizer."""
    encoder = runtime.scorer.model.encoder
    inner = encoder._encoder if isinstance(encoder, KeptEmbeddings) else encoder
    assert isinstance(inner, OnnxEncoder)
    return inner._tokenizer


def expected(tokenizer: Tokenizer, text: str) -> list[int]:
    """What the tokenizer gives, and a number for each word that it does not know."""
    found = tokenizer.encode(text, add_special_tokens=False)
    return named(found.ids, found.offsets, text, unknown_of(tokenizer))


def unknown_of(tokenizer: Tokenizer) -> int:
    """The id of what the vocabulary lacks."""
    number = tokenizer.token_to_id("[UNK]")
    assert number is not None
    return int(number)


def test_every_plain_text_of_the_corpus_gets_the_tokenizers_tokens(tokenizer: Tokenizer) -> None:
    texts = [fold(row.example.text) for row in load_corpus()]
    short_cut = Words(tokenizer)
    found = [short_cut.ids(text) for text in texts]
    given = tokenizer.encode_batch(texts, add_special_tokens=False)
    assert all(ids is None or ids == encoding.ids for ids, encoding in zip(found, given, strict=True))
    assert sum(ids is not None for ids in found) > 0.95 * sum(text.isascii() for text in texts)


@given(
    text=st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(max_codepoint=127), max_size=12))).map(
        "".join
    )
)
@settings(deadline=None, max_examples=150)
def test_any_text_gets_the_tokenizers_tokens_or_none(tokenizer: Tokenizer, text: str) -> None:
    found = Words(tokenizer).ids(text)
    assert found is None or found == expected(tokenizer, text)


@pytest.mark.parametrize("text", ["say [MASK] now", "naïve", "a\tb", "a\x00b", "\x7f"])
def test_what_is_not_plain_is_left_to_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert Words(tokenizer).ids(text) is None


def test_learnt_words_are_bounded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_WORDS", 10)
    short_cut = Words(tokenizer)
    before = len(short_cut._known)
    for number in range(100):
        text = f"zqx{number}zqx {'y' * 60}{number}"
        assert short_cut.ids(text) == expected(tokenizer, text)
        assert len(short_cut._known) <= before + 10


def test_unknown_words_have_numbers_of_their_own_and_one_meaning_for_the_encoder(
    runtime: Runtime, tokenizer: Tokenizer
) -> None:
    encoder, unknown = runtime.scorer.model.encoder, unknown_of(tokenizer)
    assert Words(tokenizer).unknown == unknown
    long = "x" * 150
    first, second, known, plain, marked = encoder.tokenise(["请写", "请给", "一", f"a {long}", f"é {long.upper()}"])
    assert min(*first.ids, *second.ids) >= words.UNSEEN
    assert first.ids[0] == second.ids[0]
    assert first.ids[1] != second.ids[1]
    assert known.ids[0] < words.UNSEEN
    assert plain.ids[-1] == marked.ids[-1] >= words.UNSEEN
    rows = encoder.encode([first.ids, second.ids, [unknown, unknown]])
    assert (rows == rows[2]).all()


def test_the_head_reads_what_the_vocabulary_lacks(runtime: Runtime) -> None:
    first, same, other = (
        terms([tokens.ids]).buckets for tokens in runtime.scorer.model.encoder.tokenise(["请写", "请写", "谢您"])
    )
    assert first.tolist() == same.tolist()
    assert not set(first.ravel()) & set(other.ravel())


def test_another_kind_of_tokenizer_has_no_short_cut(tokenizer: Tokenizer) -> None:
    cased = Tokenizer.from_str(tokenizer.to_str().replace('"lowercase":true', '"lowercase":false'))
    assert Words(cased).ids("the cat") is None
    assert Words(tokenizer).ids("the cat") == expected(tokenizer, "the cat")


def test_spans_that_are_found_late_are_the_tokenizers(runtime: Runtime, tokenizer: Tokenizer) -> None:
    text = "Unbelievably fast, isn't it?\nYes."
    (tokens,) = runtime.scorer.model.encoder.tokenise([text])
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    assert len(tokens.spans) == len(tokens.ids) == len(offsets)
    assert list(tokens.spans) == offsets
    assert tokens.spans[1:3] == offsets[1:3]
    assert tokens.spans[-1] == offsets[-1]
