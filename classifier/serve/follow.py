"""What a server does beside answering: it follows the store that others write to, and keeps its sample of traffic."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from classifier.serve.generations import Generations
from classifier.serve.log import place_of
from index.errors import IndexRoomError
from index.tail import Tail

_KEEP_SECONDS = 60.0
"""How much of the sample of recent traffic a killed server forgets at most."""
_log = structlog.get_logger("stillwatch.follow")


@asynccontextmanager
async def following(generations: Generations) -> AsyncIterator[None]:
    """Follow the store and keep the sample until the end, and then once more.

    Args:
        generations: What is in force.

    Yields:
        Nothing.
    """
    tail = Tail(lambda: generations.runtime.examples, on_trouble=_say, on_followed=generations.caught_up)
    tail.start()
    keeping = asyncio.create_task(_keep_sample(generations))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.to_thread(tail.stop)
        await asyncio.to_thread(generations.keep_sample)


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
