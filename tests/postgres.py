"""A real PostgreSQL server for the tests and benchmarks, in a folder of its own, spoken to over a socket in it."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

PROGRAMS = ("initdb", "postgres")
_NOBODY = 65534
_PATIENCE = 60


class Postgres:
    """A server that may be stopped, killed and started again."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        if os.geteuid() == 0:  # as which the server refuses to run
            os.chown(folder, _NOBODY, _NOBODY)
        made = self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        if made.wait(_PATIENCE) != 0:
            raise RuntimeError(f"initdb failed: {self._said()}")
        options = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": "60"}
        if not durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in options.items())
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server = self._run("postgres", "-D", "data")
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"postgres did not start: {self._said()}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it at once; the next start recovers what was acknowledged."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(_PATIENCE)

    def kill(self) -> None:
        """Kill all its processes, as a power cut would."""
        self._server.send_signal(signal.SIGSTOP)  # so that it starts no other one meanwhile
        pids = _children(self._server.pid)
        for pid in (self._server.pid, *pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.wait(_PATIENCE)
        deadline = time.monotonic() + _PATIENCE
        while any(map(_runs, pids)) and time.monotonic() < deadline:
            time.sleep(0.005)

    def store(self, options: str = "") -> str:
        """The address of a place that holds nothing yet."""
        name = f"store{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.address()}&options=-csearch_path%3D{name}{options}"

    def address(self, user: str = "postgres", database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Say something to the server."""
        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        user, groups = (_NOBODY, ()) if os.geteuid() == 0 else (None, None)
        with (self.folder / "said").open("a", encoding="utf-8") as said:
            return subprocess.Popen(
                [program, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                user=user,
                group=user,
                extra_groups=groups,
                start_new_session=True,  # a signal from the terminal is not for it
            )

    def _said(self) -> str:
        return (self.folder / "said").read_text(encoding="utf-8")[-2_000:]


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="utf-8").split()]


def _runs(pid: int) -> bool:
    """Whether a process still runs; one that waits to be collected by its parent does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def missing_program() -> str:
    """The first of PostgreSQL's programs that is not installed; "" when all are."""
    return next((name for name in PROGRAMS if shutil.which(name) is None), "")


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server that runs until the end.

    Args:
        durable: Whether it syncs what it acknowledges.

    Yields:
        The server.
    """
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as name:
        server = Postgres(Path(name), durable=durable)
        try:
            yield server
        finally:
            server.stop()
