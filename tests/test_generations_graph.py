"""Graphs, which take long to build, outlive a reload and a restart."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
import variants
from test_generations import ACT, benign, contents, generations, stored

from classifier.config import Settings
from classifier.runtime import kept_by, open_runtime
from classifier.serve import follow
from classifier.serve.follow import following
from classifier.serve.generations import Generations
from index import side as sides
from index.graph import Graph
from index.snapshots import SnapshotFile


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with bundles of its own, whose examples are so many that they need a graph."""
    monkeypatch.setattr(sides, "EXACT_UP_TO", 1_000)
    return variants.make_home(tmp_path)


def test_a_reload_takes_the_graphs_over_and_holds_what_the_store_holds(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with generations(home) as held:
        index = held.runtime.examples
        assert index.renew()
        added, _ = held.add([benign(f"which path leads round the lake {number}?") for number in range(3)], ACT)
        index.store.revoke([added[0].id], ACT)  # beside the index, as another server does
        monkeypatch.setattr(Graph, "build", None)
        held.reload()
        assert held.runtime.examples is not index
        assert held.runtime.examples.snapshot.built
        assert contents(held.runtime) == stored(held.runtime)
        assert added[0].id not in {name for name, _ in contents(held.runtime)}
        assert not held.runtime.examples.renew()


async def until_kept(held: Generations) -> None:
    async with following(held):
        async with asyncio.timeout(60):
            while held.runtime.kept.open(held.runtime.store) is None:  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(0.05)


async def test_a_restart_opens_the_graphs_that_a_server_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with generations(home) as held:
        await until_kept(held)
        held.add([benign("may I fish in this lake?")], ACT)
        before = contents(held.runtime)
    monkeypatch.setattr(Graph, "build", None)
    with open_runtime(Settings(home=home)) as again:
        assert again.examples.snapshot.built
        assert contents(again) == before == stored(again)
        assert not again.examples.renew()


async def test_a_disk_that_takes_no_graph_is_said_once_and_the_server_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(follow, "_log", _Log(said))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SnapshotFile, "save", full)
    with generations(home) as held:
        async with following(held):
            with suppress(TimeoutError):
                async with asyncio.timeout(60):
                    while not said:  # noqa: ASYNC110  # a log has no event
                        await asyncio.sleep(0.05)
        assert said == ["index_not_kept: No space left on device"]
        assert held.runtime.examples.snapshot.built
        assert kept_by(Settings(home=home), held.runtime.bundle).open(held.runtime.store) is None


class _Log:
    """Notes warnings."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def warning(self, event: str, *, reason: str) -> None:
        self._said.append(f"{event}: {reason}")
