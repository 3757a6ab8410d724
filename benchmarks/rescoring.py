"""Times a whole re-scoring run against the bare scorer on the same prompts, interleaved in one process.

The bare scorer has its texts in memory and calls `Scorer.score` with 64 at a time, its encoder on all cores. The run
reads, recognises, scores, fingerprints and writes them, synced. Prints prompts per second, and the ratio of medians.
"""

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from texts import rough_texts

from classifier.batch.inputs import find
from classifier.batch.plan import Plan
from classifier.batch.run import run
from classifier.batch.scoring import Scoring
from classifier.config import Settings
from classifier.runtime import open_runtime, threads_of

_BATCH = 64


def main() -> None:
    """Run all rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    threads = threads_of(Settings())
    bare, whole = [], []
    with (
        tempfile.TemporaryDirectory() as place,
        open_runtime(Settings(), store=Path(place) / "bare.db") as wide,
        open_runtime(Settings(threads=1), store=Path(place) / "run.db") as narrow,
    ):
        scoring = Scoring(narrow)
        for number in range(given.rounds + 1):
            texts = list(dict.fromkeys(rough_texts(given.rows, number)))
            path = Path(place) / f"{number}.jsonl"
            path.write_text("".join(json.dumps({"prompt": text, "account": "a"}) + "\n" for text in texts))
            started = time.perf_counter()
            for start in range(0, len(texts), _BATCH):
                wide.scorer.score(texts[start : start + _BATCH])
            middle = time.perf_counter()
            plan = Plan(sources=find([str(path)]), output=Path(place) / f"out{number}", threads=threads)
            found = run(plan, scoring, threading.Event())
            ended = time.perf_counter()
            if found.counts.scored != len(texts) or found.counts.repeats:
                raise SystemExit("the run did not score what the bare scorer did")
            if number:  # the first round warms up
                bare.append(len(texts) / (middle - started))
                whole.append(len(texts) / (ended - middle))
    ratios = np.array(whole) / np.array(bare)
    print(f"{given.rows} prompts, {given.rounds} rounds, {threads} threads, load {os.getloadavg()[0]:.1f}")
    print(
        f"bare scorer {np.median(bare):.0f}/s, run {np.median(whole):.0f}/s: {np.median(ratios):.3f}x, {ratios.round(3)}"
    )
    print(
        f"{np.median(whole) / threads:.0f}/s/core, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
    )


if __name__ == "__main__":
    main()
