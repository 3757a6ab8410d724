"""A real PostgreSQL server for the tests and benchmarks, in a folder of its own, spoken to over a socket in it."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PROGRAMS = ("initdb", "pg_ctl", "postgres")
_NOBODY = 65534
_PATIENCE = 60


class Postgres:
    """A server that may be stopped, killed and started again."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        if os.geteuid() == 0:  # as which the server refuses to run
            os.chown(folder, _NOBODY, _NOBODY)
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": "60"}
        if not durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in options.items())
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-s", "-D", "data", "-l", "log", "-t", str(_PATIENCE))

    def stop(self) -> None:
        """Stop it as it stands; what was acknowledged is recovered by the next start."""
        self._run("pg_ctl", "stop", "-s", "-m", "immediate", "-D", "data")

    def pid(self) -> int:
        """The server's first process."""
        return int((self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])

    def store(self, options: str = "") -> str:
        """The address of a place that holds nothing yet."""
        name = f"store{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.address()}&options=-csearch_path%3D{name}{options}"

    def address(self, user: str = "postgres", database: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        user, groups = (_NOBODY, ()) if os.geteuid() == 0 else (None, None)
        with (self.folder / "said").open("a", encoding="utf-8") as said:
            done = subprocess.run(
                [program, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                timeout=2 * _PATIENCE,
                user=user,
                group=user,
                extra_groups=groups,
            )
        if done.returncode != 0:
            words = (self.folder / "said").read_text(encoding="utf-8")
            raise RuntimeError(f"{program} ended with {done.returncode}: {words}")


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
