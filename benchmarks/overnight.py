"""How many hours a month of logs takes: `stillwatch rescore` against the bare scorer and the plain reference.

Run by `make bench-rescore`. The command is one real process over a log of several files. After each file it stands still
while the others score the same prompts on the same cores, and a reading alone is timed; see `Measured`. Medians are of all
files but the first, which holds the starts, and the last, while which nothing follows. Prints one Markdown table.

The command scores up to three windows of 1,024 prompts ahead of the file it writes. That is the same at every stop if
files are far larger; what is left of it goes from one file to the next, so that the sum over files is free of it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from reading import seconds
from reference_run import ReferenceRun, reference_run
from texts import distinct_texts
from turns import Spent, Turns, take_turns

from classifier.batch.inputs import find
from classifier.batch.manifest import read_manifest
from classifier.batch.parts import load
from classifier.batch.plan import ROWS_PER_PART
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.encoder import Encoder
from classifier.runtime import open_runtime, threads_of
from classifier.scorer import Scorer

MONTH = 28_800_000
"""Prompts of the largest public campaign."""
_BATCH, _WINDOW = 64, 1_024
"""Prompts of one call, and of those among which the command puts alike lengths together, as in classifier.batch.feed."""
_AHEAD = 4 * _WINDOW
"""Prompts that the command may have scored before their file's turn; files must be larger for their times to mean much."""


@dataclass(slots=True)
class Measured:
    """What the others took, file by file.

    Attributes:
        alike: The bare scorer, its texts in memory, called as the command calls it: a call on every core, alike lengths.
        plain: The bare scorer, one caller: 64 texts at a time as they come, the encoder on all cores.
        reading: Processor seconds of reading and parsing alone, on one core.
        reference: The reference, over the first rows of each file.
    """

    alike: list[Spent] = field(default_factory=list)
    plain: list[Spent] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)
    reference: list[Spent] = field(default_factory=list)


def main() -> None:
    """Make the log, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--reference-rows", type=int, default=2_000, help="of each file; 0 leaves the reference out")
    given = parser.parse_args()
    size = given.rows // max(1, given.files)
    if given.files < 3 or not 1 <= size <= ROWS_PER_PART:
        parser.error(f"take 3 files or more, with 1 to {ROWS_PER_PART:,} rows each, which are one part")
    referred = min(given.reference_rows, size)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "bundles").symlink_to(Settings().bundles.absolute())
        own = Settings(home=folder)  # the command's, and not a store to which somebody adds examples
        threads = threads_of(own)
        narrow = stack.enter_context(open_runtime(own.model_copy(update={"threads": 1})))
        wide = stack.enter_context(open_runtime(own, store=folder / "wide.db"))
        model = narrow.scorer.model
        logs = write_logs(folder / "logs", size, given.files, model.encoder)
        reference = stack.enter_context(reference_run(threads)) if referred else None
        measured = Measured()

        def turn(number: int) -> None:
            _measure(measured, logs[number], (narrow.scorer, wide.scorer), threads)
            if reference:
                _refer(measured, reference, logs[number], referred)

        command = (sys.executable, "-m", "classifier.cli", "rescore", str(folder / "logs"), "--output")
        output = folder / "output"
        environment = os.environ | {"STILLWATCH_HOME": str(folder)}
        found = take_turns([*command, str(output)], output, len(logs), turn, environment)
        tokens = _checked(output, size * len(logs))
        print(f"{size * len(logs):,} prompts of {tokens:.1f} tokens in the mean, no two equal, in {len(logs)} files")
        print(f"{threads} cores, load {os.getloadavg()[0]:.1f} at the end, bundle {model.version}")
        if size < 2 * _AHEAD:
            print(
                f"A TRIAL: files under {2 * _AHEAD:,} prompts are scored ahead of their turn, the rates are no figures"
            )
        print("\n".join(table(found, measured, size, referred)))
        print("\n".join(merits(found, measured, size * len(logs), threads)))


def write_logs(folder: Path, size: int, files: int, encoder: Encoder) -> list[Path]:
    """Write a log whose prompts are all different.

    Args:
        folder: The folder to make.
        size: Rows of a file.
        files: How many files.
        encoder: Its tokenizer counts.

    Returns:
        The files, in the order in which a folder is read.
    """
    folder.mkdir()
    texts = distinct_texts(load_corpus(), encoder, size * files)
    paths = [folder / f"{number:04}.jsonl" for number in range(files)]
    for path in paths:
        with path.open("w", encoding="utf-8") as file:
            for row in range(size):
                place = {"request_id": f"{path.stem}-{row}", "account": f"acct-{row % 997}"}
                at = f"2026-01-05T{row // 3_600 % 24:02}:{row // 60 % 60:02}:{row % 60:02}Z"
                file.write(json.dumps({**place, "time": at, "prompt": next(texts)}) + "\n")
    return paths


def _measure(measured: Measured, log: Path, scorers: tuple[Scorer, Scorer], threads: int) -> None:
    narrow, wide = scorers
    (source,) = find([str(log)])
    rows, records, spent = seconds(source)
    with log.open(encoding="utf-8") as file:
        texts = [json.loads(line)["prompt"] for line in file]
    if not rows == records == len(texts):
        raise SystemExit("the log was not read as it was written")
    measured.reading.append(spent)
    windows = [sorted(texts[at : at + _WINDOW], key=len, reverse=True) for at in range(0, len(texts), _WINDOW)]
    alike = [batch for window in windows for batch in _batches(window)]
    with ThreadPoolExecutor(threads) as executor:
        measured.alike.append(_spent(lambda: list(executor.map(narrow.score, alike))))
    measured.plain.append(_spent(lambda: [wide.score(batch) for batch in _batches(texts)]))


def _refer(measured: Measured, reference: ReferenceRun, log: Path, rows: int) -> None:
    measured.reference.append(reference.rescore(log, log.parent.parent / "reference.parquet", rows))


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]


def _spent(work: Callable[[], object]) -> Spent:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def _checked(output: Path, rows: int) -> float:
    """Hold a finished run to its log; the tokens of a prompt in the mean, the encoder's two special ones counted."""
    manifest = read_manifest(output)
    if manifest is None or manifest.state != "done" or manifest.counts.scored != rows or manifest.counts.repeats:
        raise SystemExit("the command did not score every prompt once")
    table = load(output).to_table(columns={"tokens": pc.field("inspected", "tokens_total")})
    return float(pc.mean(table["tokens"]).as_py()) + 2


def table(found: Turns, measured: Measured, size: int, referred: int) -> list[str]:
    """The comparison, as lines of a Markdown table.

    Args:
        found: What the command took.
        measured: What the others took.
        size: Rows of a file.
        referred: Rows of a file that the reference scored.

    Returns:
        The lines.
    """
    own = found.parts[1:-1]
    lines = [
        "| | prompts/s | the command is | by processor time |",
        "|---|---|---|---|",
        f"| `stillwatch rescore` | {_rate(own, size):.0f} | | |",
    ]
    others = [
        ("bare scorer, called as the command calls it (target 0.95x)", measured.alike, size),
        ("bare scorer, one caller with 64 as they come, encoder on all cores", measured.plain, size),
        (f"reference, {referred:,} prompts of each file (target 5x)", measured.reference, referred),
    ]
    for name, spent, rows in others:
        if spent:
            there = spent[1:-1]
            pairs = list(zip(own, there, strict=True))
            wall = np.median([other.wall / rows / (one.wall / size) for one, other in pairs])
            processor = np.median([other.processor / rows / (one.processor / size) for one, other in pairs])
            lines.append(f"| {name} | {_rate(there, rows):.0f} | {wall:.3f}x | {processor:.3f}x |")
    return lines


def merits(found: Turns, measured: Measured, rows: int, threads: int) -> list[str]:
    """The figures of the whole run, as lines of text.

    Args:
        found: What the command took.
        measured: What the others took.
        rows: Of the whole log.
        threads: How many cores there are.

    Returns:
        The lines.
    """
    own, whole, bare = found.parts[1:-1], found.whole, measured.alike[1:-1]
    together = sum(other.wall for other in bare) / sum(one.wall for one in own)
    read = np.median([spent / part.processor for spent, part in zip(measured.reading[1:-1], own, strict=True)])
    rate = rows / whole.wall
    return [
        f"the command is {together:.3f}x of the bare scorer that is called alike, over these files together",
        f"reading and parsing: {read:.2%} of the command's processor time (target 5 % at most)",
        f"the whole run, from the start of the process to the page: {rows:,} prompts in {whole.wall:.1f} s, {rate:.0f}/s, "
        f"{rate / threads:.0f}/s/core, {whole.processor / whole.wall:.2f} cores busy, peak memory {found.peak:.0f} MiB",
        f"{MONTH:,} such prompts at this rate: {MONTH / rate / 3_600:.1f} hours on {threads} cores",
    ]


def _rate(spent: Sequence[Spent], rows: int) -> float:
    return float(np.median([rows / one.wall for one in spent]))


if __name__ == "__main__":
    main()
