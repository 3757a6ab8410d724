"""Keeps an index in step with a store that others write to, and renews it, both beside the service."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from index.live import ExampleIndex

INTERVAL_SECONDS = 0.25
"""How often the store is asked for its revision."""
_LOWEST_PRIORITY = 19
_RETRY_SECONDS = 10.0
"""How long a renewal that failed is left alone: it would take the same time again."""


class Stopped(Exception):  # a message between two parts of this file
    """Raised inside a renewal when the tail is stopped."""


class Tail:
    """Two threads: one follows the store, the other renews the index at the lowest priority.

    Each asks for the index in force again and again, so that they follow a reload.
    """

    def __init__(
        self,
        index: Callable[[], ExampleIndex],
        *,
        interval: float = INTERVAL_SECONDS,
        on_trouble: Callable[[Exception], None] = lambda error: None,
        on_renewal: Callable[[ExampleIndex], None] = lambda index: None,
        follow: Callable[[ExampleIndex], None] = ExampleIndex.catch_up,
    ) -> None:
        """Prepare both; `start` starts them.

        Args:
            index: Returns the index in force.
            interval: Seconds between two looks at the store.
            on_trouble: Told what keeps a thread from its work: once, until it works again.
            on_renewal: Told of an index that was renewed, on the renewing thread.
            follow: Brings the index, or the one in force by then, to the store's revision; on the following thread.
        """
        self._index = index
        self._interval = interval
        self._on_trouble = on_trouble
        self._on_renewal = on_renewal
        self._bring_up = follow
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work, priority), name=name, daemon=True)
            for name, work, priority in (
                ("index-tail", self._follow, 0),
                ("index-renewal", self._renew, _LOWEST_PRIORITY),
            )
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads, in the middle of a renewal too, and wait until they have ended."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self, work: Callable[[], None], priority: int) -> None:
        if priority:
            with suppress(OSError, AttributeError):  # Linux alone gives a thread a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), priority)
        troubled = False
        while not self._stopping.wait(_RETRY_SECONDS if troubled and priority else self._interval):
            try:
                work()
                troubled = False
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001  # a thread that dies would leave the index behind for ever
                if not troubled:
                    self._on_trouble(error)
                troubled = True

    def _follow(self) -> None:
        index = self._index()
        if index.store.revision() != index.snapshot.revision:
            self._bring_up(index)

    def _renew(self) -> None:
        index = self._index()
        if index.renew(self._pause):
            self._on_renewal(index)

    def _pause(self) -> None:
        if self._stopping.is_set():
            raise Stopped
