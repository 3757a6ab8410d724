"""Server processes to measure, what they hold, and prompts of mixed length to send to them."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from classifier.config import Settings
from classifier.corpus import load_corpus

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CHARS_A_TOKEN = 4.7
SERVE = (sys.executable, "-m", "classifier.cli", "serve")
NO_VERDICTS_KEPT = {"STILLWATCH_VERDICT_CACHE_ENTRIES": "0"}
"""So that a prompt that comes again is work again."""


@contextmanager
def server_process(
    command: Sequence[str] = SERVE, *, nice: int = 0, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[int, str]]:
    """A server on a free port and a fresh store that borrows the built bundle.

    Args:
        command: What starts it.
        nice: How much the server stands back behind who measures it, who would be elsewhere in earnest.
        variables: Of its environment.

    Yields:
        Its process id and address.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "bundles").symlink_to(Settings().bundles.absolute())
        environment = {**os.environ, "STILLWATCH_HOME": folder, "STILLWATCH_PORT": "0"}
        environment |= variables or {}
        with (
            (home / "log").open("w") as log,
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process,
        ):
            assert process.stderr is not None
            try:
                os.setpriority(os.PRIO_PROCESS, process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))
                address = next((line.split()[-1] for line in process.stderr if line.startswith("stillwatch is")), None)
                if address is None:
                    raise SystemExit("the server did not start: run  stillwatch doctor")
                # Whatever it logs from now on must not fill the pipe.
                drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)  # noqa: S607
                yield process.pid, address
            finally:
                process.terminate()
                process.wait(60)
            drain.wait(10)


def resident_mib(pid: int) -> float:
    """The resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20


def mixed_texts(count: int, seed: int = 0) -> list[str]:
    """English texts of some 16 to 256 tokens, 64 in the mean, out of the seed corpus.

    Args:
        count: How many.
        seed: Of the choice.

    Returns:
        Texts.
    """
    random = np.random.default_rng(seed)
    words = _words()
    lengths = np.clip(16 + random.exponential(50, count), 16, 256) * _CHARS_A_TOKEN
    starts = random.integers(0, len(words) - 2_000, count)
    return [words[start : start + int(length)] for start, length in zip(starts, lengths, strict=True)]


@cache
def _words() -> str:
    return " ".join(row.example.text for row in load_corpus() if row.example.language == "en")
