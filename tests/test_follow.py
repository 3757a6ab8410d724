"""The thread that follows the store: it never mixes the examples of one bundle with another one's model."""

import asyncio
import time
from pathlib import Path

import pytest
import variants
from test_generations import ACT, benign, contents, generations, stored

from classifier.bundle import Bundle
from classifier.runtime import keep_seed_vectors
from classifier.serve import generations as module
from classifier.serve.follow import following
from index.contract import ExampleStore

PAUSE = 1.0
"""Seconds in which the thread looks at the store several times."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with bundles of its own."""
    return variants.make_home(tmp_path)


async def test_the_bundle_in_force_never_gets_the_seed_of_the_next_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with generations(home) as held:
        before = held.runtime.examples
        revision = before.snapshot.revision

        def slow(store: ExampleStore, bundle: Bundle) -> None:
            assert store.revision() > revision  # the new seed is written, and not in force yet
            time.sleep(PAUSE)
            seen.append(before.snapshot.revision)
            keep_seed_vectors(store, bundle)

        monkeypatch.setattr(module, "keep_seed_vectors", slow)
        variants.make_current(home, variants.seeded(lambda number, _: number % 2 == 0))
        async with following(held):
            await asyncio.to_thread(held.reload)
        assert seen == [revision]
        assert held.runtime.examples is not before
        assert contents(held.runtime) == stored(held.runtime)


async def test_what_another_process_wrote_is_followed(home: Path) -> None:
    with generations(home) as held:
        async with following(held):
            (added,) = held.runtime.store.add([benign("when does the last ferry leave?")], ACT)
            async with asyncio.timeout(20):
                while held.runtime.examples.snapshot.get(added.id) is None:  # noqa: ASYNC110  # another thread follows
                    await asyncio.sleep(0.02)
