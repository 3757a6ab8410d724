"""What a server does beside answering: it follows the store that others write to, and keeps its sample of traffic."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from classifier.serve.generations import Generations
from classifier.serve.log import place_of
from index.errors import IndexRoomError
from index.live import ExampleIndex
from index.tail import Tail

_KEEP_SECONDS = 60.0
"""How much of the sample of recent traffic a killed server forgets at most."""
_KEEP_INDEX_SECONDS = 600.0
"""How long the index is at least not written again; a start reads what changed since from the store."""
_log = structlog.get_logger("stillwatch.follow")


@asynccontextmanager
async def following(generations: Generations) -> AsyncIterator[None]:
    """Follow the store and keep the sample until the end, and then once more.

    Args:
        generations: What is in force.

    Yields:
        Nothing.
    """
    tail = Tail(
        lambda: generations.runtime.examples,
        on_trouble=_say,
        on_renewal=_Keeper(generations),
        follow=lambda _: generations.follow(),
    )
    tail.start()
    keeping = asyncio.create_task(_keep_sample(generations))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.to_thread(tail.stop)
        await asyncio.to_thread(generations.keep_sample)


class _Keeper:
    """Keeps the graphs of a renewed index for the next start, though not each time: they may be large."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._kept = -_KEEP_INDEX_SECONDS

    def __call__(self, index: ExampleIndex) -> None:
        runtime, now = self._generations.runtime, time.monotonic()
        if runtime.examples is not index or now < self._kept + _KEEP_INDEX_SECONDS:
            return
        try:
            runtime.kept.save(index.snapshot)
        except OSError as error:
            _log.warning("index_not_kept", reason=error.strerror or type(error).__name__)
        self._kept = time.monotonic()


async def _keep_sample(generations: Generations) -> None:
    while True:
        await asyncio.sleep(_KEEP_SECONDS)
        await asyncio.to_thread(generations.keep_sample)


def _say(error: Exception) -> None:
    """Log why the store is not followed: the words of a foreseen error, of another one its type and place alone."""
    if isinstance(error, IndexRoomError):
        _log.warning("store_not_followed", reason=str(error))
    else:
        _log.error("store_not_followed", error=type(error).__name__, place=place_of(error.__traceback__))
