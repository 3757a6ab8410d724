"""Times `Classify` at one caller against the bare scorer, call by call in turns, and many callers against batches.

Run by `make bench`. The server is a process of its own; both share the machine's cores.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from texts import texts_of_length

from classifier.client import AsyncClient, Client
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.runtime import open_runtime

TOKENS = 64
CALLERS = 32


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    calls = parser.parse_args().calls
    rows = load_corpus()
    print(f"{len(os.sched_getaffinity(0))} cores, {TOKENS} tokens, server and caller on the same machine")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_runtime(Settings(), store=Path(folder) / "e.db") as runtime,
        _server(Path(folder)) as address,
        Client(address) as client,
    ):
        scorer = runtime.scorer
        texts = texts_of_length(rows, scorer.model.encoder, TOKENS, 64)
        bare, served = [], []
        for number in range(calls + 20):
            text = texts[number % len(texts)]
            started = time.perf_counter()
            scorer.score([text])
            middle = time.perf_counter()
            client.classify(text)
            if number >= 20:  # the first calls warm up
                bare.append(middle - started)
                served.append(time.perf_counter() - middle)
        ratio = np.median(served) / np.median(bare)
        print(f"one caller, {calls} calls in turns: bare scorer p50 {1e3 * np.median(bare):.2f} ms, ", end="")
        print(f"Classify p50 {1e3 * np.median(served):.2f} ms, ratio {ratio:.2f}x")
        offline, online = [], []
        for _ in range(7):
            started = time.perf_counter()
            for start in range(0, calls, CALLERS):
                scorer.score([texts[i % len(texts)] for i in range(start, min(start + CALLERS, calls))])
            middle = time.perf_counter()
            asyncio.run(_load(address, texts, calls))
            offline.append(calls / (middle - started))
            online.append(calls / (time.perf_counter() - middle))
        print(
            f"{CALLERS} callers, median of 7: offline batches of {CALLERS} {np.median(offline):.0f} prompts/s, ", end=""
        )
        print(f"served {np.median(online):.0f} prompts/s, {np.median(online) / np.median(offline):.2f}x")


async def _load(address: str, texts: list[str], calls: int) -> None:
    waiting = iter(range(calls))
    async with AsyncClient(address) as client:

        async def caller() -> None:
            for number in waiting:
                await client.classify(texts[number % len(texts)])

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


@contextmanager
def _server(home: Path) -> Iterator[str]:
    """A server on a fresh store that borrows the built bundle."""
    (home / "bundles").symlink_to(Settings().bundles.absolute())
    environment = {**os.environ, "STILLWATCH_HOME": str(home), "STILLWATCH_PORT": "0"}
    command = [sys.executable, "-m", "classifier.cli", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = next((line.split()[-1] for line in process.stderr if line.startswith("stillwatch is")), None)
            if address is None:
                raise SystemExit("the server did not start: run  stillwatch doctor")
            yield address
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
