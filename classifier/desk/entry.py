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
        example_id: The new example's id.
        label: The new example's label.
        other_id: The example that it was held against; the same for a text that is stored already.
        other_label: That one's label.
        other_state: That one's state; None for one that is new as well.
        cosine: Of the two, in [-1, 1].
        message: The same in words, with what to do; no text of either.
    """

    code: Code
    example_id: str
    label: Label
    other_id: str
    other_label: Label
    other_state: State | None
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
    found: list[list[Finding]] = [[] for _ in candidates]
    for number, example in enumerate(candidates):
        with suppress(ExampleNotFound):
            found[number] += _same_text(example, store.get(example.id))
    for label in Label:
        side = snapshot.side(label)
        hits = side.index.search(np.ascontiguousarray(vectors, np.float32), NEIGHBOURS)
        for number, example in enumerate(candidates):
            for cosine, position in zip(hits.cosines[number].tolist(), hits.positions[number].tolist(), strict=True):
                if position >= 0:
                    found[number] += _near(example, side.examples[position], State.ACTIVE, cosine)
    for number, other, state, cosine in _beside(candidates, vectors, store, pending or {}):
        found[number] += _near(candidates[number], other, state, cosine)
    return [finding for own in found for finding in sorted(own, key=lambda one: (not one.conflict, -one.cosine))]


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


def _same_text(example: Example, stored: Example) -> Iterator[Finding]:
    if stored.state == State.REVOKED:
        text = f"{stored.id} holds this text and was revoked: restore it if that was wrong"
        yield _finding(Code.SAME_TEXT_REVOKED, example, stored, stored.state, 1.0, text)
    elif not stored.same_labels(example):
        text = f"{stored.id} holds this text as {_named(stored)}: relabel that one, or leave this one out"
        yield _finding(Code.SAME_TEXT_OTHER_LABELS, example, stored, stored.state, 1.0, text)
    elif stored.changed != example.changed:  # else it is the stored one itself, which is about to be accepted
        text = f"{stored.id} holds this text with the same labels and is {stored.state}: adding it changes nothing"
        yield _finding(Code.SAME_TEXT_KNOWN, example, stored, stored.state, 1.0, text)


def _near(example: Example, other: Example, state: State | None, cosine: float) -> Iterator[Finding]:
    if other.id == example.id:
        return
    whose = f"{other.id} ({_named(other)}{'' if state is State.ACTIVE else ', pending' if state else ', new as well'})"
    if other.label != example.label:
        if cosine >= PRECEDENT_FROM:
            text = f"{whose} is near (cosine {cosine:.2f}) and says the opposite: see which of the two is right"
            yield _finding(Code.NEAR_OTHER_LABEL, example, other, state, cosine, text)
    elif cosine >= DUPLICATE_FROM:
        but = "" if other.technique == example.technique else ", but names another technique"
        text = f"{whose} all but repeats it (cosine {cosine:.2f}){but}: one of the two may do"
        yield _finding(Code.NEAR_DUPLICATE, example, other, state, cosine, text)


def _beside(
    candidates: Sequence[Example], vectors: Floats, store: ExampleStore, pending: Mapping[str, Floats]
) -> Iterator[tuple[int, Example, State | None, float]]:
    """Pairs of a candidate with another one, and with pending examples, that are near enough to matter."""
    own = {example.id for example in candidates}
    others = [(candidate, None, vector) for candidate, vector in zip(candidates, vectors, strict=True)]
    names = [name for name in pending if name not in own]
    rows = np.array([*(vector for _, _, vector in others), *(pending[name] for name in names)], np.float32)
    cosines = np.clip(vectors @ rows.T, -1.0, 1.0)
    held: dict[str, Example] = {}
    for number, column in np.argwhere(cosines >= PRECEDENT_FROM).tolist():
        cosine = float(cosines[number, column])
        if column < len(candidates):
            if column != number:
                yield number, candidates[column], None, cosine
            continue
        name = names[column - len(candidates)]
        if name not in held:
            held[name] = store.get(name)
        yield number, held[name], State.PENDING, cosine


def _named(example: Example) -> str:
    return f"{example.label}, {example.technique}" if example.technique else str(example.label)


def _finding(code: Code, example: Example, other: Example, state: State | None, cosine: float, message: str) -> Finding:
    return Finding(code, example.id, example.label, other.id, other.label, state, cosine, message)
