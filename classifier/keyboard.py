"""Single keys from a terminal, without Enter."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from classifier.errors import InvalidRequest

_LOOK_SECONDS = 0.25
"""How often a waiting reader looks whether the terminal's size changed."""
_REST_SECONDS = 0.02
"""The bytes of one function key come together."""
_ESCAPE = b"\x1b"
_LONGEST_KEY = 32


class Keyboard:
    """The keys of a terminal."""

    def __init__(self, descriptor: int) -> None:
        """Read from a terminal that gives single keys."""
        self._descriptor = descriptor
        self._size = os.get_terminal_size(descriptor)  # kept between keys: what is drawn meanwhile may miss a change
        self._used = False
        self._interrupted = False

    def key(self, resized: Callable[[], None] = lambda: None) -> str:
        """Wait for a key.

        Args:
            resized: Called when the terminal's size changed since the last look, which may be before this call.

        Returns:
            The character; "" when the terminal went away. Function keys, and what is not ASCII, are passed over.

        Raises:
            KeyboardInterrupt: When Ctrl-C was pressed since the first call.
        """
        self._used = True
        while True:
            if self._interrupted:
                raise KeyboardInterrupt
            now = os.get_terminal_size(self._descriptor)
            if now != self._size:
                self._size = now
                resized()
            if not self._ready(_LOOK_SECONDS):
                continue
            data = self._read()
            if not data:
                return ""
            if data == _ESCAPE:
                self._skip()
            elif data.isascii():
                return data.decode()

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Take Ctrl-C for a key, as a signal's handler: what is drawn or written meanwhile is finished first.

        Before the first key is asked for, and when it is pressed once more, it interrupts whatever is being done.
        """
        if not self._used or self._interrupted:
            signal.default_int_handler(number, frame)
        self._interrupted = True

    def _skip(self) -> None:
        """Pass over the rest of a function key, and not over a key that was pressed after it."""
        if not self._ready(_REST_SECONDS):
            return
        kind = self._read()
        if kind == b"O":
            self._read()
        elif kind == b"[":
            for _ in range(_LONGEST_KEY):
                if not self._ready(_REST_SECONDS) or b"@" <= self._read() <= b"~":
                    return

    def _ready(self, seconds: float) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 1)
        except OSError:
            return b""


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Take single keys from standard input; afterwards the terminal is as it was.

    Yields:
        The keyboard.

    Raises:
        InvalidRequest: When standard input or output is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest(
            "a review needs a terminal, and this is a pipe or a file: run it in a terminal, or decide by  "
            "stillwatch examples add, accept, reject"
        )
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    keys = Keyboard(descriptor)
    handler = signal.signal(signal.SIGINT, keys.interrupt)
    try:
        tty.setcbreak(descriptor)
        yield keys
    finally:
        signal.signal(signal.SIGINT, handler)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
