"""What many tests share: the built bundle, a runtime on a fresh store, a real server process."""

from collections.abc import Iterator

import pytest
from serving import BUNDLES, Server, running_server

from classifier.bundle import Bundle, open_bundle
from classifier.client import Client
from classifier.config import Settings
from classifier.runtime import Runtime, open_runtime


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
