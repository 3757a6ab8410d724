"""Variants of seed rows for training: a row among benign text, and a row in disguise.

A harvest prompt in the middle of other text must still look like one, and a disguise must not look like harvesting by
itself. So both labels are shown to training in both states, whatever the label of the row: the benign text around a row
is that of other seed rows, and the disguises are those of `evasions`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from classifier.conversation import body_text
from classifier.corpus import SeedRow
from classifier.encoder import Encoder
from classifier.train.evasions import AS_BODY, EVASIONS
from classifier.train.features import Windows, cut_windows, views_of
from classifier.windows import WindowPlan
from index.example import Label

AMONG = 2
"""Variants of each row among other text."""
DISGUISED_SHARE = 0.3
"""Share of the rows of which a disguised variant is made as well."""
_WORDS = (20, 200)
"""Of benign text around a row, at least and at most."""
_DISGUISES = (
    "html",
    "html",
    "base64",
    "hex",
    "leetspeak",
    "rot13",
    "markdown",
    "split_messages",
    "spaced_letters",
)
_LONGEST = 4_000
"""Characters of a row that are disguised, or stand around another."""
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Variant:
    """A changed row.

    Attributes:
        text: The changed text.
        row: The number of the row that it was made of.
        around: The numbers of the rows whose text stands around it.
    """

    text: str
    row: int
    around: tuple[int, ...] = ()


def variants(rows: Sequence[SeedRow], folds: NDArray[np.int64], seed: int) -> list[Variant]:
    """Two variants of every row among benign text, and a disguised one of some.

    Args:
        rows: The seed corpus.
        folds: (rows,) each row's fold; only rows of its own one stand around it, so that a variant is held out with it.
        seed: Draws texts, places and disguises.

    Returns:
        The variants.
    """
    random = np.random.default_rng([seed, len(rows)])
    benign = np.array([row.example.label == Label.BENIGN for row in rows], bool)
    near = [np.flatnonzero(benign & (folds == fold)).tolist() for fold in range(int(folds.max()) + 1)]
    found = [_among(rows, number, near[folds[number]], random) for number in [*range(len(rows))] * AMONG]
    chosen = random.permutation(len(rows))[: int(DISGUISED_SHARE * len(rows))]
    return found + [_disguised(rows, number, random) for number in chosen.tolist()]


def cut_variants(found: Sequence[Variant], encoder: Encoder, plan: WindowPlan) -> tuple[Windows, NDArray[np.int64]]:
    """Cut variants into the windows of the first scale, each view of its own.

    Args:
        found: Variants.
        encoder: Its tokenizer counts.
        plan: How texts are cut.

    Returns:
        The windows, whose owners are views, and (views,) the number of each view's variant.
    """
    texts, origins = views_of([variant.text for variant in found], encoder)
    both = cut_windows(texts, encoder, plan)
    long = np.flatnonzero(~both.finer)
    owners = both.owners[long]
    first = np.searchsorted(owners, np.arange(len(texts)))
    return Windows([both.sequences[window] for window in long], owners, first, both.finer[long]), origins


def _among(rows: Sequence[SeedRow], number: int, benign: Sequence[int], random: Generator) -> Variant:
    words = int(random.integers(*_WORDS))
    before = (0, words, int(random.integers(words)))[int(random.integers(3))]
    (first, above), (last, below) = (_benign_text(rows, number, benign, random, w) for w in (before, words - before))
    return Variant("\n\n".join([*first, rows[number].example.text, *last]), number, (*above, *below))


def _benign_text(
    rows: Sequence[SeedRow], number: int, benign: Sequence[int], random: Generator, words: int
) -> tuple[list[str], list[int]]:
    """So many words of other benign rows, and the rows' numbers."""
    parts: list[str] = []
    taken: list[int] = []
    others = len(benign) - (number in benign)
    while words > 0 and others:
        other = benign[int(random.integers(len(benign)))]
        if other == number:
            continue
        text = rows[other].example.text[:_LONGEST]
        ends = [match.end() for match in _WORD.finditer(text)][:words]
        parts.append(text[: ends[-1]])
        taken.append(other)
        words -= len(ends)
    return parts, taken


def _disguised(rows: Sequence[SeedRow], number: int, random: Generator) -> Variant:
    name = _DISGUISES[int(random.integers(len(_DISGUISES)))]
    text = EVASIONS[name](rows[number].example.text[:_LONGEST], random, ())
    return Variant(body_text(text.encode()) if name == AS_BODY else text, number)
