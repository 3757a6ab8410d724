"""Neighbour evidence: what the nearest known examples say, as features of the head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.example import Label, content_hash, example_id
from index.live import Side, Snapshot
from index.search import Hits

Floats = NDArray[np.float32]
NEIGHBOURS = 10
PRECEDENT_FROM = 0.85
"""The cosine from which a known example is a precedent: beyond a shared topic, the prompt repeats or paraphrases it."""
PRECEDENT_WEIGHT = 10.0
"""What a precedent adds to the extraction logit at most, or takes away."""
REPETITION_WEIGHT = 40.0
"""What a known text adds to its own logit, or takes away: more than head and precedents can hold against it together."""
_SHARPNESS = 20.0
"""How fast a neighbour's vote fades with its distance: a cosine lower by 0.05 counts 1/e."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest examples of every query on each side.

    Attributes:
        snapshot: What was searched.
        extraction: Hits among the extraction-style examples.
        benign: Hits among the benign examples.
    """

    snapshot: Snapshot
    extraction: Hits
    benign: Hits

    @property
    def sides(self) -> tuple[tuple[Side, Hits], tuple[Side, Hits]]:
        """Each side with its hits."""
        return (self.snapshot.extraction, self.extraction), (self.snapshot.benign, self.benign)


def search(snapshot: Snapshot, queries: Floats) -> Neighbours:
    """Search both sides for (q, d) float32 unit rows."""
    found = [snapshot.side(label).index.search(queries, NEIGHBOURS) for label in (Label.EXTRACTION, Label.BENIGN)]
    return Neighbours(snapshot, found[0], found[1])


def search_leaving_out(snapshot: Snapshot, queries: Floats, ids: Sequence[frozenset[str]]) -> Neighbours:
    """Search both sides as search does, as if some examples were not there: for training.

    Args:
        snapshot: What is searched.
        queries: (q, d) float32 unit rows.
        ids: For each query the ids of the examples to leave out: its own and its group's.

    Returns:
        The nearest of the examples that are left.
    """
    most = max(map(len, ids), default=0)
    found = []
    for label in (Label.EXTRACTION, Label.BENIGN):
        side = snapshot.side(label)
        hits = side.index.search(queries, NEIGHBOURS + most)
        left_out = np.array(
            [
                [position >= 0 and side.examples[position].id in own for position in row]
                for row, own in zip(hits.positions, ids, strict=True)
            ],
            bool,
        ).reshape(hits.positions.shape)
        order = np.argsort(left_out, axis=1, kind="stable")[:, :NEIGHBOURS]
        found.append(
            Hits(np.take_along_axis(hits.cosines, order, axis=1), np.take_along_axis(hits.positions, order, axis=1))
        )
    return Neighbours(snapshot, found[0], found[1])


def features(neighbours: Neighbours, techniques: Sequence[str], capabilities: Sequence[str]) -> Floats:
    """Turn neighbours into numbers.

    Args:
        neighbours: The nearest examples of q queries.
        techniques: Technique names, in the head's order.
        capabilities: Capability names, in the head's order.

    Returns:
        (q, 8 + techniques + capabilities) float32: highest cosine and means of the nearest 3 and all of each side,
        the sides' differences, each technique's share of the extraction neighbours' votes, each capability's share
        of all neighbours' votes.
    """
    levels = [_levels(hits.cosines) for _, hits in neighbours.sides]
    return np.hstack(
        [
            *levels,
            (levels[0] - levels[1])[:, :2],
            _shares(neighbours.sides[:1], tuple(techniques)),
            _shares(neighbours.sides, tuple(capabilities)),
        ]
    ).astype(np.float32)


def width(techniques: int, capabilities: int) -> int:
    """How many features a query has, for so many techniques and capabilities."""
    return 8 + techniques + capabilities


def precedent(neighbours: Neighbours) -> Floats:
    """What the nearest examples add to the extraction logit because the prompt all but repeats one of them.

    The head is trained on prompts whose like it does not know, so it cannot learn how much a repeated one weighs; an
    analyst who adds an example expects it, and its paraphrases, to be decided by it.

    Args:
        neighbours: The nearest examples of q queries.

    Returns:
        (q,) float32 in [-10, 10]: positive near an extraction example, negative near a benign one, 0 below a cosine
        of PRECEDENT_FROM to both.
    """
    near = [
        np.clip((hits.cosines[:, 0] - PRECEDENT_FROM) / (1.0 - PRECEDENT_FROM), 0.0, 1.0)
        for hits in (neighbours.extraction, neighbours.benign)
    ]
    return np.asarray(PRECEDENT_WEIGHT * (near[0] - near[1]), np.float32)


def highest(neighbours: Neighbours, queries: slice) -> float:
    """The cosine of the example that is nearest to any of some queries.

    Args:
        neighbours: The nearest examples of all queries.
        queries: Which of them.

    Returns:
        The cosine; nan when there is no example.
    """
    held = [(hits.cosines[queries], hits.positions[queries]) for _, hits in neighbours.sides]
    found = [float(cosines[positions >= 0].max()) for cosines, positions in held if (positions >= 0).any()]
    return max(found, default=float("nan"))


def repetition(snapshot: Snapshot, text: str) -> float:
    """What it adds to a prompt's extraction logit that its text, to the letter, is a known example's.

    Precedents look at windows; this one holds for a prompt of any length.

    Args:
        snapshot: The known examples.
        text: The prompt, as it was sent.

    Returns:
        40 for an extraction example, -40 for a benign one, 0 for neither.
    """
    name = example_id(content_hash(text))
    return REPETITION_WEIGHT * ((name in snapshot.extraction.ids) - (name in snapshot.benign.ids))


def _levels(cosines: Floats) -> Floats:
    near = np.maximum(cosines, 0.0)
    return np.stack([near[:, 0], near[:, :3].mean(axis=1), near.mean(axis=1)], axis=1)


def _shares(sides: Sequence[tuple[Side, Hits]], names: tuple[str, ...]) -> Floats:
    cosines = np.hstack([hits.cosines for _, hits in sides])
    carried = np.concatenate([side.membership(names)[hits.positions] for side, hits in sides], axis=1)
    weights = np.exp(_SHARPNESS * (cosines - cosines.max(axis=1, keepdims=True)))
    shares = np.einsum("qk,qkn->qn", weights, carried) / weights.sum(axis=1, keepdims=True)
    return np.asarray(shares, np.float32)
