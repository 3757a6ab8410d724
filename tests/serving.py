"""A real server process for tests."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from classifier.config import Settings
from classifier.runtime import open_runtime

BUNDLES = Path(__file__).parent.parent / "var" / "bundles"


class Server:
    """A server process on a free port, with a home of its own; one without bundles borrows the built one."""

    def __init__(self, process: "subprocess.Popen[str]", address: str, home: Path, startup: str = "") -> None:
        self.process = process
        self.address = address
        self.home = home
        self.log = ""
        self._told = False
        self.startup = startup

    def terminate(self) -> None:
        """Send SIGTERM, once only: a second one would end the process at once."""
        if not self._told and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self._told = True

    def stop(self, timeout: float = 30.0) -> int:
        """Send SIGTERM and return the exit code; what was logged since the start is in log afterwards."""
        self.terminate()
        _, self.log = self.process.communicate(timeout=timeout)
        return self.process.returncode


@cache
def _seeded_store() -> Path:
    """An example store as the first start of a server with the built bundle leaves it, made once a run."""
    path = Path(tempfile.mkdtemp(prefix="stillwatch-tests-")) / "examples.db"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    with open_runtime(Settings(home=BUNDLES.parent), store=path):
        pass
    return path


@contextmanager
def running_server(home: Path, variables: dict[str, str] | None = None, **settings: object) -> Iterator[Server]:
    """Start `stillwatch serve` with settings, and wait until it serves."""
    home.mkdir(exist_ok=True)
    if not (home / "bundles").exists():
        (home / "bundles").symlink_to(BUNDLES)
        if not (home / "examples.db").exists():
            shutil.copyfile(_seeded_store(), home / "examples.db")
    environment = {**os.environ, "STILLWATCH_HOME": str(home), "STILLWATCH_PORT": "0"}
    environment["STILLWATCH_DRAIN_PAUSE_SECONDS"] = "0"
    environment |= {f"STILLWATCH_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= variables or {}
    process = subprocess.Popen(
        [sys.executable, "-m", "classifier.cli", "serve"], env=environment, stderr=subprocess.PIPE, text=True, cwd=home
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("stillwatch is serving"):
            break
    else:
        pytest.fail(f"the server did not start: {''.join(seen)}")
    server = Server(process, line.split()[-1], home, "".join(seen))
    try:
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        process.stderr.close()
