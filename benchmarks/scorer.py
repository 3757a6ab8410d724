"""Times the scorer against the plain reference, interleaved in one run on equal threads.

Run by `make bench`, needs the train extra. Prints medians over rounds and the median of the rounds' ratios.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from reference import Reference
from texts import texts_of_length

from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.runtime import open_runtime

LENGTHS = (16, 64, 128, 256)
BATCHES = (1, 32)


def main() -> None:
    """Run every length and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    threads = len(os.sched_getaffinity(0))
    rows = load_corpus()
    reference = Reference(rows, threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_runtime(Settings(window_cache_entries=0), store=Path(folder) / "e.db") as runtime,
    ):
        print(f"{threads} threads each, {len(rows)} examples, {rounds} interleaved rounds, medians")
        print(f"bundle {runtime.scorer.model.version}")
        print("| tokens | batch | reference, prompts/s | Stillwatch, prompts/s | ratio | encode share |")
        print("|---|---|---|---|---|---|")
        for tokens in LENGTHS:
            for batch in BATCHES:
                texts = texts_of_length(rows, runtime.scorer.model.encoder, tokens, batch)
                reference_times, times, shares = [], [], []
                for number in range(rounds + 2):
                    started = time.perf_counter()
                    reference.score(texts)
                    middle = time.perf_counter()
                    scored = runtime.scorer.score(texts)
                    ours = time.perf_counter() - middle
                    if number >= 2:  # the first two rounds warm up
                        reference_times.append(middle - started)
                        times.append(ours)
                        shares.append(scored.times.encode / 1_000 / ours)
                ratio = float(np.median(np.array(reference_times) / np.array(times)))
                print(
                    f"| {tokens} | {batch} | {batch / np.median(reference_times):.0f} | {batch / np.median(times):.0f} "
                    f"| {ratio:.2f}x | {np.median(shares):.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
