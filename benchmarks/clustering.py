"""Times re-scoring by Ray with one and two workers against one machine's run with one and two threads, row for row.

Every run is a process of its own over the same prompts, none of which comes twice; rounds are interleaved. Both figures
begin with the first part in a run's output, so that no start counts: rows per second, and rows per second of processor
time of the processes that score, which says what a core does also where others use the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from killing import command, differences
from texts import rough_texts

from classifier.batch.parts import SCORES, read_parts

RUNS = (("local", 1), ("ray", 1), ("local", 2), ("ray", 2))
_MARK = "STILLWATCH_BENCH"
_LOOK_SECONDS = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Timed:
    """One run.

    Attributes:
        rate: Rows a second.
        core_rate: Rows a second of processor time.
        start: Seconds from the command's start to its first part.
        resident: The largest scoring process, in MiB.
    """

    rate: float
    core_rate: float
    start: float
    resident: float


def time_run(path: Path, output: Path, rows_per_part: int, engine: str, width: int) -> Timed:
    """Time one run.

    Args:
        path: The log.
        output: A new folder.
        rows_per_part: Rows of a part.
        engine: local or ray.
        width: Threads of the one, workers of the other.

    Returns:
        Its figures.
    """
    mark = f"{_MARK}={uuid.uuid4().hex}"
    options = ["--engine", "ray", "--workers", str(width)] if engine == "ray" else []
    environment = {**os.environ, "STILLWATCH_THREADS": str(width), _MARK: mark.partition("=")[2]}
    name = b"ray::MapWorker" if engine == "ray" else b"classifier.cli"
    arguments = [*command([path], output, rows_per_part), *options]
    began = time.time()
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    used: dict[int, float] = {}
    before, resident = {}, 0.0
    while process.poll() is None:
        for pid, (seconds, mebibytes) in _scoring(mark.encode(), name).items():
            used[pid], resident = seconds, max(resident, mebibytes)
        if not any(output.glob(f"{SCORES}/[!.]*.parquet")):
            before = dict(used)
        time.sleep(_LOOK_SECONDS)
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}")
    written = sorted(file.stat().st_mtime for file in (output / SCORES).glob("[!.]*.parquet"))
    # Workers that begin together end their first parts together.
    first = min(width, len(written) - 1)
    rows = sum(part.read for part in read_parts(output)) - rows_per_part * first
    spent = sum(used.values()) - sum(before.values())
    return Timed(rows / (written[-1] - written[first - 1]), rows / spent, written[0] - began, resident)


def _scoring(mark: bytes, name: bytes) -> dict[int, tuple[float, float]]:
    """Processor seconds and resident MiB of the marked processes of a name."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if name in (folder / "cmdline").read_bytes() and mark in (folder / "environ").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                found[int(folder.name)] = (
                    (int(fields[11]) + int(fields[12])) / _TICKS,
                    int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20,
                )
        except OSError:
            continue  # it ended, or is another user's
    return found


def main() -> None:
    """Run all rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--rows-per-part", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[tuple[str, int], list[Timed]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = folder / "log.jsonl"
        texts = list(dict.fromkeys(rough_texts(given.rows, 0)))
        path.write_text("".join(json.dumps({"prompt": text, "account": "a"}) + "\n" for text in texts))
        for number in range(given.rounds):
            outputs = []
            for engine, width in RUNS:
                outputs.append(folder / f"{number}-{engine}-{width}")
                timed = time_run(path, outputs[-1], given.rows_per_part, engine, width)
                found[engine, width].append(timed)
                print(f"  {engine} {width}: {timed.rate:.0f}/s, {timed.core_rate:.0f}/s of processor", flush=True)
            if any(differences(output, outputs[0]) for output in outputs[1:]):
                sys.exit("the runs do not give the same rows")
    print(f"{len(texts):,} rows, parts of {given.rows_per_part}, {given.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for (engine, width), runs in found.items():
        rate, core_rate, start, resident = np.median([astuple(timed) for timed in runs], axis=0)
        against = core_rate / np.median([timed.core_rate for timed in found["local", width]])
        print(
            f"{engine:5} {width}: {rate:5.0f} rows/s; {core_rate:4.0f} a second of processor, {against:.2f}x of local; "
            f"first part after {start:.0f} s; {resident:.0f} MiB a process"
        )


if __name__ == "__main__":
    main()
