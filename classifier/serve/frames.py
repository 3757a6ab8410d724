"""The frames between the server and its scoring processes: a length, a kind, and what the kind says.

Both ends are of the same version, since one starts the other from the same files. A frame that cannot be read ends the
connection, and with it the scoring process.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

from google.protobuf.message import DecodeError
from stillwatch.v1 import verdict_pb2

from classifier import errors
from classifier.serve.received import Received
from classifier.serve.scoring import Found, Part
from classifier.serve.status import STATUS, reason_of
from classifier.verdict import Provenance, StageTimes
from index.errors import StoreUnavailable

MOST_BYTES = 2**30
"""Of one frame. A batch is bounded by tokens far below it, unless an operator allows prompts of millions of characters."""
HEAD = struct.Struct("!IB")
_COUNT = struct.Struct("!I")
_REVISION = struct.Struct("!Q?")
_PART = struct.Struct("!4dQII")
_ITEM = struct.Struct("!BI")
_GOOD, _BAD = 0, 1
_ERRORS: dict[str, type[Exception]] = {
    STATUS[kind][1]: kind
    for kind in (
        errors.EmptyPrompt,
        errors.PromptTooLong,
        errors.NotUnicode,
        errors.InvalidPrompt,
        errors.BundleRejected,
        errors.CanaryFailed,
        errors.InvalidSetting,
        StoreUnavailable,
    )
}
"""The errors that cross, with their words, by their reason."""


class Kind(IntEnum):
    """What a frame is."""

    OPEN = 1
    """To the process: settings as JSON; the first frame."""
    SCORE = 2
    """To the process: texts."""
    CATCH_UP = 3
    """To the process: bring the examples to a revision."""
    READY = 4
    """From the process: it can score; the revision, and the bundle's version."""
    SCORED = 5
    """From the process: the parts."""
    CAUGHT_UP = 6
    """From the process: the revision."""
    FAILED = 7
    """From the process: an error, in place of READY or CAUGHT_UP."""


class Unforeseen(RuntimeError):
    """Raised for a prompt that met an error in a scoring process which nobody foresaw; that process has logged it."""


def frame(kind: Kind, *pieces: bytes) -> bytes:
    """A frame.

    Args:
        kind: What it is.
        *pieces: What it holds.

    Returns:
        Its bytes.

    Raises:
        Overloaded: When it would be larger than MOST_BYTES.
    """
    length = sum(map(len, pieces))
    if length > MOST_BYTES:
        raise errors.Overloaded(f"the batch has over {MOST_BYTES} bytes: send less at once, or shorter prompts")
    return b"".join((HEAD.pack(length, kind), *pieces))


def texts_out(texts: Sequence[str]) -> Iterator[bytes]:
    """Texts as bytes; unpaired surrogates, which the scorer refuses, get through."""
    for text in texts:
        data = text.encode(errors="surrogatepass")
        yield _COUNT.pack(len(data))
        yield data


def texts_in(data: bytes) -> list[str]:
    """The texts that texts_out wrote."""
    reader = _Reader(data)
    texts = []
    while reader.left:
        (length,) = reader.unpack(_COUNT)
        texts.append(reader.take(length).decode(errors="surrogatepass"))
    return texts


def revision_out(revision: int, *, anew: bool = False) -> bytes:
    """A revision of the examples, and whether they are to be read from the beginning."""
    return _REVISION.pack(revision, anew)


def revision_in(data: bytes) -> tuple[int, bool, str]:
    """What revision_out wrote, and the text that follows it."""
    revision, anew = _REVISION.unpack_from(data)
    return revision, anew, data[_REVISION.size :].decode()


def parts_out(
    parts: Sequence[Part], verdict: Callable[[Found], verdict_pb2.Verdict], provenance: Callable[[Provenance], bytes]
) -> Iterator[bytes]:
    """Parts as bytes.

    Args:
        parts: What was scored.
        verdict: Brings a verdict to the wire.
        provenance: Brings a provenance to the wire's bytes.

    Yields:
        The bytes.
    """
    for part in parts:
        source, times = provenance(part.provenance), part.times
        stages = (times.tokenise, times.encode, times.search, times.classify)
        yield _PART.pack(*stages, part.spared, len(source), len(part.found))
        yield source
        for found in part.found:
            good = not isinstance(found, Exception)
            data = verdict(found).SerializeToString() if not isinstance(found, Exception) else error_out(found)
            yield _ITEM.pack(_GOOD if good else _BAD, len(data))
            yield data


def parts_in(data: bytes, count: int) -> list[Part]:
    """The parts that parts_out wrote.

    Args:
        data: A frame's content.
        count: How many prompts they must hold.

    Returns:
        The parts.

    Raises:
        ValueError: When they cannot be read, or hold another number of prompts.
    """
    try:
        parts = list(_parts(data))
    except (LookupError, DecodeError):
        raise ValueError("a part cannot be read") from None
    if sum(len(part.found) for part in parts) != count:
        raise ValueError("the parts hold another number of prompts")
    return parts


def _parts(data: bytes) -> Iterator[Part]:
    reader = _Reader(data)
    while reader.left:
        *stages, spared, length, count = reader.unpack(_PART)
        source = verdict_pb2.Provenance.FromString(reader.take(length))
        found: list[Found | Exception] = []
        for _ in range(count):
            kind, size = reader.unpack(_ITEM)
            item = reader.take(size)
            found.append(Received(item) if kind == _GOOD else error_in(item))
        origin = Provenance(
            source.bundle_version, source.index_revision, source.review_threshold, source.flag_threshold
        )
        yield Part(tuple(found), origin, StageTimes(*stages), spared)


def error_out(error: BaseException) -> bytes:
    """An error's reason and words; of one that nobody foresaw no words, which may quote a prompt."""
    reason = reason_of(error)
    return f"{reason}\n{error if reason in _ERRORS else ''}".encode()


def error_in(data: bytes) -> Exception:
    """The error that error_out wrote."""
    reason, _, message = data.decode().partition("\n")
    kind = _ERRORS.get(reason)
    return kind(message) if kind else Unforeseen("a scoring process met an error that nobody foresaw: see its log")


class _Reader:
    """Takes bytes off a frame's front, without copies of the rest."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise ValueError("a frame ends too early")
        self._at += length
        return taken

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))
