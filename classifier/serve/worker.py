"""A scoring process: `python -m classifier.serve.worker`, started by the server, which it talks to on its standard input.

It opens the bundle and the examples by itself, and writes nothing but embeddings that are missing. It ends when the
server does: then its standard input is closed.
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
from queue import SimpleQueue
from typing import Any

from threadpoolctl import threadpool_limits

from classifier.bundle import open_bundle
from classifier.canary import check
from classifier.config import Settings
from classifier.errors import StillwatchError
from classifier.runtime import Runtime
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
from index.errors import IndexRoomError
from index.store import ExampleStore, SqliteStore

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
    """

    bundle: Path
    settings: Settings

    def dumped(self) -> bytes:
        """As JSON."""
        return json.dumps(
            {"bundle": str(self.bundle), "settings": self.settings.model_dump(mode="json", include=set(TAKEN))}
        ).encode()

    @classmethod
    def loaded(cls, data: bytes) -> "Opening":
        """What dumped wrote. The environment and stillwatch.toml, which may have changed, are not read again."""
        given: dict[str, Any] = json.loads(data)
        given["settings"]["home"] = Path(given["settings"]["home"])
        return cls(Path(given["bundle"]), Settings.model_construct(**given["settings"]))


class Worker:
    """Scores what comes on a socket, and keeps its examples at the revision that it is told."""

    def __init__(self, connection: socket.socket) -> None:
        """Talk on a socket."""
        self._connection = connection
        self._sending = threading.Lock()
        self._batches: SimpleQueue[bytes] = SimpleQueue()
        self._opening: Opening
        self._store: ExampleStore
        self._runtime: Runtime

    def run(self) -> None:
        """Open, say so, and score until the server's end of the socket is closed; never returns."""
        kind, data = self._receive()
        if kind != Kind.OPEN:
            raise ValueError("the first frame must say what to open")
        self._opening = Opening.loaded(data)
        settings = self._opening.settings
        configure_logging(settings.log_format, settings.log_level, settings.log_lines_per_second)
        # From here on a server that went away ends this process, whatever it is doing.
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        try:
            self._open()
        except Exception as error:  # noqa: BLE001  # the server is told, and says it
            self._fail(error)
            return
        settle()
        version = self._runtime.bundle.model.version
        self._send(Kind.READY, revision_out(self._revision), version.encode())
        while True:
            texts = texts_in(self._batches.get())
            parts = score_parts(self._scorer, texts)
            _log_unforeseen(parts)
            self._send(Kind.SCORED, *parts_out(parts, convert.verdict, _provenance))

    @property
    def _revision(self) -> int:
        return self._runtime.examples.snapshot.revision

    def _scorer(self) -> Scorer:
        return self._runtime.scorer

    def _open(self) -> None:
        threadpool_limits(1, user_api="blas")
        self._store = SqliteStore(self._opening.settings.store)
        bundle = open_bundle(self._opening.bundle, threads=1)
        self._runtime = Generations.candidate(self._store, bundle, self._opening.settings).runtime
        check(self._runtime)
        score_parts(self._scorer, WARM_UP)

    def _listen(self) -> None:
        """Take frames as they come; examples are caught up with while a batch is scored by the older ones."""
        while True:
            kind, data = self._receive()
            if kind == Kind.SCORE:
                self._batches.put(data)
            elif kind == Kind.CATCH_UP:
                self._catch_up(data)
            else:
                os._exit(2)

    def _catch_up(self, data: bytes) -> None:
        revision, anew, _ = revision_in(data)
        try:
            if anew:
                bundle, settings = self._runtime.bundle, self._opening.settings
                self._runtime = Generations.candidate(self._store, bundle, settings).runtime
            if self._revision < revision:
                self._runtime.examples.catch_up()
            self._send(Kind.CAUGHT_UP, revision_out(self._revision))
        except Exception as error:  # noqa: BLE001  # the server is told, and starts another process in this one's place
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, StillwatchError | IndexRoomError):
            log_unknown(error, "worker")
        self._send(Kind.FAILED, error_out(error))

    def _send(self, kind: Kind, *pieces: bytes) -> None:
        try:
            with self._sending:
                self._connection.sendall(frame(kind, *pieces))
        except OSError:  # the server went away
            os._exit(0)

    def _receive(self) -> tuple[int, bytes]:
        length, kind = HEAD.unpack(self._exactly(HEAD.size))
        if length > MOST_BYTES:
            os._exit(2)
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = bytearray(length)
        view, filled = memoryview(data), 0
        while filled < length:
            try:
                came = self._connection.recv_into(view[filled:])
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
    """Serve the socket on standard input."""
    gc.disable()  # until settled, as in the server
    # The server is told to stop, and ends this process when its work is done.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Worker(socket.socket(fileno=os.dup(sys.stdin.fileno()))).run()


if __name__ == "__main__":
    main()
