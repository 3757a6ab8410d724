"""The reservoir's file: plain arrays under a keyed digest, so that only what this home wrote is ever read."""

import hashlib
import hmac
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from classifier.desk.reservoir import Reservoir
from classifier.desk.sample import Entry, Group, Sample
from classifier.desk.secret import write_private

RESERVOIR_FILE = "reservoir.bin"
_MAGIC = b"stillwatch reservoir 1\n"
_DIGEST = hashlib.sha256
_DIGEST_BYTES = 32
_MARK_BYTES = 16
_ENTRY_BYTES = 256
"""Of a prompt beside its windows: its mark, and the numbers of its views."""
_HEADER_BYTES = 65_536
_log = structlog.get_logger("stillwatch.desk")

Arrays = Mapping[str, NDArray[np.generic]]


def save(reservoir: Reservoir, path: Path) -> None:
    """Write a reservoir's file; it is never seen half written.

    Args:
        reservoir: What to keep.
        path: The file; its folder must exist.

    Raises:
        OSError: When it cannot be written; the file before it stays.
    """
    arrays: dict[str, NDArray[np.generic]] = {"scope": np.frombuffer(bytes.fromhex(reservoir.scope), np.uint8)}
    for group in Group:
        arrays |= {f"{group}_{name}": value for name, value in _arrays(reservoir.sample(group)).items()}
    content = BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    data = content.getvalue()
    write_private(path, _MAGIC + hmac.digest(reservoir.key, _MAGIC + data, _DIGEST) + data)


def restore(reservoir: Reservoir, path: Path) -> bool:
    """Fill a reservoir from its file. A file that is damaged, foreign or of another bundle is dropped with a warning.

    Args:
        reservoir: What to fill; it is empty.
        path: The file.

    Returns:
        Whether it was filled.
    """
    try:
        samples = _read(reservoir, path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, EOFError) as error:
        _log.warning("the reservoir's file is dropped", file=path.name, why=_why(error))
        return False
    reservoir.restore(samples)
    return True


class _Unfit(ValueError):
    """A file that this reservoir cannot take; its text says why."""


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, _Unfit) else type(error).__name__


def _most_bytes(reservoir: Reservoir) -> int:
    window = 4 * (reservoir.dimensions + 1)
    return 2 * _HEADER_BYTES + sum(
        n * _ENTRY_BYTES + windows * (window + 12) for n, windows in reservoir.limits.values()
    )


def _read(reservoir: Reservoir, path: Path) -> dict[Group, Sample]:
    most = _most_bytes(reservoir)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise _Unfit("it is larger than a reservoir of this size")
    start = len(_MAGIC) + _DIGEST_BYTES
    digest = hmac.digest(reservoir.key, _MAGIC + data[start:], _DIGEST)
    if not data.startswith(_MAGIC) or not hmac.compare_digest(digest, data[len(_MAGIC) : start]):
        raise _Unfit("it is damaged, or another home's")
    with np.load(BytesIO(data[start:]), allow_pickle=False) as arrays:
        if bytes(arrays["scope"]).hex() != reservoir.scope:
            raise _Unfit("it was sampled under another bundle")
        return {
            group: _sample({name: arrays[f"{group}_{name}"] for name in _NAMES}, reservoir.dimensions)
            for group in Group
        }


_NAMES = ("seen", "marks", "views", "foreign", "embeddings", "words")


def _arrays(sample: Sample) -> Arrays:
    entries = sample.entries
    views = [(number, *view) for number, entry in enumerate(entries) for view in entry.views]
    return {
        "seen": np.array([sample.seen], np.int64),
        "marks": np.frombuffer(b"".join(entry.mark for entry in entries), np.uint8),
        "views": np.array(views, np.int32).reshape(len(views), 3),
        "foreign": np.array([entry.foreign for entry in entries], bool),
        "embeddings": sample.embeddings,
        "words": sample.words,
    }


def _sample(arrays: Arrays, dimensions: int) -> Sample:
    marks, foreign = arrays["marks"].tobytes(), arrays["foreign"].tolist()
    views: list[list[tuple[int, int]]] = [[] for _ in foreign]
    for number, long, finer in arrays["views"].tolist():
        views[number].append((long, finer))
    entries, row = [], 0
    for number, own in enumerate(views):
        part = slice(row, row + sum(map(sum, own)))
        row = part.stop
        mark = marks[number * _MARK_BYTES : (number + 1) * _MARK_BYTES]
        embeddings, words = (np.array(arrays[name][part], np.float32) for name in ("embeddings", "words"))
        entries.append(Entry(mark, tuple(own), bool(foreign[number]), embeddings, words))
    return Sample.of(entries, int(arrays["seen"][0]), dimensions)
