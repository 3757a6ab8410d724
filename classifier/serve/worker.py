"""A scoring process: `python -m classifier.serve.worker BATCHES CONTROL`, started by the server with two sockets.

It opens the bundle and the examples by itself, and writes nothing but embeddings that are missing. It ends when the
server does, since then the sockets are closed.
"""

import gc
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from classifier.bundle import Bundle, open_bundle
from classifier.canary import check
from classifier.config import Settings
from classifier.errors import StillwatchError
from classifier.runtime import Runtime, kept_by
from classifier.scorer import Scorer
from classifier.serve import convert
from classifier.serve.edge import log_unknown
from classifier.serve.frames import (
    HEAD,
    MOST_BYTES,
    Kind,
    error_out,
    frame,
    parts_out,
    revision_in,
    revision_out,
    texts_in,
)
from classifier.serve.generations import Generations
from classifier.serve.log import configure_logging
from classifier.serve.scoring import Part, score_parts
from classifier.serve.settle import settle
from classifier.serve.warm import WARM_UP
from classifier.verdict import Provenance
from index.contract import ExampleStore
from index.errors import IndexRoomError
from index.store import open_store

TAKEN = (
    "home",
    "max_prompt_chars",
    "window_cache_entries",
    "review_threshold",
    "flag_threshold",
    "log_format",
    "log_level",
    "log_lines_per_second",
)
"""The settings that a scoring process is given."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a scoring process opens.

    Attributes:
        bundle: The bundle's own directory, not the pointer to it.
        settings: The settings in force; those of TAKEN count.
        store: The example store: a file, or a URL that may hold a password.
    """

    bundle: Path
    settings: Settings
    store: Path | str

    def dumped(self) -> bytes:
        """As JSON."""
        settings = self.settings.model_dump(mode="json", include=set(TAKEN))
        return json.dumps({"bundle": str(self.bundle), "settings": settings, "store": str(self.store)}).encode()

    @classmethod
    def loaded(cls, data: bytes) -> "Opening":
        """What dumped wrote. The environment and stillwatch.toml, which may have changed, are not read again."""
        given: dict[str, Any] = json.loads(data)
        given["settings"]["home"] = Path(given["settings"]["home"])
        return cls(Path(given["bundle"]), Settings.model_construct(**given["settings"]), given["store"])


class Worker:
    """Scores what comes on one socket, and keeps its examples at the revision that it is told on another."""

    def __init__(self, opening: Opening) -> None:
        """Open everything.

        Args:
            opening: What to open.

        Raises:
            BundleRejected: When the bundle is missing or does not fit its hashes.
            CanaryFailed: When it decides clear prompts wrongly.
            InvalidSetting: When the thresholds contradict the bundle's.
            StoreUnavailable: When the example store cannot be used.
        """
        threadpool_limits(1, user_api="blas")
        self._settings = opening.settings
        self._store: ExampleStore = open_store(opening.store)
        self._put_together(open_bundle(opening.bundle, threads=1))
        check(self._runtime)
        score_parts(self._scorer, WARM_UP)
        settle()

    @property
    def revision(self) -> int:
        """The examples' revision."""
        return self._runtime.examples.snapshot.revision

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self._runtime.bundle.model.version

    def score(self, connection: socket.socket) -> None:
        """Score batches until the server's end is closed; never returns."""
        while True:
            _, data = _receive(connection)
            parts = score_parts(self._scorer, texts_in(data))
            _log_unforeseen(parts)
            _send(connection, Kind.SCORED, *parts_out(parts, convert.verdict, _provenance))

    def follow(self, connection: socket.socket) -> None:
        """Catch up with examples when told, while a batch is scored by the older ones; ends the process at the end."""
        while True:
            revision, anew, _ = revision_in(_receive(connection)[1])
            try:
                if anew:
                    self._put_together(self._runtime.bundle)
                if self.revision < revision:
                    self._runtime.examples.catch_up()
            except Exception as error:  # noqa: BLE001  # the server is told, and starts another process for this one
                _fail(connection, error)
            else:
                _send(connection, Kind.CAUGHT_UP, revision_out(self.revision))

    def _scorer(self) -> Scorer:
        return self._runtime.scorer

    def _put_together(self, bundle: Bundle) -> None:
        held = kept_by(self._settings, bundle).open(self._store)  # only the server builds graphs, and keeps them
        self._runtime: Runtime = Generations.candidate(self._store, bundle, self._settings, held=held).runtime


def _fail(connection: socket.socket, error: Exception) -> None:
    if not isinstance(error, StillwatchError | IndexRoomError):
        log_unknown(error, "worker")
    _send(connection, Kind.FAILED, error_out(error))


def _send(connection: socket.socket, kind: Kind, *pieces: bytes) -> None:
    try:
        connection.sendall(frame(kind, *pieces))
    except OSError:  # the server went away
        os._exit(0)


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    length, kind = HEAD.unpack(_exactly(connection, HEAD.size))
    return kind, _exactly(connection, min(length, MOST_BYTES))


def _exactly(connection: socket.socket, length: int) -> bytes:
    """So many bytes; when the server goes away, this process ends, whatever its other thread is doing."""
    data = bytearray(length)
    view, filled = memoryview(data), 0
    while filled < length:
        try:
            came = connection.recv_into(view[filled:])
        except OSError:
            came = 0
        if not came:
            os._exit(0)
        filled += came
    return bytes(data)


def _provenance(found: Provenance) -> bytes:
    return convert.provenance(found).SerializeToString()


def _log_unforeseen(parts: list[Part]) -> None:
    for part in parts:
        for found in part.found:
            if isinstance(found, Exception) and not isinstance(found, StillwatchError):
                log_unknown(found, "score")


def main() -> None:
    """Serve the two sockets."""
    gc.disable()  # until settled, as in the server
    # The server is told to stop, and ends this process when its work is done.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    batches, control = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    opening = Opening.loaded(_receive(control)[1])
    settings = opening.settings
    configure_logging(settings.log_format, settings.log_level, settings.log_lines_per_second)
    try:
        worker = Worker(opening)
    except Exception as error:  # noqa: BLE001  # the server is told, and says it
        _fail(control, error)
        return
    _send(control, Kind.READY, revision_out(worker.revision), worker.version.encode())
    threading.Thread(target=worker.follow, args=(control,), name="follow", daemon=True).start()
    worker.score(batches)


if __name__ == "__main__":
    main()
