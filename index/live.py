"""The live index: a store, an embedding function and the immutable snapshot that readers use."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from index.change import Act
from index.contract import ExampleStore
from index.errors import StoreUnavailable
from index.example import Example, Label, State
from index.graph import Pause, rest
from index.search import BatchIndex, Hits, VectorIndex, Vectors
from index.side import Side

__all__ = ["Embed", "ExampleIndex", "Match", "Side", "Snapshot", "empty_snapshot", "merged"]

T = TypeVar("T")
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

    def with_side(self, label: Label, side: Side) -> "Snapshot":
        """A new snapshot of the same revision with another side for a label."""
        return Snapshot(
            self.revision,
            side if label == Label.EXTRACTION else self.extraction,
            side if label == Label.BENIGN else self.benign,
        )

    def without(self, ids: Iterable[str]) -> "Snapshot":
        """A new snapshot of the same revision that lacks these examples."""
        left = list(ids)
        return Snapshot(self.revision, self.extraction.without(left), self.benign.without(left))

    @property
    def built(self) -> bool:
        """Whether any side is searched by a graph, which takes long to build."""
        return any(self.side(label).index.graph is not None for label in Label)

    def holding(self, examples: Sequence[Example], vectors: Vectors, revision: int) -> "Snapshot":
        """A new snapshot of these examples alone; those that are here alike keep their place in the index.

        Args:
            examples: Examples of both labels; a revision of 0 stands for that of the one that is here.
            vectors: (n, d) float32 unit rows, theirs.
            revision: The new snapshot's.

        Returns:
            The snapshot.
        """
        wanted = {example.id: example for example in examples}
        held = {example.id: example for label in Label for example in self.side(label).examples}
        same = {name for name, own in held.items() if name in wanted and _alike(own, wanted[name])}
        rows = [row for row, example in enumerate(examples) if example.id not in same]
        rest_of = self.without(held.keys() - same)
        return rest_of.extended([examples[row] for row in rows], vectors[rows], revision)

    def get(self, name: str) -> Example | None:
        """The example with an id, on whichever side it is; None when it is not searched."""
        return self.extraction.get(name) or self.benign.get(name)

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
        self._renewing = threading.Lock()
        self._snapshot = start or empty_snapshot(dimensions, make_index)
        self.catch_up()

    @property
    def snapshot(self) -> Snapshot:
        """The examples as they are now."""
        return self._snapshot

    def write(self, work: Callable[[ExampleStore], T]) -> tuple[T, int]:
        """Do a write, and make what it changed effective before this returns.

        Args:
            work: Writes to the store that it is given.

        Returns:
            What the work returned, and a revision of the index in which it is effective.

        Raises:
            StoreUnavailable: When the store cannot be used. What was written nevertheless is effective with the next
                write, or when the index catches up.
        """
        with self._writing:
            done = work(self.store)
            self._follow({})
            return done, self._snapshot.revision

    def embedded(self, examples: Sequence[Example]) -> dict[str, Vectors]:
        """The examples' vectors by their ids, for `add`; takes as long as the encoder takes.

        Args:
            examples: What is to be added.

        Returns:
            (d,) float32 unit vectors.
        """
        vectors = self._embed([example.text for example in examples])
        if examples and vectors.shape != (len(examples), self._dimensions):
            raise ValueError(f"{len(examples)} examples, but vectors of shape {vectors.shape}")
        return {example.id: vector for example, vector in zip(examples, vectors, strict=True)}

    def add(
        self, examples: Sequence[Example], act: Act | None = None, vectors: Mapping[str, Vectors] | None = None
    ) -> list[Example]:
        """Store examples durably and make the active ones searchable, before this returns.

        Args:
            examples: What to add: all of it or nothing.
            act: Who adds them, and why; None for the first example's author.
            vectors: What `embedded` made of them; None has them encoded now.

        Returns:
            The examples as they are stored.
        """
        act = act or Act(examples[0].author if examples else "")
        # Whatever can fail does so before anything is stored; and the encoder keeps no other writer waiting.
        vectors = self.embedded(examples) if vectors is None else vectors
        with self._writing:
            stored = self.store.add(examples, act)
            self._keep(vectors)
            self._follow(vectors)
        return stored

    def catch_up(self) -> None:
        """Bring the snapshot to the store's revision, whoever wrote to it.

        Raises:
            StoreUnavailable: When the store cannot be read; the snapshot stays as it was.
        """
        with self._writing:
            self._follow({})

    def renew(self, pause: Pause = rest) -> bool:
        """Give the sides that need it an index that suits their number of examples.

        Takes long, for one caller at a time, and keeps no reader and no writer waiting meanwhile.

        Args:
            pause: Called between parts of the work; what it raises ends it, and leaves the snapshot as it is.

        Returns:
            Whether there was anything to do.
        """
        with self._renewing:
            due = [label for label in Label if self._snapshot.side(label).renewal_due]
            for label in due:
                before = self._snapshot.side(label)
                side = before.renewed(pause)
                with self._writing:
                    now = self._snapshot
                    self._snapshot = now.with_side(label, side.brought_up(before, now.side(label)))
        return bool(due)

    def _follow(self, known: Mapping[str, Vectors]) -> None:
        revision = self.store.revision()  # before the rows: what comes later is found twice rather than never
        held = self._snapshot
        if revision == held.revision:
            return
        changed = [example for example in self.store.since(held.revision) if not _as_held(example, held)]
        fresh = [example for example in changed if example.state is State.ACTIVE]
        vectors = self._vectors_of(fresh, known) if fresh else np.zeros((0, self._dimensions), np.float32)
        rest_of = held.without(example.id for example in changed)
        self._snapshot = rest_of.extended(fresh, vectors, max(revision, held.revision))

    def _vectors_of(self, examples: Sequence[Example], known: Mapping[str, Vectors]) -> Vectors:
        if any(example.id not in known for example in examples):
            known = {**self.store.vectors(self._encoder, since=self._snapshot.revision), **known}
        missing = [example for example in examples if example.id not in known]
        if missing:
            made = self.embedded(missing)
            self._keep(made)
            known = {**known, **made}
        return np.array([known[example.id] for example in examples], np.float32).reshape(len(examples), -1)

    def _keep(self, vectors: Mapping[str, Vectors]) -> None:
        with suppress(StoreUnavailable):  # a vector that is not kept is made again
            self.store.keep_vectors(self._encoder, vectors)


def _as_held(example: Example, held: Snapshot) -> bool:
    """Whether a changed example is searched, or not searched, as it is now; its place in the index can stay."""
    own = held.get(example.id)
    if own is None or example.state is not State.ACTIVE:
        return own is None and example.state is not State.ACTIVE
    return _alike(own, example)


def _alike(own: Example, example: Example) -> bool:
    """Whether two examples of one text say the same; a bundle's own ones do not know the store's revisions."""
    return own.same_labels(example) and (own.changed == example.changed or 0 in (own.changed, example.changed))
