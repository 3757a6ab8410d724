"""Times how soon an added example is found, and what adding 1,000 of them costs the scoring beside it.

The store is a fresh SQLite one of so many examples, a tenth of them benign, whose embeddings are made as `searching` makes rows; nothing is encoded
while examples are added, so that what is timed is the store and the index. Every added example is searched for, and must be
the nearest to its own embedding. The scoring is the bundle's: one thread that scores batches of 16 prompts without end.

With --changes, so many adds, revokes, restores and relabels in random order, ten a write, come first, while the index is
renewed beside them; then recall@10 of the index that followed them is held against exact search over what the store holds.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
from searching import made, nearest, recall
from threadpoolctl import threadpool_limits

from classifier.bundle import open_bundle
from classifier.scorer import Scorer
from index.change import Act
from index.contract import ExampleStore, Relabel
from index.example import Example, Label, State
from index.live import ExampleIndex, Snapshot
from index.search import Vectors
from index.store import open_store
from index.tail import Tail

_ACT = Act("benchmark")
_AT_ONCE = 5_000
_SCORED_AT_ONCE = 16
_BURST = 1_000
_QUERIES = 1_000
_CHANGED_AT_ONCE = 10
_SECONDS = 4.0


def main() -> None:
    """Fill a store, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--adds", type=int, default=500, help="examples that are added one by one")
    parser.add_argument("--rounds", type=int, default=5, help="bursts of 1,000 while prompts are scored; 0 for none")
    parser.add_argument("--changes", type=int, default=0, help="random changes, of which the recall is taken")
    parser.add_argument("--bundle", type=Path, default=Path("var/bundles/current"))
    given = parser.parse_args()
    threadpool_limits(1, user_api="blas")
    bundle = open_bundle(given.bundle.resolve(), threads=1)
    total = given.rows + given.changes + given.adds + given.rounds * 2 * _BURST
    rows, queries, _ = made(bundle.vectors, total, _QUERIES, 1)

    def embed(texts: Sequence[str]) -> Vectors:
        return rows[[int(text.split()[1]) for text in texts]]

    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "examples.sqlite")
        index = ExampleIndex(store, embed, "made", rows.shape[1])
        for start in range(0, given.rows, _AT_ONCE):
            index.add(_examples(start, min(_AT_ONCE, given.rows - start)), _ACT)
        began = time.thread_time()
        if index.renew():
            print(f"the graph took {time.thread_time() - began:.1f} s of processor time")
        print(f"{given.rows:,} examples: the index takes {_bytes(index.snapshot) / given.rows:,.0f} bytes each")
        tail = Tail(lambda: index)
        tail.start()
        number = given.rows
        if given.changes:
            number = _changed(index, number, given.changes)
            _print_recall(index, rows, queries)
        number = _one_by_one(index, rows, number, given.adds)
        if given.rounds:
            scorer = Scorer(bundle.model, lambda: index.snapshot)
            texts = [example.text for example in bundle.examples[::37]]
            _beside_scoring(index, scorer, texts, number, given.rounds)
        tail.stop()
        store.close()


def _examples(first: int, count: int) -> list[Example]:
    return [
        Example(f"made {n}", Label.EXTRACTION, technique="self_chat") if n % 10 else Example(f"made {n}", Label.BENIGN)
        for n in range(first, first + count)
    ]


def _changed(index: ExampleIndex, number: int, count: int) -> int:
    chance = random.Random(1)  # noqa: S311  # no secret
    active = {example.id: example for example in index.store.since(0)}
    revoked: dict[str, Example] = {}
    for _ in range(0, count, _CHANGED_AT_ONCE):
        kind = chance.choices(["add", "revoke", "relabel", "restore"], [4, 2, 3, 1])[0]
        held = list(revoked if kind == "restore" else active)
        some = chance.sample(held, min(len(held), _CHANGED_AT_ONCE)) if kind != "add" else []
        changed, _ = index.write(_work(kind, some, [active[name] for name in some if name in active], number))
        number += _CHANGED_AT_ONCE if kind == "add" else 0
        for example in changed:
            here, there = (active, revoked) if example.state is State.ACTIVE else (revoked, active)
            here[example.id] = example
            there.pop(example.id, None)
    return number


def _work(kind: str, ids: list[str], examples: list[Example], number: int) -> Callable[[ExampleStore], list[Example]]:
    if kind == "add":
        return lambda store: store.add(_examples(number, _CHANGED_AT_ONCE), _ACT)
    if kind == "revoke":
        return lambda store: store.revoke(ids, _ACT)
    if kind == "restore":
        return lambda store: store.restore(ids, _ACT, State.ACTIVE)
    return lambda store: store.relabel([_turned(example) for example in examples], _ACT)


def _turned(example: Example) -> Relabel:
    if example.label == Label.BENIGN:
        return Relabel(example.id, Label.EXTRACTION, "self_chat", ())
    return Relabel(example.id, Label.BENIGN, None, ())


def _print_recall(index: ExampleIndex, rows: Vectors, queries: Vectors) -> None:
    for label in Label:
        side = index.snapshot.side(label)
        own = [e for e in index.store.since(0) if e.state is State.ACTIVE and e.label == label]
        numbers = np.array([int(example.text.split()[1]) for example in own])
        truth = numbers[nearest(rows[numbers], queries, 10)[1]]
        hits = side.index.search(queries, 10)
        found = [[int(side.examples[p].text.split()[1]) for p in positions] for positions in hits.positions.tolist()]
        graph = side.index.graph.size if side.index.graph else 0
        print(
            f"{label.value}: {len(own):,} active examples, {graph:,} in the graph of which {side.index.gone:,} left, "
            f"{side.index.tail.size:,} in the tail: recall@10 {recall(np.array(found), truth):.4f}",
            flush=True,
        )


def _one_by_one(index: ExampleIndex, rows: Vectors, first: int, count: int) -> int:
    taken, written, worked = [], [], []
    store_add = index.store.add

    def add(examples: Sequence[Example], act: Act) -> list[Example]:
        began = time.perf_counter()
        stored = store_add(examples, act)
        written.append(time.perf_counter() - began)
        return stored

    index.store.add = add  # type: ignore[method-assign]  # to time it apart
    for number in range(first, first + count):
        examples = _examples(number, 1)
        began, working = time.perf_counter(), time.thread_time()
        index.add(examples, _ACT)
        (match,) = index.snapshot.nearest(rows[number], 1)
        taken.append(time.perf_counter() - began)
        worked.append(time.thread_time() - working)
        assert match.example.text == examples[0].text
    index.store.add = store_add  # type: ignore[method-assign]  # as it was
    measured = {"add to found": taken, "of which the store's write": written, "processor time of it all": worked}
    for name, seconds in measured.items():
        middle, high = 1_000 * np.quantile(seconds, [0.5, 0.99])
        print(f"{name}: p50 {middle:.1f} ms, p99 {high:.1f} ms", flush=True)
    return first + count


def _beside_scoring(index: ExampleIndex, scorer: Scorer, texts: Sequence[str], number: int, rounds: int) -> None:
    """Score for a while with and without a burst of adds, in turn: in one call, and one by one."""
    ratios: dict[str, list[float]] = {"in one call": [], "one by one": []}
    worked: dict[str, list[float]] = {name: [] for name in ratios}
    with _scoring(scorer, texts) as scored:
        for _ in range(rounds):
            for name, size in (("in one call", _BURST), ("one by one", 1)):
                alone = _rate(scored, _SECONDS)
                begun, count = time.perf_counter(), scored[0]
                working = time.thread_time()
                for start in range(number, number + _BURST, size):
                    index.add(_examples(start, size), _ACT)
                worked[name].append(time.thread_time() - working)
                time.sleep(max(0.0, _SECONDS - (time.perf_counter() - begun)))
                beside = (scored[0] - count) / (time.perf_counter() - begun)
                number += _BURST
                ratios[name].append(beside / ((alone + _rate(scored, _SECONDS)) / 2))
    for name, found in ratios.items():
        cost = f"{np.median(worked[name]):.2f} s of processor time"
        print(f"scoring while 1,000 are added {name} ({cost}), against alone: {np.median(found):.3f}")


def _rate(scored: list[int], seconds: float) -> float:
    begun, count = time.perf_counter(), scored[0]
    time.sleep(seconds)
    return (scored[0] - count) / (time.perf_counter() - begun)


@contextmanager
def _scoring(scorer: Scorer, texts: Sequence[str]) -> Iterator[list[int]]:
    scored, done = [0], threading.Event()

    def score() -> None:
        place = 0
        while not done.is_set():
            scorer.score(texts[place : place + _SCORED_AT_ONCE])
            scored[0] += _SCORED_AT_ONCE
            place = (place + _SCORED_AT_ONCE) % (len(texts) - _SCORED_AT_ONCE)

    thread = threading.Thread(target=score)
    thread.start()
    try:
        yield scored
    finally:
        done.set()
        thread.join()


def _bytes(snapshot: Snapshot) -> int:
    """Of rows, graph, positions, labels' numbers and ids; not of the examples themselves, which hold the text."""
    total = 0
    for label in Label:
        side = snapshot.side(label)
        layers, count = side.index, side.index.span
        places = sum(map(sys.getsizeof, side.ids._parts)) + len(side.ids) * sys.getsizeof(1 << 20)  # noqa: SLF001  # no other way to weigh them
        graph = len(faiss.serialize_index(layers.graph.index)) + 8 * layers.graph.size if layers.graph else 0
        pointers, numbers, alive = 8, 4, 1
        total += places + graph + layers.tail.rows.nbytes + 8 * layers.tail.size + count * (pointers + numbers + alive)
    return total


if __name__ == "__main__":
    main()
