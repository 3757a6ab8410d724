"""Kills writers, and PostgreSQL's server under them, and holds the example store to what it had acknowledged.

Run by `make crash-test`. Four processes of two threads each make every kind of write as fast as they can, and note in a file
of their own what they are about to ask for and what was acknowledged. A SIGKILL hits each of them at a random moment, or
at a named point of a write; on PostgreSQL a share of the rounds kills the server and all its processes first. Then the store
is opened again: each write that was acknowledged must be there, each other one wholly or not at all; the one under way is
asked for again, and must be there once; history and present must agree; and the index over the store must equal it.
"""

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from crash_writes import DIMENSIONS, FIRST, Outcome, Write, vectors_of, writes
from postgres import running_postgres

from index.change import Change
from index.contract import ExampleStore
from index.errors import StoreUnavailable
from index.example import Example, Label, State
from index.live import ExampleIndex
from index.store import SqlStore, open_store

POINTS = (
    *("before a statement", "after a statement", "before the commit", "during the commit", "after the commit"),
    "after the acknowledgement",
)
"""Where a writer may kill itself."""
STORES = ("sqlite", "postgresql")
_PROCESSES = 4
_THREADS = 2
_ROUNDS_PER_STORE = 12
"""After so many rounds a new store is begun, so that each can be read as a whole after every round."""
_SERVER_KILLS = 0.25
"""Share of the rounds on PostgreSQL that kill the server."""
_LONGEST = 3.0
"""Seconds after which a writer that has not come to its point is killed all the same."""
_ENCODER = "crash test"


@dataclass
class Crashed:
    """What came of all the kills.

    Attributes:
        kills: Writers that were killed.
        server_kills: How often PostgreSQL's server was killed.
        points: The kills by where they hit.
        acknowledged: Writes that were acknowledged before a kill, by kind.
        there: Writes that were not acknowledged and are there.
        absent: Writes that were not acknowledged and are not there.
        indexed: Examples that were found in an index and compared.
    """

    kills: int = 0
    server_kills: int = 0
    points: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    there: int = 0
    absent: int = 0
    indexed: int = 0


class Broken(Exception):
    """Raised when a store did not keep what it promised."""


def write_until_killed(address: str, journal: str, name: str, point: str, countdown: int, delay: float) -> None:
    """What a writer's process does.

    Args:
        address: The store's.
        journal: The file in which it notes what it asks for and what was acknowledged.
        name: The process's own.
        point: Where it kills itself; "" where somebody else does it.
        countdown: At the how manieth time that it comes there.
        delay: Seconds after the point, at most, for a kill in the midst of it.
    """
    store = _opened(address)
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    reached = _Reached(point, countdown, delay)
    if isinstance(store, SqlStore):
        reached.listen(store._backend.engine)  # noqa: SLF001  # the product has no hook for its own death

    def work(thread: int) -> None:
        for number, write in enumerate(writes(f"{name}.{thread}")):
            os.write(descriptor, f"ask {thread} {number}\n".encode())
            while True:
                try:
                    write.run(store)
                    break
                except StoreUnavailable:  # the server was killed, and comes back
                    time.sleep(0.02)
            os.write(descriptor, f"ack {thread} {number}\n".encode())
            reached("after the acknowledgement")

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _opened(address: str) -> ExampleStore:
    """The store, as soon as its server is back."""
    while True:
        try:
            return open_store(address)
        except StoreUnavailable:
            time.sleep(0.02)


class _Reached:
    """Counts how often a point was reached, and kills the process there."""

    def __init__(self, point: str, countdown: int, delay: float) -> None:
        self._point = point
        self._left = countdown
        self._delay = delay

    def __call__(self, point: str) -> None:
        """Say that a point is reached."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            if point == "during the commit":  # the commit waits for the disk without Python's lock
                threading.Timer(self._delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def listen(self, engine: sa.Engine) -> None:
        """Be told by SQLAlchemy of everything that a write does."""
        sa.event.listen(engine, "before_cursor_execute", lambda *_: self("before a statement"))
        sa.event.listen(engine, "after_cursor_execute", lambda *_: self("after a statement"))
        commit = engine.dialect.do_commit

        def told(connection: Any) -> None:
            self("before the commit")
            self("during the commit")
            commit(connection)
            self("after the commit")

        setattr(engine.dialect, "do_commit", told)  # noqa: B010  # not a method that is there to be replaced


def crash(store: str, kills: int, seed: int, folder: Path, found: Crashed) -> None:
    """Kill writers of a kind of store, and check after every round.

    Args:
        store: Which of STORES.
        kills: How many writers are killed.
        seed: Of all that is chosen.
        folder: Where the files stand.
        found: Where it is counted.

    Raises:
        Broken: When the store did not keep what it promised.
    """
    chance = random.Random(f"{store} {seed}")  # noqa: S311  # no secret depends on it
    with ExitStack() as held:
        server = None
        if store == "postgresql":
            server = held.enter_context(running_postgres(durable=True))
        address, journals = "", list[Path]()
        end = found.kills + kills
        number = 0
        while found.kills < end:
            if number % _ROUNDS_PER_STORE == 0:
                address, journals = server.store() if server else str(folder / f"{seed}-{number}.sqlite"), []
                open_store(address).close()
            here = [
                folder / f"{store}-{seed}-{number}-{process}" for process in range(min(_PROCESSES, end - found.kills))
            ]
            journals += here
            began = [_start(address, journal, chance, found) for journal in here]
            if server and chance.random() < _SERVER_KILLS:
                time.sleep(chance.uniform(0.05, 0.4))
                server.kill()
                server.start()
                found.server_kills += 1
            for process, moment in began:
                process.join(moment)
                process.kill()
                process.join()
                if process.exitcode != -signal.SIGKILL:
                    raise Broken(f"a writer ended with {process.exitcode}")
                process.close()
                found.kills += 1
            check(address, journals, here, found)
            number += 1


def _start(address: str, journal: Path, chance: random.Random, found: Crashed) -> tuple[Any, float]:
    """A writer under way, and the seconds after which it is killed from without."""
    point = chance.choice(("", *POINTS))
    found.points[point or "any moment"] += 1
    countdown = chance.randrange(1, 150 if point.endswith("statement") else 25)
    arguments = (address, str(journal), journal.name, point, countdown, chance.uniform(0.0, 0.004))
    process = _CONTEXT.Process(target=write_until_killed, args=arguments)
    process.start()
    return process, _LONGEST if point else chance.uniform(0.05, 0.6)


def check(address: str, journals: list[Path], latest: list[Path], found: Crashed) -> None:
    """Hold a store to all that its writers noted.

    Args:
        address: The store's.
        journals: All files that its writers wrote.
        latest: Those of them whose writers were killed just now; what they did not see acknowledged is asked for again.
        found: Where it is counted.

    Raises:
        Broken: When the store did not keep what it promised.
    """
    with closing(open_store(address)) as store:
        for write in _check_writes(store, journals, latest, found):
            write.run(store)
        _check_writes(store, journals, [], found)
        _check_present(store)
        found.indexed += _check_index(store)


def _asked(journal: Path) -> Iterator[tuple[Write, bool]]:
    """The writes that a process asked for, and whether each was acknowledged."""
    counts = {"ask": Counter[str](), "ack": Counter[str]()}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
        verb, thread, _ = line.split(" ")
        counts[verb][thread] += 1
    for thread, asked in counts["ask"].items():
        for number, write in enumerate(islice(writes(f"{journal.name}.{thread}"), asked)):
            yield write, number < counts["ack"][thread]


def _check_writes(store: ExampleStore, journals: list[Path], latest: list[Path], found: Crashed) -> list[Write]:
    """Hold a store to its writers' journals; returns the writes of the latest ones that were not acknowledged."""
    by_request: dict[str, list[Change]] = defaultdict(list)
    for change in _changes(store):
        by_request[change.request_id].append(change)
    under_way = []
    for journal in journals:
        for write, acknowledged in _asked(journal):
            there = _is_there(store, write, by_request.pop(write.name, []))
            if not there and (acknowledged or journal not in latest):
                raise Broken(f"an acknowledged write is lost: {write.kind} {write.name}")
            if journal in latest:
                found.acknowledged[write.kind] += acknowledged
                found.there += there and not acknowledged
                found.absent += not there
            if not acknowledged and journal in latest:
                under_way.append(write)
    strange = [name for name in by_request if not name.endswith(FIRST)]
    if strange:
        raise Broken(f"the store holds writes that nobody asked for: {strange[:3]}")
    return under_way


def _changes(store: ExampleStore) -> list[Change]:
    """All changes; their numbers and revisions count without a gap."""
    changes: list[Change] = []
    while some := store.changes(changes[-1].number if changes else 0, 1_000):
        changes += some
    if [change.number for change in changes] != list(range(1, len(changes) + 1)):
        raise Broken("the changes' numbers have a gap")
    revisions = [change.revision for change in changes]
    if revisions != sorted(revisions) or set(revisions) != set(range(1, store.revision() + 1)):
        raise Broken("the revisions have a gap")
    return changes


def _is_there(store: ExampleStore, write: Write, changes: list[Change]) -> bool:
    """Whether a write is wholly there; Broken when it is there in part."""
    if write.kind == "keep_vectors":
        wanted: object = set(write.kept)
        seen: object = set(store.vectors(write.encoder))
    elif write.kind == "decide":
        wanted, seen = set(write.decided), set(store.decided(write.decided))
    else:
        wanted = sorted(write.outcomes, key=repr)
        seen = sorted((_outcome(change) for change in changes), key=repr)
        if len({change.revision for change in changes}) > 1:
            raise Broken(f"a write has several revisions: {write.kind} {write.name}")
    if seen and seen != wanted:
        raise Broken(f"a write is there in part: {write.kind} {write.name}: {seen} instead of {wanted}")
    return seen == wanted


def _outcome(change: Change) -> Outcome:
    return change.example_id, change.action.value, change.state.value, change.label.value, change.technique


def _check_present(store: ExampleStore) -> None:
    """Every example is as its last change left it."""
    last = {change.example_id: change for change in _changes(store)}
    present: dict[str, Example] = {}
    token = ""
    while True:
        page, token = store.page(1_000, token)
        present |= {example.id: example for example in page}
        if not token:
            break
    left = {name: (c.state, c.label, c.technique, c.capabilities, c.revision) for name, c in last.items()}
    if left != {e.id: (e.state, e.label, e.technique, e.capabilities, e.changed) for e in present.values()}:
        raise Broken("the present is not what the history leads to")


def _check_index(store: ExampleStore) -> int:
    """The index over a store holds its active examples, each with its own vector; returns how many."""
    index = ExampleIndex(store, vectors_of, _ENCODER, DIMENSIONS)
    active = {example.id: example for example in store.since(0) if example.state is State.ACTIVE}
    snapshot = index.snapshot
    held = {example.id: example for label in Label for example in snapshot.side(label).examples}
    if held != active or snapshot.revision != store.revision():
        raise Broken("the index does not hold what the store holds")
    for label in Label:
        side = snapshot.side(label)
        if side.examples:
            hits = side.index.search(vectors_of([example.text for example in side.examples]), 1)
            if not np.allclose(hits.cosines[:, 0], 1.0, atol=1e-4):
                raise Broken("an example is not found by its own vector")
    return len(held)


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["crashing", "psycopg"])


def main() -> None:
    """Kill, look, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="on each store")
    parser.add_argument("--stores", nargs="*", choices=STORES, default=STORES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for store in given.stores:
            found = Crashed()
            crash(store, given.kills, given.seed, Path(place), found)
            print(summary(store, found), flush=True)


def summary(store: str, found: Crashed) -> str:
    """What came of it, in a few lines."""
    server = f", {found.server_kills} kills of the server" if found.server_kills else ""
    points = ", ".join(f"{count} {point}" for point, count in sorted(found.points.items()))
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.acknowledged.items()))
    return (
        f"{store}: {found.kills} kills of writers{server}: {found.acknowledged.total():,} acknowledged writes, all there; "
        f"{found.there + found.absent} under way, {found.there} wholly there and {found.absent} wholly absent; "
        f"{found.indexed:,} examples indexed as stored\n  points: {points}\n  writes: {kinds}"
    )


if __name__ == "__main__":
    main()
