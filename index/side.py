"""The examples of one label with their index."""

from collections.abc import Iterable, Sequence

import numpy as np

from index.example import Example
from index.graph import Pause, rest
from index.layers import Layers
from index.roll import Membership, Places, Roll
from index.search import VectorIndex, Vectors

EXACT_UP_TO = 16_384
"""So many examples of a side are searched by comparing with all; more, with a graph."""
TAIL = 2_048
"""From so many examples on, the tail is merged into the graph."""
_HOLES = 1_024
_HOLES_SHARE = 0.1


class Side:
    """The examples of one label with their index; immutable.

    Attributes:
        examples: The examples, by the positions that the index finds.
        index: The index.
    """

    def __init__(self, examples: Sequence[Example] | Roll, index: VectorIndex | Layers) -> None:
        """Hold examples, and an index whose rows stand in the same order."""
        if len(examples) != index.size:
            raise ValueError(f"{len(examples)} examples, but {index.size} vectors")
        self.examples = examples if isinstance(examples, Roll) else Roll.of(examples)
        self.index = index if isinstance(index, Layers) else Layers.of(index)

    @property
    def ids(self) -> Places:
        """The ids of the examples."""
        return self.examples.ids

    def get(self, name: str) -> Example | None:
        """The example with an id, if it is there."""
        position = self.ids.get(name)
        return None if position < 0 else self.examples[position]

    def membership(self, names: tuple[str, ...]) -> Membership:
        """Which example carries which technique or capability.

        Args:
            names: Techniques and capabilities, in the caller's order.

        Returns:
            What `membership[positions]` says: (..., len(names)) bool; position -1 (no neighbour) carries nothing.
        """
        return self.examples.membership(names)

    def extended(self, examples: Sequence[Example], vectors: Vectors) -> "Side":
        """A new side that holds these examples too; none of them is there already."""
        return Side(self.examples.extended(examples), self.index.extended(vectors)) if examples else self

    def without(self, ids: Iterable[str]) -> "Side":
        """A new side that lacks these examples; what is not there is left out."""
        held = [name for name in ids if name in self.ids]
        if not held:
            return self
        positions = np.array([self.ids.get(name) for name in held], np.int64)
        return Side(self.examples.without(held), self.index.without(positions))

    @property
    def renewal_due(self) -> bool:
        """Whether `renewed` makes a better side of it."""
        if self.index.graph is None and len(self.examples) > EXACT_UP_TO:
            return True
        return self._many_holes or (self.index.graph is not None and self.index.tail.size >= TAIL)

    @property
    def _many_holes(self) -> bool:
        return self.index.holes > max(_HOLES, _HOLES_SHARE * len(self.examples))

    def renewed(self, pause: Pause = rest) -> "Side":
        """The same examples with an index that suits their number. Takes long, on the calling thread alone.

        Args:
            pause: Called between parts of the work; what it raises ends it.

        Returns:
            A new side; where it has closed up holes, examples have other positions.
        """
        if self.index.graph is not None and not self._many_holes:
            return Side(self.examples, self.index.merged(pause))
        layers = self.index.compacted(pause) if len(self.examples) > EXACT_UP_TO else self.index.closed_up()
        return Side(Roll.of(list(self.examples)), layers)

    def brought_up(self, before: "Side", now: "Side") -> "Side":
        """What changed between two sides, done to this one: it was renewed from the one, the other came of it since.

        Args:
            before: What was renewed.
            now: What became of that meanwhile.

        Returns:
            A side that finds what `now` finds.
        """
        left = [before.examples[position].id for position in before.index.left_in(now.index).tolist()]
        came = now.index.tail_positions >= before.index.span
        examples = [now.examples[position] for position in now.index.tail_positions[came].tolist()]
        return self.without(left).extended(examples, now.index.tail.rows[came])
