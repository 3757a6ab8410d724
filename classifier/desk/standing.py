"""How sampled prompts stand among the known examples, and how they would stand among others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier import evidence
from classifier.aggregate import aggregate
from classifier.desk.reservoir import wordless
from classifier.desk.sample import Entry, Floats, Sample
from classifier.desk.secret import mark_of
from classifier.scorer import Model, abstention_of
from classifier.verdict import Decision
from index.example import Example, Label
from index.live import Side, Snapshot
from index.search import ExactIndex, Hits

_FOREIGN = "und"
_NOTHING = -2.0
"""Below every cosine."""
_PROMPTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to become of the examples that are searched.

    Attributes:
        added: Examples by label, each with its (d,) float32 unit vector.
        gone: The ids of active examples that are taken away; one that is added as well takes the place of its old self.
    """

    added: Mapping[Label, Sequence[tuple[Example, Floats]]]
    gone: frozenset[str]


@dataclass(frozen=True, slots=True)
class Standing:
    """Sampled prompts among one state of the examples.

    Attributes:
        snapshot: The examples.
        neighbours: Of all windows.
        marks: Of each label's examples, what stands for their texts.
        logits: (w,) float32 extraction logits of all windows.
        probabilities: One for each prompt, in [0, 1].
        decisions: One for each prompt.
    """

    snapshot: Snapshot
    neighbours: evidence.Neighbours
    marks: Mapping[Label, frozenset[bytes]]
    logits: Floats
    probabilities: tuple[float, ...]
    decisions: tuple[Decision, ...]


def stand(sample: Sample, model: Model, snapshot: Snapshot, key: bytes) -> Standing:
    """Score sampled prompts among the examples of a snapshot.

    Args:
        sample: The prompts.
        model: The bundle under which they were sampled; its thresholds decide.
        snapshot: The examples.
        key: The key of the prompts' marks.

    Returns:
        What the scorer itself would say of them now.
    """
    neighbours = evidence.search(snapshot, sample.embeddings)
    logits = _logits(model, neighbours, sample.embeddings, sample.words)
    marks = {label: frozenset(mark_of(name, key) for name in snapshot.side(label).ids) for label in Label}
    probabilities, decisions = [], []
    for entry, start, end in zip(sample.entries, sample.starts, sample.starts[1:], strict=False):
        part = slice(int(start), int(end))
        probability, decision = _judged(entry, model, logits[part], evidence.highest(neighbours, part), marks)
        probabilities.append(probability)
        decisions.append(decision)
    return Standing(snapshot, neighbours, marks, logits, tuple(probabilities), tuple(decisions))


def change(standing: Standing, sample: Sample, model: Model, changes: Changes, key: bytes) -> Standing:
    """How the prompts would stand among changed examples; only what the changes reach is worked out anew.

    Args:
        standing: How they stand now.
        sample: The prompts.
        model: As for stand.
        changes: What is added and taken away.
        key: As for stand.

    Returns:
        Their standing, its snapshot and neighbours still the old ones.
    """
    marks = {label: _marks(standing, label, changes, key) for label in Label}
    logits, probabilities, decisions = standing.logits.copy(), list(standing.probabilities), list(standing.decisions)
    rows = np.flatnonzero(_reached(standing, sample, changes))
    reached = set((np.searchsorted(sample.starts, rows, side="right") - 1).tolist())
    numbers = [
        number
        for number, entry in enumerate(sample.entries)
        if number in reached or _repeats(entry, marks) != _repeats(entry, standing.marks)
    ]
    for start in range(0, len(numbers), _PROMPTS_AT_ONCE):
        some = numbers[start : start + _PROMPTS_AT_ONCE]
        rows = np.concatenate([np.arange(sample.starts[number], sample.starts[number + 1]) for number in some])
        neighbours = _neighbours(standing, sample.embeddings[rows], rows, changes)
        logits[rows] = _logits(model, neighbours, sample.embeddings[rows], sample.words[rows])
        place = 0
        for number in some:
            entry, part = sample.entries[number], slice(place, place + len(sample.entries[number].words))
            place = part.stop
            found = _judged(entry, model, logits[rows[part]], evidence.highest(neighbours, part), marks)
            probabilities[number], decisions[number] = found
    return Standing(standing.snapshot, standing.neighbours, marks, logits, tuple(probabilities), tuple(decisions))


def _logits(model: Model, neighbours: evidence.Neighbours, embeddings: Floats, words: Floats) -> Floats:
    near = evidence.features(neighbours, model.labels.techniques, model.labels.capabilities)
    bare = wordless(model.head, np.hstack([embeddings, near]))
    return np.asarray(bare + words + evidence.precedent(neighbours), np.float32)


def _judged(
    entry: Entry, model: Model, logits: Floats, highest: float, marks: Mapping[Label, frozenset[bytes]]
) -> tuple[float, Decision]:
    """Probability and decision of one prompt, as the scorer comes to them."""
    row, extraction, repeated = 0, -np.inf, _repeats(entry, marks)
    for long, finer in entry.views:
        own = logits[row : row + long + finer, None]
        extraction = max(extraction, float(aggregate(own, long, model.pooling)[0]))
        row += long + finer
    probability = model.calibration[0].probability(extraction + repeated)
    why = abstention_of(_FOREIGN if entry.foreign else None, highest, repeated, model.least_cosine)
    return probability, model.thresholds.decide(probability) if why is None else Decision.ABSTAIN


def _repeats(entry: Entry, marks: Mapping[Label, frozenset[bytes]]) -> float:
    """What it adds to the logit that the prompt's text is an example's: `evidence.repetition` without the text."""
    return evidence.REPETITION_WEIGHT * ((entry.mark in marks[Label.EXTRACTION]) - (entry.mark in marks[Label.BENIGN]))


def _marks(standing: Standing, label: Label, changes: Changes, key: bytes) -> frozenset[bytes]:
    gone = {mark_of(name, key) for name in changes.gone}
    return (standing.marks[label] - gone) | {mark_of(example.id, key) for example, _ in changes.added[label]}


def _vectors(added: Sequence[tuple[Example, Floats]], dimensions: int) -> Floats:
    return np.array([vector for _, vector in added], np.float32).reshape(len(added), dimensions)


def _lost(side: Side, positions: NDArray[np.int64], gone: frozenset[str]) -> NDArray[np.bool_]:
    """Which of the positions hold an example that is taken away."""
    if not gone:
        return np.zeros(positions.shape, bool)
    names = [position for position in np.unique(positions).tolist() if position >= 0]
    return np.isin(positions, [position for position in names if side.examples[position].id in gone])


def _reached(standing: Standing, sample: Sample, changes: Changes) -> NDArray[np.int64]:
    """(w,) over 0 for the windows whose neighbours change."""
    found = np.zeros(len(sample.words), np.int64)
    for label, (side, hits) in zip((Label.EXTRACTION, Label.BENIGN), standing.neighbours.sides, strict=True):
        cosines = sample.embeddings @ _vectors(changes.added[label], sample.embeddings.shape[1]).T
        found += (cosines >= hits.cosines[:, -1:]).any(axis=1)
        found += _lost(side, hits.positions, changes.gone).any(axis=1)
    return found


def _neighbours(
    standing: Standing, embeddings: Floats, rows: NDArray[np.int64], changes: Changes
) -> evidence.Neighbours:
    """The neighbours of some windows among the changed examples."""
    sides, found = [], []
    for label, (side, hits) in zip((Label.EXTRACTION, Label.BENIGN), standing.neighbours.sides, strict=True):
        made, merged = _merged(
            side, Hits(hits.cosines[rows], hits.positions[rows]), embeddings, changes.added[label], changes.gone
        )
        sides.append(made)
        found.append(merged)
    return evidence.Neighbours(Snapshot(standing.snapshot.revision, *sides), *found)


def _merged(
    side: Side, hits: Hits, embeddings: Floats, added: Sequence[tuple[Example, Floats]], gone: frozenset[str]
) -> tuple[Side, Hits]:
    """One side's nearest examples after the changes, and a side that holds those that are among them."""
    leaving = sum(name in side.ids for name in gone)
    known = _without(side, hits, embeddings, gone, leaving) if leaving else hits
    held = int(known.positions.max(initial=-1)) + 1  # from here on positions stand for what is added
    cosines = np.clip(embeddings @ _vectors(added, embeddings.shape[1]).T, -1.0, 1.0)
    places = np.broadcast_to(held + np.arange(len(added)), cosines.shape)
    # Of equal cosines the one that is known already comes first, as in an index that was added to.
    both = np.hstack([np.where(known.positions >= 0, known.cosines, _NOTHING), cosines])
    order = np.argsort(-both, axis=1, kind="stable")[:, : evidence.NEIGHBOURS]
    positions = np.take_along_axis(np.hstack([known.positions, places]), order, axis=1)
    values = np.maximum(np.take_along_axis(both, order, axis=1), -1.0).astype(np.float32)
    used = [position for position in np.unique(positions).tolist() if position >= 0]
    examples = tuple(side.examples[p] if p < held else added[p - held][0] for p in used)
    local = np.where(positions >= 0, np.searchsorted(used, positions), -1) if used else np.full_like(positions, -1)
    return Side(examples, ExactIndex(np.zeros((len(examples), 0), np.float32))), Hits(values, local)


def _without(side: Side, hits: Hits, embeddings: Floats, gone: frozenset[str], leaving: int) -> Hits:
    """Hits without examples that are taken away; where one stood among them, the next ones are searched."""
    lost = _lost(side, hits.positions, gone).any(axis=1)
    width = evidence.NEIGHBOURS + leaving
    cosines = np.full((len(embeddings), width), -1.0, np.float32)
    positions = np.full((len(embeddings), width), -1, np.int64)
    cosines[:, : evidence.NEIGHBOURS], positions[:, : evidence.NEIGHBOURS] = hits.cosines, hits.positions
    if lost.any():
        found = side.index.search(embeddings[lost], width)
        cosines[lost], positions[lost] = found.cosines, found.positions
        positions[_lost(side, positions, gone)] = -1
    return Hits(cosines, positions)
