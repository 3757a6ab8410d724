"""What many tests share: the built bundle, a runtime on a fresh store, a real server process, a fresh store of either kind."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from postgres import Postgres, missing_program, running_postgres
from serving import BUNDLES, Server, running_server
from stores import Open

from classifier.bundle import Bundle, open_bundle
from classifier.client import Client
from classifier.config import Settings
from classifier.runtime import Runtime, open_runtime
from index.contract import ExampleStore
from index.store import open_store as open_address


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The default bundle, as `make bundle` built it."""
    return open_bundle(BUNDLES / "current", threads=2)


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """The default bundle over a fresh store; tests must not add to it."""
    home = tmp_path_factory.mktemp("runtime")
    (home / "bundles").symlink_to(BUNDLES)
    with open_runtime(Settings(home=home)) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of one module share."""
    with running_server(tmp_path_factory.mktemp("server") / "home") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A blocking client of the shared server."""
    with Client(server.address) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, shared by all tests."""
    if program := missing_program():
        pytest.skip(f"{program} is not on the PATH: install PostgreSQL's server")
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where the test's store is; nothing is there yet."""
    if request.param == "sqlite":
        return tmp_path / "examples.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.store()


@pytest.fixture
def open_store(address: str | Path) -> Iterator[Open]:
    """Opens the test's store, as often as it is called; all are closed at the end."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(open_address(address)))


@pytest.fixture
def store(open_store: Open) -> ExampleStore:
    """An empty store."""
    return open_store()
