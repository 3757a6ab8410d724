"""What known examples say of new ones at entry: conflicts, and repetitions that add nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from classifier.desk.sample import Floats
from classifier.evidence import NEIGHBOURS, PRECEDENT_FROM
from index.contract import ExampleStore, Filter
from index.errors import ExampleNotFound
from index.example import Example, Label, State
from index.live import Snapshot

DUPLICATE_FROM = 0.95
"""The cosine from which another example of the same label teaches the search next to nothing."""
_MOST_PENDING = 1_000


class Code(StrEnum):
    """What was found."""

    SAME_TEXT_OTHER_LABELS = "same_text_other_labels"
    SAME_TEXT_REVOKED = "same_text_revoked"
    SAME_TEXT_KNOWN = "same_text_known"
    NEAR_OTHER_LABEL = "near_other_label"
    NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an analyst should know before an example is added.

    Attributes:
        code: What was found.
        candidate: The new example's place among those that were asked about, from 0.
        example: The new example.
        other: The example that it was held against: a stored one, or another new one.
        stored: Whether the other one is stored.
        cosine: Of the two, in [-1, 1].
        message: The same in words, with what to do; no text of either.
    """

    code: Code
    candidate: int
    example: Example
    other: Example
    stored: bool
    cosine: float
    message: str

    @property
    def conflict(self) -> bool:
        """Whether the two contradict each other, or the store would refuse the new one."""
        return self.code not in (Code.SAME_TEXT_KNOWN, Code.NEAR_DUPLICATE)


def check_entry(
    candidates: Sequence[Example],
    vectors: Floats,
    store: ExampleStore,
    snapshot: Snapshot,
    pending: Mapping[str, Floats] | None = None,
) -> list[Finding]:
    """Hold new examples against the stored ones, the active ones near them, and each other.

    Args:
        candidates: The new examples; one that is stored already, in whatever state, is not held against itself.
        vectors: (n, d) float32 unit rows, theirs.
        store: The stored examples.
        snapshot: The active ones.
        pending: Embeddings of pending examples by id, so that these are compared as well; None leaves them out.

    Returns:
        Findings, in the order of the candidates; of each its conflicts first, then the nearest first.

    Raises:
        StoreUnavailable: When the store cannot be read.
    """
    if len(vectors) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates, but {len(vectors)} vectors")
    if not candidates:
        return []
    found = [*_same_texts(candidates, store)]
    for pair in (*_active(candidates, vectors, snapshot), *_beside(candidates, vectors, store, pending or {})):
        found += _near(pair)
    return sorted(found, key=lambda one: (one.candidate, not one.conflict, -one.cosine))


def pending_vectors(store: ExampleStore, encoder: str) -> dict[str, Floats]:
    """The embeddings of pending examples, of the oldest ones at most a thousand.

    Args:
        store: Where they are.
        encoder: The encoder's fingerprint.

    Returns:
        (d,) float32 unit vectors by example id; one that is not embedded yet is left out.

    Raises:
        StoreUnavailable: When the store cannot be read.
    """
    page, _ = store.page(_MOST_PENDING, wanted=Filter(state=State.PENDING))
    vectors = store.vectors(encoder) if page else {}
    return {example.id: vectors[example.id] for example in page if example.id in vectors}


@dataclass(frozen=True, slots=True)
class _Pair:
    """A new example, and one that may be near it."""

    candidate: int
    example: Example
    other: Example
    stored: bool
    cosine: float

    def found(self, code: Code, message: str) -> Finding:
        return Finding(code, self.candidate, self.example, self.other, self.stored, self.cosine, message)


def _same_texts(candidates: Sequence[Example], store: ExampleStore) -> Iterator[Finding]:
    for number, example in enumerate(candidates):
        if example.revision:  # it is the stored one itself, about to be accepted or relabelled
            continue
        with suppress(ExampleNotFound):
            stored = store.get(example.id)
            pair = _Pair(number, example, stored, True, 1.0)
            if stored.state == State.REVOKED:
                text = f"{stored.id} holds this text and was revoked: restore it if that was wrong"
                yield pair.found(Code.SAME_TEXT_REVOKED, text)
            elif not stored.same_labels(example):
                text = f"{stored.id} holds this text as {_named(stored)}: relabel that one, or leave this one out"
                yield pair.found(Code.SAME_TEXT_OTHER_LABELS, text)
            else:
                text = (
                    f"{stored.id} holds this text with the same labels and is {stored.state}: there is nothing to add"
                )
                yield pair.found(Code.SAME_TEXT_KNOWN, text)


def _near(pair: _Pair) -> Iterator[Finding]:
    example, other = pair.example, pair.other
    if other.id == example.id:
        return
    beside = f"{other.id} ({_named(other)}, {other.state if pair.stored else 'new as well'})"
    if other.label != example.label:
        if pair.cosine >= PRECEDENT_FROM:
            text = f"{beside} is near (cosine {pair.cosine:.2f}) and says the opposite: see which of the two is right"
            yield pair.found(Code.NEAR_OTHER_LABEL, text)
    elif pair.cosine >= DUPLICATE_FROM:
        but = "" if other.technique == example.technique else ", but names another technique"
        text = f"{beside} all but repeats it (cosine {pair.cosine:.2f}){but}: one of the two may do"
        yield pair.found(Code.NEAR_DUPLICATE, text)


def _active(candidates: Sequence[Example], vectors: Floats, snapshot: Snapshot) -> Iterator[_Pair]:
    for label in Label:
        side = snapshot.side(label)
        hits = side.index.search(vectors, NEIGHBOURS)
        for number, example in enumerate(candidates):
            for cosine, position in zip(hits.cosines[number].tolist(), hits.positions[number].tolist(), strict=True):
                if position >= 0:
                    yield _Pair(number, example, side.examples[position], True, cosine)


def _beside(
    candidates: Sequence[Example], vectors: Floats, store: ExampleStore, pending: Mapping[str, Floats]
) -> Iterator[_Pair]:
    """Pairs of new examples, and of these with pending ones, that are near enough to matter."""
    own = {example.id for example in candidates}
    names = [name for name in pending if name not in own]
    rows = np.array([*vectors, *(pending[name] for name in names)], np.float32)
    cosines = np.clip(vectors @ rows.T, -1.0, 1.0)
    held: dict[str, Example] = {}
    for number, column in np.argwhere(cosines >= PRECEDENT_FROM).tolist():
        if column < len(candidates):
            yield _Pair(number, candidates[number], candidates[column], False, float(cosines[number, column]))
            continue
        name = names[column - len(candidates)]
        if name not in held:
            held[name] = store.get(name)
        yield _Pair(number, candidates[number], held[name], True, float(cosines[number, column]))


def _named(example: Example) -> str:
    return f"{example.label}, {example.technique}" if example.technique else str(example.label)
