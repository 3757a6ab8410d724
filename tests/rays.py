"""Runs on Ray for tests: their processes, and how to find and end one of them."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from killing import command
from serving import BUNDLES

from classifier.batch.parts import SCORES

MARK = "STILLWATCH_TEST_RUN"
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[ray]', see docs/batch.md"
)


def environment_of(folder: Path) -> dict[str, str]:
    """An environment with a fresh home, whose processes can be told from others' by a mark."""
    home = folder / "home"
    home.mkdir()
    (home / "bundles").symlink_to(BUNDLES)
    # The token is a running cluster's; a run that starts its own one makes another.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}
    own = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }  # loopback, also where it is joined
    return {**os.environ, **token, **own, "STILLWATCH_HOME": str(home), MARK: uuid.uuid4().hex}


def on_ray(logs: Sequence[Path], output: Path, *options: str, rows: int = 50) -> list[str]:
    """The command line of a run on Ray with two workers."""
    return [*command(logs, output, rows), "--engine", "ray", "--workers", "2", *options]


def processes(environment: dict[str, str], name: str) -> list[int]:
    """The processes of an environment whose command line holds a name."""
    mark, found = f"{MARK}={environment[MARK]}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (folder / "cmdline").read_bytes() and mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def parts_in(output: Path) -> int:
    """How many parts are in an output, also while a run works in it."""
    return len(list(output.glob(f"{SCORES}/[!.]*.parquet")))


def wait_for_parts(process: subprocess.Popen[str], output: Path, count: int) -> None:
    """Wait until an output has so many parts."""
    while parts_in(output) < count:
        assert process.poll() is None, "the run ended before it was to be ended"


@contextmanager
def cluster(environment: dict[str, str], cores: int) -> Iterator[str]:
    """A Ray cluster of another process, on loopback and a free port."""
    code = (
        "import sys, ray\n"
        "ray.init(address='local', num_cpus=int(sys.argv[1]), include_dashboard=False, object_store_memory=2**28)\n"
        "print('at', ray.get_runtime_context().gcs_address, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(cores)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield next(line.split()[1] for line in process.stdout if line.startswith("at "))
    finally:
        process.communicate()
