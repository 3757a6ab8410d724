"""The examples of one label, by position; what an index finds is looked up here."""

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.example import Example
from index.grown import Grown

Kind = tuple[str | None, tuple[str, ...]]
_PARTS = 1024


class Places(Collection[str]):
    """The position of each example, by its id. Immutable: another one copies only the small parts that differ."""

    def __init__(self, parts: Sequence[dict[str, int]] | None = None) -> None:
        """Hold no ids, or parts made from another's."""
        self._parts = parts if parts is not None else [{} for _ in range(_PARTS)]
        self._size = sum(map(len, self._parts))

    def changed(self, came: Mapping[str, int], left: Iterable[str] = ()) -> "Places":
        """Other places: first some ids leave, then others come with their positions."""
        parts, own = list(self._parts), set()

        def part(name: str) -> dict[str, int]:
            number = _part(name)
            if number not in own:
                own.add(number)
                parts[number] = parts[number].copy()
            return parts[number]

        for name in left:
            part(name).pop(name, None)
        for name, position in came.items():
            part(name)[name] = position
        return Places(parts)

    def get(self, name: str) -> int:
        """The position of an id; -1 for one that is not there."""
        return self._parts[_part(name)].get(name, -1)

    def __contains__(self, name: object) -> bool:
        """Whether an id is there."""
        return isinstance(name, str) and self.get(name) >= 0

    def __iter__(self) -> Iterator[str]:
        """The ids, in no order."""
        for part in self._parts:
            yield from part

    def __len__(self) -> int:
        """How many ids there are."""
        return self._size


def _part(name: str) -> int:
    return zlib.crc32(name.encode()) % _PARTS  # the same in every process, unlike hash()


class Kinds:
    """The different labellings of examples, numbered from 1; 0 is that of no example. Immutable."""

    def __init__(self, kinds: tuple[Kind, ...] = ()) -> None:
        """Number labellings in their order."""
        self._kinds = kinds
        self._numbers = {kind: number for number, kind in enumerate(kinds, 1)}
        self._tables: dict[tuple[str, ...], NDArray[np.bool_]] = {}

    def extended(self, kinds: Iterable[Kind]) -> "Kinds":
        """These labellings and others; itself when there is none that is new."""
        new = tuple(kind for kind in dict.fromkeys(kinds) if kind not in self._numbers)
        return Kinds(self._kinds + new) if new else self

    def number(self, kind: Kind) -> int:
        """The number of a labelling that is there."""
        return self._numbers[kind]

    def table(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """(labellings + 1, len(names)) bool: which labelling carries which name."""
        held = self._tables.get(names)
        if held is None:
            held = np.zeros((len(self._kinds) + 1, len(names)), bool)
            for number, (technique, capabilities) in enumerate(self._kinds, 1):
                carried = {technique, *capabilities}
                held[number] = [name in carried for name in names]
            self._tables[names] = held
        return held


@dataclass(frozen=True, slots=True)
class Membership:
    """Which example carries which technique or capability.

    Attributes:
        table: (labellings + 1, names) bool.
        numbers: (n + 1,) int32: the labelling of position -1, which carries nothing, and of every other.
    """

    table: NDArray[np.bool_]
    numbers: NDArray[np.int32]

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """What the examples at these positions carry: (..., names) bool; position -1 carries nothing."""
        return self.table[self.numbers[positions + 1]]


class Roll:
    """The examples of a side, each at its position as long as it is there. Immutable."""

    def __init__(self, held: Grown[np.object_], numbers: Grown[np.int32], kinds: Kinds, ids: Places) -> None:
        """Hold the parts; `Roll.of` makes them."""
        self._held = held
        self._numbers = numbers
        self._kinds = kinds
        self.ids = ids

    @classmethod
    def of(cls, examples: Sequence[Example | None]) -> "Roll":
        """A roll of these examples, at the positions 0, 1, 2, ...; None leaves a position empty."""
        empty = cls(Grown(np.empty(0, object)), Grown(np.zeros(1, np.int32)), Kinds(), Places())
        return empty.extended(examples) if examples else empty

    @property
    def span(self) -> int:
        """The position that the next example takes."""
        return len(self._held)

    def extended(self, examples: Sequence[Example | None]) -> "Roll":
        """A new roll that has these examples too, at the positions from `span` on."""
        kinds = [None if example is None else (example.technique, example.capabilities) for example in examples]
        known = self._kinds.extended(kind for kind in kinds if kind is not None)
        numbers = np.array([0 if kind is None else known.number(kind) for kind in kinds], np.int32)
        came = {example.id: place for place, example in enumerate(examples, self.span) if example is not None}
        return Roll(self._held.extended(examples), self._numbers.extended(numbers), known, self.ids.changed(came))

    def without(self, ids: Iterable[str]) -> "Roll":
        """A new roll that lacks some examples; the others keep their positions."""
        return Roll(self._held, self._numbers, self._kinds, self.ids.changed({}, ids))

    def membership(self, names: tuple[str, ...]) -> Membership:
        """Which example carries which technique or capability, in the order of the names."""
        return Membership(self._kinds.table(names), self._numbers.view)

    def __getitem__(self, position: int) -> Example:
        """The example at a position that an index found."""
        example: Example = self._held.view[position]
        return example

    def id_at(self, position: int) -> str:
        """The id of the example that is, or was, at a position; "" when there was none."""
        example = self._held.view[position]
        return "" if example is None else example.id

    def __iter__(self) -> Iterator[Example]:
        """The examples, in the order of their positions."""
        whole = len(self) == self.span
        for position, example in enumerate(self._held.view):
            if whole or (example is not None and self.ids.get(example.id) == position):
                yield example

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.ids)
