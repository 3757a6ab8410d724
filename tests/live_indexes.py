"""What the tests of the live index share: examples and their vectors, indexes over one store, and what an index must hold."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np

from classifier.encoder import HashEncoder
from index.change import Act
from index.example import Example, Label, State
from index.live import ExampleIndex, Side, Snapshot
from index.search import FaissIndex, VectorIndex, Vectors
from index.store import open_store

SEED = "a seed example that every store here begins with"
ENCODER = HashEncoder()
ACT = Act("ann")
WORDS = ["harvest", "answers", "teach", "model", "poem", "river", "translate", "letter", "invoice", "garden"]
Open = Callable[..., ExampleIndex]


def seeded_store(folder: Path) -> Path:
    """Where the store is; it holds one benign example."""
    path = folder / "examples.sqlite"
    with closing(open_store(path)) as store:
        store.add([benign(SEED)], ACT)
    return path


@contextmanager
def indexes_over(path: Path, embed: Callable[[Sequence[str]], Vectors]) -> Iterator[Open]:
    """Opens an index over the store with a connection of its own, as often as it is called; all are closed at the end."""
    with ExitStack() as opened:

        def opens(
            encoder: str = ENCODER.fingerprint, make_index: Callable[[Vectors], VectorIndex] = FaissIndex
        ) -> ExampleIndex:
            store = opened.enter_context(closing(open_store(path)))
            return ExampleIndex(store, embed, encoder, ENCODER.dimensions, make_index)

        yield opens


def embed(texts: Sequence[str]) -> Vectors:
    """(n, 384) float32 unit rows of the texts."""
    return ENCODER.encode([tokens.ids for tokens in ENCODER.tokenise(texts)])


def benign(text: str) -> Example:
    """A benign example of the text."""
    return Example(text, Label.BENIGN)


def extraction(text: str, technique: str = "self_chat", *capabilities: str) -> Example:
    """An extraction example of the text."""
    return Example(text, Label.EXTRACTION, technique=technique, capabilities=capabilities)


def carried(side: Side, *names: str) -> list[list[bool]]:
    """What each example of a side carries, and then what no neighbour carries."""
    found: list[list[bool]] = side.membership(names)[np.array([*range(len(side.examples)), -1])].tolist()
    return found


def everything(snapshot: Snapshot) -> list[Example]:
    """All examples of a snapshot, oldest first within each label."""
    return [*snapshot.extraction.examples, *snapshot.benign.examples]


def nearest_text(snapshot: Snapshot, text: str) -> tuple[str, float]:
    """The example nearest to a text, and its cosine."""
    (match,) = snapshot.nearest(embed([text])[0], 1)
    return match.example.text, match.cosine


def assert_in_step(live: ExampleIndex) -> None:
    """The snapshot holds what the store holds, each example on its side, each vector beside its example."""
    stored = live.store.since(0)
    active = [example for example in stored if example.state is State.ACTIVE]
    assert live.snapshot.revision == live.store.revision()
    assert sorted(everything(live.snapshot), key=lambda e: e.id) == sorted(active, key=lambda e: e.id)
    for label in Label:
        side = live.snapshot.side(label)
        examples = list(side.examples)
        assert {example.label for example in examples} <= {label}
        assert side.index.size == len(examples) == len(side.examples)
        assert set(side.ids) == {example.id for example in examples}
        if examples:
            hits = side.index.search(embed([example.text for example in examples]), 1)
            assert [side.examples[position] for position in hits.positions[:, 0].tolist()] == examples
            np.testing.assert_allclose(hits.cosines[:, 0], 1.0, atol=1e-3)
    kept = live.store.vectors(ENCODER.fingerprint)
    assert set(kept) >= {example.id for example in active}
    for example in active:
        np.testing.assert_array_equal(kept[example.id], embed([example.text])[0])
