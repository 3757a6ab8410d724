"""Kills `stillwatch rescore` at random moments and runs it again, until it is done; then holds its output to a calm run's.

Run by `make rescore-kill-test`. Every kill is a SIGKILL to a real process, at a moment drawn from a seed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from texts import rough_texts

from classifier.batch.parts import SCORES, load, load_rejects, read_parts

_ROWS_PER_PART = 50


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of a run that was killed again and again.

    Attributes:
        kills: How many processes were killed at work.
        runs: How many were started.
        moments: How many finished parts there were at each kill. Where it stays 0, nothing was resumed.
    """

    kills: int
    runs: int
    moments: tuple[int, ...]


def write_log(path: Path, rows: int, seed: int = 0) -> Path:
    """Write a log with what logs have: repeats, broken rows, blank lines, long prompts, identities.

    Args:
        path: The file.
        rows: How many rows.
        seed: Of the choice.

    Returns:
        The file.
    """
    chance = random.Random(seed)  # noqa: S311  # no secret depends on it
    texts = rough_texts(rows, seed)
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            kind = chance.random()
            if kind < 0.03:
                file.write('{"prompt": "never closed\n')
                continue
            if kind < 0.05:
                file.write('\n{"prompt": "\u200b"}\n')
                continue
            prompt = texts[chance.randrange(number + 1)] if kind < 0.3 else f"  {text}\n" if kind < 0.4 else text
            row = {"prompt": prompt, "account": f"acct-{number % 17}", "request_id": f"req-{number}"}
            file.write(json.dumps(row | {"time": f"2026-01-05T00:{number // 60 % 60:02}:{number % 60:02}Z"}) + "\n")
    return path


def command(inputs: Sequence[Path], output: Path, rows_per_part: int) -> list[str]:
    """The command line of a run."""
    verb = [sys.executable, "-m", "classifier.cli", "rescore", *map(str, inputs), "--output", str(output)]
    return [*verb, "--rows-per-part", str(rows_per_part), "--max-rejected", "1", "--json"]


def kill_until_done(
    arguments: Sequence[str], output: Path, kills: int, seed: int, environment: dict[str, str]
) -> Killed:
    """Start a run, kill it at a random moment, start it again; after so many kills let it end.

    A moment is none, one or two parts after the start and up to half a second, whatever the speed of the machine; where
    it is none, the kill comes while the process starts.

    Args:
        arguments: The command.
        output: Its output.
        kills: How many times it is killed at the most; a run that ends before its moment ends it all.
        seed: Of the moments.
        environment: The processes'.

    Returns:
        What came of it.

    Raises:
        RuntimeError: When a process ends with an error.
    """
    chance = random.Random(seed)  # noqa: S311  # no secret depends on it
    runs = 0
    moments: list[int] = []
    while True:
        runs += 1
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wanted = _parts(output) + chance.choice((0, 1, 1, 2))
        while len(moments) < kills and _parts(output) < wanted and _runs_on(process, 0.005):
            pass
        if len(moments) < kills and _runs_on(process, chance.uniform(0.0, 0.5)):
            process.kill()
            process.communicate()
            moments.append(sum(1 for _ in read_parts(output)))
            continue
        _, said = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"the run ended with {process.returncode}: {said.decode()}")
        return Killed(len(moments), runs, tuple(moments))


def _parts(output: Path) -> int:
    return len(list((output / SCORES).glob("[!.]*.parquet")))


def _runs_on(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def rows_of(output: Path) -> tuple[pa.Table, pa.Table]:
    """A run's scores and rejects, in the order of their rows."""
    order = [("file", "ascending"), ("row", "ascending"), ("item", "ascending")]
    return load(output).to_table().sort_by(order), load_rejects(output).to_table().sort_by(order)


def differences(output: Path, other: Path) -> list[str]:
    """Where the rows of two runs differ, column by column; nothing where they are equal to the bit.

    Args:
        output: A run's output.
        other: Another one's.

    Returns:
        For each column that differs how many rows do, and the first of them with both values.
    """
    found = []
    for kind, here, there in zip(("scores", "rejects"), rows_of(output), rows_of(other), strict=True):
        if here.num_rows != there.num_rows or here.schema != there.schema:
            found.append(
                f"{kind}: {here.num_rows} rows of {here.schema.names}, {there.num_rows} of {there.schema.names}"
            )
            continue
        for name in here.column_names:
            if not here[name].equals(there[name]):
                pairs = zip(here[name].to_pylist(), there[name].to_pylist(), strict=True)
                places = [place for place, (mine, its) in enumerate(pairs) if repr(mine) != repr(its)]
                rows = [(here.slice(p, 1).to_pylist()[0], there[name][p].as_py()) for p in places[:3]]
                first = [f"{row['file']}:{row['row']}: {row[name]!r} and {its!r}" for row, its in rows]
                found.append(f"{kind}.{name}: {len(places)} rows differ, first {'; '.join(first)}")
    return found


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        logs = [write_log(folder / f"{name}.jsonl", given.rows // 2, seed) for seed, name in enumerate("ab")]
        calm, stormy = folder / "calm", folder / "stormy"
        environment = dict(os.environ)
        subprocess.run(command(logs, calm, _ROWS_PER_PART), env=environment, check=True, stdout=subprocess.DEVNULL)
        found = kill_until_done(command(logs, stormy, _ROWS_PER_PART), stormy, given.kills, given.seed, environment)
        scores, rejects = rows_of(calm)
        different = differences(stormy, calm)
        print(
            f"{found.kills} kills in {found.runs} runs, at {min(found.moments)} to {max(found.moments)} finished parts"
        )
        print(
            f"{len(scores):,} scored and {len(rejects):,} rejected rows, {'NOT equal' if different else 'equal'} to a calm run's"
        )
        for line in different:
            print(line)
        if different or found.kills < given.kills or len(set(found.moments)) < given.kills // 4:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
