"""How many wrong labels stand on top of the suspects: python benchmarks/suspecting.py [--share 0.02].

Labels of the seed corpus are flipped by chance, and all examples ranked; once with every row, once without the hard
negatives, which are written to lie next to the border. Times are of the processor.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from classifier.bundle import open_bundle
from classifier.config import Settings
from classifier.train.suspects import Suspect, rank_suspects
from index.example import Example, Label


def flipped(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], set[str]]:
    """Examples of which a share has the other label, and the ids of those."""
    chance = random.Random(seed)  # noqa: S311  # a sample, no secret
    rows = set(chance.sample(range(len(examples)), int(share * len(examples))))
    techniques = sorted({example.technique for example in examples if example.technique})
    found = []
    for row, example in enumerate(examples):
        if row not in rows:
            found.append(example)
        elif example.label == Label.EXTRACTION:
            found.append(replace(example, label=Label.BENIGN, technique=None))
        else:
            found.append(replace(example, label=Label.EXTRACTION, technique=chance.choice(techniques)))
    return found, {examples[row].id for row in rows}


def recall(ranked: Sequence[Suspect], wrong: set[str], times: int) -> float:
    """Which share of the wrong labels stands among the first so many times as many suspects."""
    return len({suspect.example.id for suspect in ranked[: times * len(wrong)]} & wrong) / len(wrong)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--share", type=float, default=0.02)
    options.add_argument("--seeds", type=int, default=3)
    asked = options.parse_args()
    bundle = open_bundle(Settings().bundle.resolve(), threads=1)
    plain = [row for row, example in enumerate(bundle.examples) if not example.note.startswith("hard_")]
    for name, rows in (("all rows", range(len(bundle.examples))), ("without hard negatives", plain)):
        vectors = bundle.vectors[list(rows)]
        for seed in range(asked.seeds):
            examples, wrong = flipped([bundle.examples[row] for row in rows], asked.share, seed)
            started = time.process_time()
            ranked = rank_suspects(examples, np.asarray(vectors), bundle.model.encoder, seed=seed)
            took = time.process_time() - started
            shares = ", ".join(f"recall@{times}x {recall(ranked, wrong, times):.2f}" for times in (1, 2, 4))
            doubted = sum(suspect.doubted for suspect in ranked)
            print(
                f"{name}, seed {seed}: {len(wrong)} of {len(examples)} flipped, {shares}, {doubted} doubted, {took:.1f} s"
            )


if __name__ == "__main__":
    main()
