"""What sampling traffic costs the scorer, and how long an impact takes: python benchmarks/trusting.py [--prompts 2000].

Times are of the processor, so that other work on the machine counts less. Prompts come from the seed corpus, each with a word of its own, so that none repeats another or an example.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.desk.impact import baseline, impact
from classifier.desk.kept import restore, save
from classifier.desk.reservoir import Reservoir
from classifier.desk.sample import Group
from classifier.runtime import open_runtime
from classifier.scorer import Scorer
from index.example import Example, Label

_BATCH = 32
_ROUNDS = 3


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=2_000)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    chance = random.Random(asked.seed)  # noqa: S311  # a sample, no secret
    rows = [row.example for row in load_corpus()]
    texts = [f"{chance.choice(rows).text} {number}" for number in range(asked.prompts)]
    with TemporaryDirectory() as folder:
        settings = Settings(window_cache_entries=0)
        with open_runtime(settings, store=Path(folder) / "examples.db") as runtime:
            model, snapshot = runtime.scorer.model, runtime.scorer.snapshot
            reservoir = Reservoir(model, b"k" * 32, prompts=asked.prompts, seed=asked.seed)
            plain = Scorer(model, lambda: snapshot)
            watched = Scorer(model, lambda: snapshot, observer=reservoir.observe)
            filling, without = score(watched, texts), score(plain, texts)
            print(f"filling the reservoir: {100 * (filling / without - 1):+.1f} % of scoring time, one round")
            full = [score(watched, texts) / score(plain, texts) for _ in range(_ROUNDS)]
            print(f"when it is full: {100 * (statistics.median(full) - 1):+.1f} %, median of {_ROUNDS} rounds")
            kept = {group: reservoir.sample(group) for group in Group}
            print(
                ", ".join(
                    f"{group}: {len(one.entries)} prompts, {len(one.words)} windows" for group, one in kept.items()
                )
            )
            path = Path(folder) / "reservoir.bin"
            print(f"save {timed(lambda: save(reservoir, path)):.0f} ms, {path.stat().st_size / 2**20:.1f} MiB")
            fresh = Reservoir(model, b"k" * 32, prompts=asked.prompts)
            print(f"restore {timed(lambda: restore(fresh, path)):.0f} ms")
            known = baseline(reservoir, model, snapshot)
            print(f"baseline of a new snapshot {timed(lambda: baseline(reservoir, model, snapshot)):.0f} ms")
            for count in (1, 100):
                candidates = [Example(f"{text} please", Label.EXTRACTION, "self_chat") for text in texts[:count]]
                vectors = runtime.scorer.embed([example.text for example in candidates])
                took = timed(lambda: impact(candidates, vectors, reservoir, model, snapshot, known=known))  # noqa: B023  # called at once
                found = impact(candidates, vectors, reservoir, model, snapshot, known=known)
                print(f"impact of {count} more: {took:.0f} ms; {found.sentences[0]}")


def score(scorer: Scorer, texts: Sequence[str]) -> float:
    """Processor seconds to score all texts, some at a time."""
    started = time.process_time()
    for start in range(0, len(texts), _BATCH):
        scorer.score(texts[start : start + _BATCH])
    return time.process_time() - started


def timed(work: Callable[[], object]) -> float:
    """Processor milliseconds, the median of some rounds."""
    taken = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        work()
        taken.append(1_000 * (time.process_time() - started))
    return statistics.median(taken)


if __name__ == "__main__":
    main()
