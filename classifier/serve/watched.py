"""What is read from files, and read again when they change."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import structlog

from classifier.errors import InvalidSetting

_LOOK_SECONDS = 1.0
_log = structlog.get_logger("stillwatch.files")
_T = TypeVar("_T")
_Stamp = tuple[tuple[int, int, int], ...] | None


class Watched(Generic[_T]):
    """A value out of files. What cannot be read later is logged, and the last good value stays in force."""

    def __init__(
        self, paths: Sequence[Path], load: Callable[[], _T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the files.

        Args:
            paths: What the value comes from.
            load: Reads it.
            clock: Seconds.

        Raises:
            InvalidSetting: When the files cannot be used.
        """
        self._paths = paths
        self._load = load
        self._clock = clock
        self._lock = Lock()
        self._looked = clock()
        self._stamp = self._stamped()
        self._value = load()

    def current(self) -> _T:
        """The value; the files are looked at once a second at most, by one thread."""
        if self._clock() - self._looked >= _LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._looked = self._clock()
                self._look()
            finally:
                self._lock.release()
        return self._value

    def _look(self) -> None:
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        names = [path.name for path in self._paths]
        try:
            self._value = self._load()
        except InvalidSetting as error:
            _log.error("files_refused", files=names, error=str(error))
        else:
            _log.info("files_read_again", files=names)

    def _stamped(self) -> _Stamp:
        try:
            found = [path.stat() for path in self._paths]
        except OSError:
            return None
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)
