"""Reloads a server between two bundles under load, and holds every verdict to the bundle that its provenance names.

The second bundle is the built one with other thresholds, another calibration and a third of its examples left out, so
that its numbers differ. Each is opened here, too, and scores every prompt offline; a served verdict whose probability,
decision or thresholds are not those of the bundle it names is a mixed answer. Server and callers share the machine.
Ends with 1 when a request failed or an answer was mixed.

Run:  .venv/bin/python benchmarks/reload.py
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from processes import NO_VERDICTS_KEPT, Served, served
from stillwatch.v1 import classifier_pb2, verdict_pb2
from texts import texts_of_length

from classifier.bundle import dump_examples, open_bundle, write_bundle
from classifier.client import AsyncClient
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.errors import ServiceFailed
from classifier.runtime import open_runtime

TOLERANCE = 0.01
"""Of a probability; a batch's make-up moves float32 sums."""
APART = 0.05
"""Prompts on whose probability the two bundles differ by less are left out: they would show nothing."""
TEXTS = 32


@dataclass(frozen=True)
class Expected:
    """What a bundle says of each prompt, and its thresholds."""

    probabilities: Sequence[float]
    review: float
    flag: float


@dataclass
class Seen:
    """What the callers met."""

    answers: list[tuple[int, classifier_pb2.ClassifyResponse]] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    swaps: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)


def main() -> None:
    """Reload, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=20, help="how many")
    parser.add_argument("--callers", type=int, default=16, help="unary callers at once, over four connections")
    parser.add_argument("--rest", type=float, default=2.0, help="seconds between two reloads")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        names = _bundles(home)
        texts, expected = _expected(home, names)
        with _server(home) as server:
            seen = asyncio.run(_drive(server, home, names, texts, given))
    mixed = [reason for number, answer in seen.answers if (reason := _mixed(number, answer.verdict, answer, expected))]
    print(_table(seen, mixed, given.callers))
    for problem in (*seen.failures[:5], *mixed[:5]):
        print(problem, file=sys.stderr)
    raise SystemExit(1 if mixed or seen.failures else 0)


def _bundles(home: Path) -> list[str]:
    """Two bundles in a home; the built one is the current one."""
    built = Settings().bundle.resolve()
    card = json.loads((built / "manifest.json").read_bytes())
    files = {name: (built / name).read_bytes() for name in card.pop("files")}
    bundle = open_bundle(built, threads=1)
    kept = [row for row in range(len(bundle.examples)) if row % 3]
    buffer = BytesIO()
    np.save(buffer, bundle.vectors[kept], allow_pickle=False)
    other = {
        "examples.jsonl": dump_examples(tuple(bundle.examples[row] for row in kept)),
        "examples.npy": buffer.getvalue(),
    }
    first = write_bundle(home / "bundles", card, files)
    head = card["head"]
    head["thresholds"] = {"review": head["thresholds"]["review"] / 2, "flag": head["thresholds"]["flag"] / 2}
    head["calibration"][0]["offset"] += 1.0
    second = write_bundle(home / "bundles", card | {"version": f"{card['version']}-other"}, files | other)
    return [first.name, second.name]


def _expected(home: Path, names: list[str]) -> tuple[list[str], dict[str, Expected]]:
    """Prompts on which the bundles differ, and what each says of them, by its version."""
    texts: list[str] = []
    found: dict[str, Expected] = {}
    for name in names:
        _point(home, name)
        with open_runtime(Settings(home=home), store=home / f"{name}.db") as runtime:
            model = runtime.scorer.model
            texts = texts or texts_of_length(load_corpus(), model.encoder, 64, 120)
            rows = [verdict.extraction_probability for verdict in runtime.scorer.score(texts).verdicts]
            found[model.version] = Expected(rows, model.thresholds.review, model.thresholds.flag)
    _point(home, names[0])
    one, other = (np.array(expected.probabilities) for expected in found.values())
    chosen = np.flatnonzero(np.abs(one - other) > APART)[:TEXTS].tolist()
    if len(chosen) < TEXTS:
        raise SystemExit("the two bundles are too much alike to tell their answers apart: change the second one more")
    return [texts[i] for i in chosen], {
        version: Expected([each.probabilities[i] for i in chosen], each.review, each.flag)
        for version, each in found.items()
    }


async def _drive(server: Served, home: Path, names: list[str], texts: list[str], given: argparse.Namespace) -> Seen:
    seen, stopped = Seen(), asyncio.Event()

    async def caller(client: AsyncClient, number: int) -> None:
        while not stopped.is_set():
            number = (number + 1) % len(texts)
            began = time.perf_counter()
            try:
                answer = await client.classify(texts[number])
            except ServiceFailed as error:
                seen.failures.append(f"{error.code}: {error}")
            else:
                seen.answers.append((number, answer))
                seen.spans.append((began, time.perf_counter()))

    clients = [AsyncClient(server.address) for _ in range(4)]
    operator = AsyncClient(server.address, timeout=300)
    tasks = [asyncio.create_task(caller(clients[number % 4], 7 * number)) for number in range(given.callers)]
    await asyncio.sleep(given.rest)
    for number in range(given.reloads):
        _point(home, names[(number + 1) % 2])
        began = time.perf_counter()
        await operator.reload()
        seen.swaps.append((began, time.perf_counter()))
        await asyncio.sleep(given.rest)
        seen.resident.append(int(server.resident))
    stopped.set()
    await asyncio.gather(*tasks)
    for client in (*clients, operator):
        await client.close()
    return seen


def _mixed(
    number: int,
    verdict: verdict_pb2.Verdict,
    answer: classifier_pb2.ClassifyResponse,
    expected: dict[str, Expected],
) -> str:
    """What of a verdict is not its bundle's; "" when all is."""
    origin = answer.provenance
    wanted = expected.get(origin.bundle_version)
    if wanted is None:
        return f"an answer names {origin.bundle_version}, which is neither of the two"
    if (origin.review_threshold, origin.flag_threshold) != (wanted.review, wanted.flag):
        return f"{origin.bundle_version} was used with thresholds that are not its own"
    probability = verdict.extraction_probability
    if abs(probability - wanted.probabilities[number]) > TOLERANCE:
        return f"{origin.bundle_version} gave {probability:.4f}, offline {wanted.probabilities[number]:.4f}"
    flagged, reviewed = probability >= wanted.flag, probability >= wanted.review
    names = verdict_pb2.DECISION_FLAG, verdict_pb2.DECISION_REVIEW, verdict_pb2.DECISION_ALLOW
    decision = names[0] if flagged else names[1] if reviewed else names[2]
    return "" if verdict.decision == decision else f"{origin.bundle_version} decided by other thresholds"


def _table(seen: Seen, mixed: list[str], callers: int) -> str:
    times = np.array([1e3 * (end - began) for began, end in seen.spans])
    beside = np.array([any(b < end and began < e for b, e in seen.swaps) for began, end in seen.spans])
    lasted = np.array([end - began for began, end in seen.swaps])
    used = {answer.provenance.bundle_version for _, answer in seen.answers}
    rows = [
        ("reloads", f"{len(seen.swaps)}"),
        ("callers", f"{callers}"),
        ("requests", f"{len(seen.answers) + len(seen.failures):,}"),
        ("failures", f"{len(seen.failures)}"),
        ("mixed answers", f"{len(mixed)}"),
        ("bundles that answered", f"{len(used)}"),
        ("a reload, median and slowest, s", f"{np.median(lasted):.2f}, {lasted.max():.2f}"),
        ("resident after the first and the last reload, MiB", f"{seen.resident[0]}, {seen.resident[-1]}"),
    ]
    for name, part in (("during a reload", times[beside]), ("between reloads", times[~beside])):
        shown = [f"{np.percentile(part, p):.1f}" for p in (50, 99, 100)] if len(part) else ["none"]
        rows.append((f"requests {name}: p50, p99, slowest, ms", ", ".join(shown)))
    title = f"| {len(os.sched_getaffinity(0))} cores, server and callers on one machine | |\n|---|---|\n"
    return title + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _point(home: Path, name: str) -> None:
    fresh = home / "bundles" / ".next"
    fresh.symlink_to(name)
    fresh.replace(home / "bundles" / "current")


def _server(home: Path) -> AbstractContextManager[Served]:
    """A server that is only reloaded when it is asked to."""
    return served(home, settings={"watch_seconds": 0, **NO_VERDICTS_KEPT})


if __name__ == "__main__":
    main()
