"""Following the store and writing to it: no bundle gets another one's examples, and no writer waits for the encoder."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import variants
from test_generations import ACT, benign, contents, generations, stored

from classifier.bundle import Bundle
from classifier.runtime import keep_seed_vectors
from classifier.serve import generations as module
from classifier.serve.follow import following
from index.contract import ExampleStore
from index.example import Example
from index.search import Vectors

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


async def test_encoding_keeps_no_other_writer_and_no_follower_waiting(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with generations(home) as held:
        index, encoding, go_on = held.runtime.examples, threading.Event(), threading.Event()
        embed = index.embedded

        def slow(examples: Sequence[Example]) -> dict[str, Vectors]:
            encoding.set()
            assert go_on.wait(30)
            return embed(examples)

        monkeypatch.setattr(index, "embedded", slow)
        adding = asyncio.create_task(asyncio.to_thread(held.add, [benign("which boat is the slowest?")], ACT))
        assert await asyncio.to_thread(encoding.wait, 30)
        async with asyncio.timeout(20):
            await asyncio.to_thread(held.write, lambda store: store.revoke([], ACT))
            await asyncio.to_thread(held.follow)
        assert not adding.done()
        go_on.set()
        (added,), _ = await adding
        assert held.runtime.examples.snapshot.get(added.id) == added


async def test_examples_that_were_encoded_before_a_reload_are_added_after_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with generations(home) as held:
        index = held.runtime.examples
        embed = index.embedded

        def slow(examples: Sequence[Example]) -> dict[str, Vectors]:
            vectors = embed(examples)
            variants.make_current(home, variants.of_another_encoder)
            held.reload()
            return vectors

        monkeypatch.setattr(index, "embedded", slow)
        (added,), _ = await asyncio.to_thread(held.add, [benign("which boat is the slowest?")], ACT)
        assert held.runtime.examples is not index
        (nearest,), _ = held.scorer().nearest(added.text, 1)
        assert (nearest.example.id, round(nearest.cosine, 3)) == (added.id, 1.0)


async def test_what_another_process_wrote_is_followed(home: Path) -> None:
    with generations(home) as held:
        async with following(held):
            (added,) = held.runtime.store.add([benign("when does the last ferry leave?")], ACT)
            async with asyncio.timeout(20):
                while held.runtime.examples.snapshot.get(added.id) is None:  # noqa: ASYNC110  # another thread follows
                    await asyncio.sleep(0.02)
