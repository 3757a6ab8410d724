"""Server processes to measure, and what they hold."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from classifier.config import Settings

_PAGE = os.sysconf("SC_PAGE_SIZE")
SERVE = (sys.executable, "-m", "classifier.cli", "serve")
NO_VERDICTS_KEPT = {"verdict_cache_entries": 0}
"""So that a prompt that comes again is work again."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server process that takes requests.

    Attributes:
        address: Host and port.
        pid: The process.
        started: Seconds from the start of the process until it served.
        worked: Seconds of processor time in them, on all cores; other processes disturb it less.
    """

    address: str
    pid: int
    started: float
    worked: float

    @property
    def resident(self) -> float:
        """Resident memory in MiB."""
        return resident_mib(self.pid)


@contextmanager
def served(
    home: Path | None = None,
    command: Sequence[str] = SERVE,
    *,
    settings: Mapping[str, object] | None = None,
    nice: int = 0,
) -> Iterator[Served]:
    """Run a server on a free port, and end it.

    Args:
        home: Where its example store is; without one, a fresh folder. It borrows the built bundle if it has none.
        command: What starts it; it says "... is serving on HOST:PORT" on stderr.
        settings: The server's settings.
        nice: How much the server stands back behind who measures it, who would be elsewhere in earnest.

    Yields:
        The server.
    """
    with ExitStack() as stack:
        home = home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (home / "bundles").exists():
            (home / "bundles").symlink_to(Settings().bundles.absolute())
        environment = {**os.environ, "STILLWATCH_HOME": str(home), "STILLWATCH_PORT": "0"}
        environment |= {f"STILLWATCH_{name.upper()}": str(value) for name, value in (settings or {}).items()}
        begun = time.perf_counter()
        log = stack.enter_context((home / "log").open("w"))
        process = stack.enter_context(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        assert process.stderr is not None
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))
            address = next((line.split()[-1] for line in process.stderr if " is serving on " in line), None)
            if address is None:
                raise SystemExit("the server did not start: run  stillwatch doctor")
            started, worked = time.perf_counter() - begun, processor_seconds(process.pid)
            # Whatever it logs from now on must not fill the pipe.
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)  # noqa: S607
            yield Served(address, process.pid, started, worked)
        finally:
            process.terminate()
            process.wait(60)
        drain.wait(10)


def processor_seconds(pid: int) -> float:
    """The processor time that a process has taken, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """The resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20


def peak_mib(pid: int) -> float:
    """The most resident memory that a process had in MiB; 0 of one that has ended.

    What wait4 tells of a child is no less than its parent's own memory at the time of the fork.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:")), 0.0)
