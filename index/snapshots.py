"""Keeps a snapshot's vectors and graphs in a file, so that a restart need not build them again.

The store stays the source of truth: the file holds no text and no label. It is opened only if it carries the seal that a
key beside it makes, which nobody but the server's own user can read.
"""

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.contract import ExampleStore
from index.example import Example, Label, State
from index.flattened import Arrays, arrays_of, graph_of
from index.grown import Grown
from index.layers import Layers
from index.live import Snapshot
from index.roll import Roll
from index.search import BatchIndex
from index.side import Side

_SCHEMA = 1
_MAGIC = b"stillwatch index\n"
_FILE, _KEY = "snapshot", "snapshot.key"
_SEAL_BYTES = 32
_HEADER_BYTES = 65_536
_DIGITS = 20
_NOBODY = "0" * _DIGITS
_PART = 1 << 24
_DTYPES = {"codes": "|u1", "levels": "<i4", "links": "<i4", "entry": "<i8", "ids": "|u1", "rows": "<f4"}


class SnapshotFile:
    """One snapshot of one encoder, in a folder that only the server's user can write."""

    def __init__(self, folder: Path, encoder: str, dimensions: int) -> None:
        """Name the file; nothing is read or written yet.

        Args:
            folder: Where file and key are; made when it is not there.
            encoder: The encoder's fingerprint.
            dimensions: The encoder's d.
        """
        self._folder = folder
        self._encoder = encoder
        self._dimensions = dimensions

    def save(self, snapshot: Snapshot) -> None:
        """Put a snapshot in place of the one that is kept; whoever reads sees the one or the other.

        Args:
            snapshot: What to keep.

        Raises:
            OSError: When it cannot be written; what was kept stays.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{label.value}.{name}": np.ascontiguousarray(values)
            for label in Label
            for name, values in _taken_apart(snapshot.side(label)).items()
        }
        listed = [[name, list(values.shape), _hash(values)] for name, values in arrays.items()]
        header = json.dumps(
            {
                "schema": _SCHEMA,
                "encoder": self._encoder,
                "dimensions": self._dimensions,
                "revision": snapshot.revision,
                "arrays": listed,
            }
        ).encode()
        key = self._key() or self._new_key()
        path = self._folder / f".{_FILE}.{os.getpid()}"
        try:
            with path.open("wb") as file:
                file.write(_MAGIC + _seal(key, header) + len(header).to_bytes(8, "little") + header)
                for values in arrays.values():
                    file.write(values.data)
                file.flush()
                os.fsync(file.fileno())
            path.replace(self._folder / _FILE)
        finally:
            path.unlink(missing_ok=True)
        self._sync()

    def open(self, store: ExampleStore) -> Snapshot | None:
        """The snapshot that is kept, as far as the store still says the same.

        Args:
            store: The source of truth; what it changed since is for the index to follow.

        Returns:
            A snapshot at the revision of the kept one; None when there is none, or none that can be trusted, or one of
            another store.

        Raises:
            StoreUnavailable: When the store cannot be read.
        """
        found = self._read()
        if found is None:
            return None
        revision, arrays = found
        if revision > store.revision():
            return None
        active = {example.id: example for example in store.since(0) if example.state is State.ACTIVE}
        try:
            sides = {label: self._put_together(label, arrays, active) for label in Label}
        except (ValueError, KeyError):
            return None
        known = {name for side in sides.values() for name in side.ids}
        # What only changed later is for the index to follow; whatever else is missing says that this is another store.
        if any(example.changed <= revision for name, example in active.items() if name not in known):
            return None
        return Snapshot(revision, sides[Label.EXTRACTION], sides[Label.BENIGN])

    def _put_together(self, label: Label, arrays: Arrays, active: Mapping[str, Example]) -> Side:
        own = {name.partition(".")[2]: values for name, values in arrays.items() if name.startswith(f"{label.value}.")}
        names = [f"ex-{row.tobytes().hex()}" for row in own["ids"]]
        graph = graph_of(own, self._dimensions) if "levels" in own else None
        span = graph.size if graph else 0
        rows = own["rows"]
        if rows.ndim != 2 or rows.shape[1] != self._dimensions or len(names) != span + len(rows):
            raise ValueError("the kept snapshot's parts do not fit each other")
        held = [active.get(name) for name in names]
        missing = [place for place, example in enumerate(held) if example is None or example.label != label]
        layers = Layers.of(BatchIndex(Grown(rows)), graph, span).without(np.array(missing, np.int64))
        gone = set(missing)
        return Side(Roll.of([None if place in gone else example for place, example in enumerate(held)]), layers)

    def _read(self) -> tuple[int, Arrays] | None:
        key = self._key()
        if key is None:
            return None
        with suppress(OSError, ValueError), (self._folder / _FILE).open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return None
            seal = file.read(_SEAL_BYTES)
            length = int.from_bytes(file.read(8), "little")
            header = file.read(min(length, _HEADER_BYTES))
            if not hmac.compare_digest(seal, _seal(key, header)):
                return None
            said = json.loads(header)
            ours = (_SCHEMA, self._encoder, self._dimensions)
            if (said["schema"], said["encoder"], said["dimensions"]) != ours:
                return None
            return int(said["revision"]), {name: _array(file, name, shape, sha) for name, shape, sha in said["arrays"]}
        return None

    def _key(self) -> bytes | None:
        """The key, unless others can read or change it."""
        with suppress(OSError), (self._folder / _KEY).open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                key = file.read(_SEAL_BYTES)
                return key if len(key) == _SEAL_BYTES else None
        return None

    def _new_key(self) -> bytes:
        key, path = os.urandom(_SEAL_BYTES), self._folder / f".{_KEY}.{os.getpid()}"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        path.replace(self._folder / _KEY)
        return key

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _taken_apart(side: Side) -> Arrays:
    graph = side.index.graph
    places = np.concatenate([graph.places.view if graph else np.zeros(0, np.int64), side.index.tail_positions])
    ids = b"".join(bytes.fromhex(side.examples.id_at(place)[-_DIGITS:] or _NOBODY) for place in places.tolist())
    parts: Arrays = dict(arrays_of(graph)) if graph else {}
    return {
        **parts,
        "ids": np.frombuffer(ids, np.uint8).reshape(len(places), _DIGITS // 2),
        "rows": side.index.tail.rows,
    }


def _array(file: BufferedReader, name: str, shape: list[int], sha: str) -> NDArray[Any]:
    values = np.empty(shape, _DTYPES[name.partition(".")[2]])
    if file.readinto(values.data) != values.nbytes or _hash(values) != sha:
        raise ValueError("the kept snapshot is cut short or was changed")
    return values


def _hash(values: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    data = values.reshape(-1).view(np.uint8)
    for start in range(0, len(data), _PART):
        digest.update(data[start : start + _PART].data)
    return digest.hexdigest()


def _seal(key: bytes, header: bytes) -> bytes:
    return hmac.digest(key, header, "sha256")
