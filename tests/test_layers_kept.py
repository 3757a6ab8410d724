"""A snapshot that is kept in a file: it finds what it found, follows the store, and is opened only under its own seal."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from classifier.encoder import HashEncoder
from index import side as sides
from index.change import Act
from index.contract import ExampleStore, Relabel
from index.example import Example, Label
from index.flattened import arrays_of, graph_of
from index.graph import Graph
from index.live import ExampleIndex
from index.search import Vectors
from index.snapshots import SnapshotFile
from index.store import open_store

ENCODER = HashEncoder()
ACT = Act("ann")
COUNT = 80


def embed(texts: Sequence[str]) -> Vectors:
    """(n, 384) float32 unit rows of the texts."""
    return ENCODER.encode([tokens.ids for tokens in ENCODER.tokenise(texts)])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    """A store of extraction examples that need a graph, and of a few benign ones that do not."""
    with closing(open_store(tmp_path / "examples.sqlite")) as store:
        store.add([Example(f"harvest {n}", Label.EXTRACTION, technique="self_chat") for n in range(COUNT)], ACT)
        store.add([Example(f"poem {n}", Label.BENIGN) for n in range(5)], ACT)
        yield store


@pytest.fixture
def kept(tmp_path: Path) -> SnapshotFile:
    """Where the snapshot is kept."""
    return SnapshotFile(tmp_path / "index", ENCODER.fingerprint, ENCODER.dimensions)


@pytest.fixture
def saved(store: ExampleStore, kept: SnapshotFile, monkeypatch: pytest.MonkeyPatch) -> ExampleIndex:
    """An index whose snapshot is kept, with a graph and a tail and an example that was revoked."""
    monkeypatch.setattr(sides, "EXACT_UP_TO", 40)
    index = opened(store)
    assert index.renew()
    index.write(lambda store: store.revoke([harvest(3).id], ACT))
    index.add([Example("harvest the garden", Label.EXTRACTION, technique="self_chat")], ACT)
    kept.save(index.snapshot)
    return index


def opened(store: ExampleStore, kept: SnapshotFile | None = None, calls: list[str] | None = None) -> ExampleIndex:
    """An index over the store that begins with what is kept."""

    def noted(texts: Sequence[str]) -> Vectors:
        if calls is not None:
            calls.extend(texts)
        return embed(texts)

    start = kept.open(store) if kept else None
    return ExampleIndex(store, noted, ENCODER.fingerprint, ENCODER.dimensions, start=start)


def harvest(number: int) -> Example:
    """One of the store's examples."""
    return Example(f"harvest {number}", Label.EXTRACTION, technique="self_chat")


def found(index: ExampleIndex) -> list[list[tuple[str, float]]]:
    """What is nearest to some queries."""
    queries = embed([f"harvest {n}" for n in range(20)])
    return [[(m.example.id, round(m.cosine, 3)) for m in index.snapshot.nearest(query, 5)] for query in queries]


def test_a_kept_snapshot_finds_what_it_found_and_builds_and_embeds_nothing(
    store: ExampleStore, saved: ExampleIndex, kept: SnapshotFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graph, "build", None)
    calls: list[str] = []
    again = opened(store, kept, calls)
    assert again.snapshot.extraction.index.graph is not None
    assert (found(again), calls) == (found(saved), [])
    assert not again.renew()
    kept.save(again.snapshot)
    assert found(opened(store, kept)) == found(saved)


def test_what_changed_since_a_snapshot_was_kept_is_followed(
    store: ExampleStore, saved: ExampleIndex, kept: SnapshotFile
) -> None:
    saved.write(lambda store: store.revoke([harvest(5).id], ACT))
    saved.write(lambda store: store.relabel([Relabel(harvest(6).id, Label.BENIGN, None, ())], ACT))
    saved.write(lambda store: store.restore([harvest(3).id], ACT))
    saved.write(lambda store: store.accept([harvest(3).id], ACT))
    saved.add([Example("a new poem", Label.BENIGN)], ACT)
    again = opened(store, kept)
    assert again.snapshot.revision == saved.snapshot.revision
    for label in Label:
        assert set(again.snapshot.side(label).examples) == set(saved.snapshot.side(label).examples)
    assert found(again) == found(saved)


def flipped(path: Path) -> None:
    """Changes the last byte."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def another_header(path: Path) -> None:
    """Says another revision."""
    path.write_bytes(path.read_bytes().replace(b'"revision": 4', b'"revision": 3'))


@pytest.mark.parametrize(
    "spoil",
    [
        flipped,
        another_header,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.parent / "snapshot.key").write_bytes(os.urandom(32)),
        lambda path: (path.parent / "snapshot.key").chmod(0o644),
        lambda path: (path.parent / "snapshot.key").unlink(),
    ],
)
@pytest.mark.usefixtures("saved")
def test_a_snapshot_that_is_not_what_was_kept_is_not_opened(
    store: ExampleStore, kept: SnapshotFile, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    assert kept.open(store) is not None
    spoil(tmp_path / "index" / "snapshot")
    assert kept.open(store) is None


@pytest.mark.usefixtures("saved")
def test_a_snapshot_of_another_encoder_or_another_store_is_not_opened(
    store: ExampleStore, kept: SnapshotFile, tmp_path: Path
) -> None:
    assert SnapshotFile(tmp_path / "index", "another", ENCODER.dimensions).open(store) is None
    with closing(open_store(tmp_path / "empty.sqlite")) as other:
        assert kept.open(other) is None
    with closing(open_store(tmp_path / "other.sqlite")) as other:
        for number in range(store.revision() + 1):
            other.add([Example(f"another {number}", Label.BENIGN)], ACT)
        assert kept.open(other) is None


@pytest.mark.usefixtures("saved")
def test_a_snapshot_that_cannot_be_written_leaves_the_kept_one(
    store: ExampleStore, saved: ExampleIndex, kept: SnapshotFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "index" / "snapshot").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.save(saved.snapshot)
    assert (tmp_path / "index" / "snapshot").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["snapshot", "snapshot.key"]


@pytest.mark.parametrize("name", ["codes", "levels", "links", "entry"])
def test_a_graph_whose_parts_do_not_fit_is_refused(name: str) -> None:
    rows = embed([f"harvest {n}" for n in range(COUNT)])
    arrays = arrays_of(Graph.build(ENCODER.dimensions, [rows], np.arange(COUNT)))
    assert graph_of(arrays, ENCODER.dimensions).size == COUNT
    spoilt = arrays[name].copy()
    if name == "codes":
        spoilt = spoilt[:-1]
    else:
        spoilt[0] = COUNT
    with pytest.raises(ValueError, match="do not fit"):
        graph_of({**arrays, name: spoilt}, ENCODER.dimensions)


def test_a_link_on_a_high_level_to_a_row_below_it_is_refused() -> None:
    rows = embed([f"harvest {n}" for n in range(400)])
    arrays = arrays_of(Graph.build(ENCODER.dimensions, [rows], np.arange(400)))
    levels, links = arrays["levels"], arrays["links"].copy()
    high, low = int(np.argmax(levels > 1)), int(np.argmin(levels))
    start = int((levels[:high].astype(np.int64) + 1).sum()) * 32
    links[start + 64] = low
    with pytest.raises(ValueError, match="do not fit"):
        graph_of({**arrays, "links": links}, ENCODER.dimensions)
