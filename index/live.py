"""The live index: a store, an embedding function and the immutable snapshot that readers use."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.errors import StoreUnavailable
from index.example import Example, Label
from index.search import BatchIndex, Hits, VectorIndex, Vectors
from index.store import ExampleStore

Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class Match:
    """An example near a query.

    Attributes:
        example: The example.
        cosine: Cosine of the two embeddings, in [-1, 1].
    """

    example: Example
    cosine: float


class Side:
    """The examples of one label with their index; immutable."""

    def __init__(self, examples: tuple[Example, ...], index: VectorIndex) -> None:
        """Hold examples, and an index whose rows stand in the same order."""
        if len(examples) != index.size:
            raise ValueError(f"{len(examples)} examples, but {index.size} vectors")
        self.examples = examples
        self.index = index
        self.ids = frozenset(example.id for example in examples)
        self._memberships: dict[tuple[str, ...], NDArray[np.bool_]] = {}

    def membership(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which example carries which technique or capability.

        Args:
            names: Techniques and capabilities, in the caller's order.

        Returns:
            (n + 1, len(names)) bool; the last row is all False, so that position -1 (no neighbour) carries nothing.
        """
        held = self._memberships.get(names)
        if held is None:
            held = np.zeros((len(self.examples) + 1, len(names)), bool)
            for row, example in enumerate(self.examples):
                carried = {example.technique, *example.capabilities}
                held[row] = [name in carried for name in names]
            self._memberships[names] = held
        return held

    def extended(self, examples: Sequence[Example], vectors: Vectors) -> "Side":
        """A new side that holds these examples too."""
        return Side((*self.examples, *examples), self.index.extended(vectors)) if examples else self


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All examples at one revision; immutable, so that readers need no lock.

    Attributes:
        revision: The store's revision.
        extraction: The extraction-style examples.
        benign: The benign examples.
    """

    revision: int
    extraction: Side
    benign: Side

    def side(self, label: Label) -> Side:
        """The examples of one label."""
        return self.extraction if label == Label.EXTRACTION else self.benign

    def extended(self, examples: Sequence[Example], vectors: Vectors, revision: int) -> "Snapshot":
        """A new snapshot that holds these examples too.

        Args:
            examples: Examples of both labels.
            vectors: (n, d) float32 unit rows, theirs.
            revision: The new snapshot's.

        Returns:
            The snapshot.
        """
        sides = {}
        for label in Label:
            rows = [row for row, example in enumerate(examples) if example.label == label]
            sides[label] = self.side(label).extended([examples[row] for row in rows], vectors[rows])
        return Snapshot(revision, sides[Label.EXTRACTION], sides[Label.BENIGN])

    def nearest(self, query: Vectors, limit: int, label: Label | None = None) -> list[Match]:
        """The examples nearest to one query.

        Args:
            query: (d,) float32 unit vector.
            limit: How many at most.
            label: Only examples of this label.

        Returns:
            Matches, highest cosine first.
        """
        sides = list(Label) if label is None else [label]
        found = [(self.side(name), self.side(name).index.search(query[None, :], limit)) for name in sides]
        return merged(found, 0, limit)


def merged(found: Sequence[tuple[Side, Hits]], row: int, limit: int) -> list[Match]:
    """One query's hits on several sides, as matches in the order of their cosines.

    Args:
        found: Each side with the hits of all queries on it.
        row: Which query.
        limit: How many matches at most.

    Returns:
        Matches, highest cosine first; of equal cosines the lower example id first.
    """
    ranked = []
    for number, (side, hits) in enumerate(found):
        cosines, positions = hits.cosines[row].tolist(), hits.positions[row].tolist()
        # What is below a side's own limit, and no tie with it, is below the limit of all.
        least = cosines[limit - 1] if 0 < limit <= len(cosines) else -1.0
        ranked += [
            (-cosine, side.examples[position].id, number, position)
            for cosine, position in zip(cosines, positions, strict=True)
            if position >= 0 and cosine >= least
        ]
    ranked.sort()
    return [Match(found[number][0].examples[position], -cosine) for cosine, _, number, position in ranked[:limit]]


def empty_snapshot(dimensions: int, make_index: Callable[[Vectors], VectorIndex] = BatchIndex) -> Snapshot:
    """A snapshot without examples at revision 0, for embeddings of so many dimensions."""
    empty = make_index(np.zeros((0, dimensions), np.float32))
    return Snapshot(0, Side((), empty), Side((), empty))


class ExampleIndex:
    """Keeps the snapshot in step with the store: what is acknowledged is durable and searchable."""

    def __init__(
        self,
        store: ExampleStore,
        embed: Embed,
        encoder: str,
        dimensions: int,
        make_index: Callable[[Vectors], VectorIndex] = BatchIndex,
        start: Snapshot | None = None,
    ) -> None:
        """Read the whole store and index it, encoding only what has no vector yet.

        Args:
            store: The source of truth.
            embed: Texts to (n, d) float32 unit rows.
            encoder: The encoder's fingerprint, under which vectors are kept.
            dimensions: The encoder's d.
            make_index: Makes an index of (n, d) rows.
            start: What is indexed already, so that only what came after its revision is read.
        """
        self.store = store
        self._embed = embed
        self._encoder = encoder
        self._dimensions = dimensions
        self._writing = threading.Lock()
        self._snapshot = start or empty_snapshot(dimensions, make_index)
        self.catch_up()

    @property
    def snapshot(self) -> Snapshot:
        """The examples as they are now."""
        return self._snapshot

    def add(self, examples: Sequence[Example], request_id: str | None = None) -> list[Example]:
        """Store examples durably and make them searchable, before this returns.

        Args:
            examples: What to add: all of it or nothing.
            request_id: The writer's own name for this write.

        Returns:
            The examples as they are stored.
        """
        with self._writing:
            # Whatever can fail does so before anything is stored.
            vectors = self._embed([example.text for example in examples])
            if examples and vectors.shape != (len(examples), self._dimensions):
                raise ValueError(f"{len(examples)} examples, but vectors of shape {vectors.shape}")
            stored = self.store.add(examples, request_id)
            with suppress(StoreUnavailable):  # a vector that is not kept is made again
                self._keep(examples, vectors)
            self.catch_up()
        return stored

    def catch_up(self) -> None:
        """Bring the snapshot to the store's revision, whoever wrote to it; what it holds already is not added again.

        Raises:
            StoreUnavailable: When the store cannot be read; the snapshot stays as it was.
        """
        revision = self.store.revision()  # before the rows: what comes later is found twice rather than never
        held = self._snapshot
        came = self.store.since(held.revision)
        fresh = [example for example in came if example.id not in held.side(example.label).ids]
        vectors = self._vectors_of(fresh) if fresh else np.zeros((0, self._dimensions), np.float32)
        self._snapshot = held.extended(fresh, vectors, max(revision, held.revision))

    def _vectors_of(self, examples: Sequence[Example]) -> Vectors:
        known = self.store.vectors(self._encoder, since=self._snapshot.revision)
        missing = [example for example in examples if example.id not in known]
        if missing:
            rows = self._embed([example.text for example in missing])
            self._keep(missing, rows)
            known.update((example.id, row) for example, row in zip(missing, rows, strict=True))
        return np.array([known[example.id] for example in examples], np.float32).reshape(len(examples), -1)

    def _keep(self, examples: Sequence[Example], vectors: Vectors) -> None:
        self.store.keep_vectors(self._encoder, {e.id: v for e, v in zip(examples, vectors, strict=True)})
