"""The writes of the crash test: one thread's endless, seeded row of every kind of write, each with what must come of it."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from index.change import Act, Action, Choice, Decision
from index.contract import ExampleStore, Relabel
from index.example import Example, Label, State, content_hash

DIMENSIONS = 16
FIRST = " first"
"""Ends the request id of what a write needs before it."""
_LABELS = ((Label.BENIGN, None), (Label.EXTRACTION, "self_chat"), (Label.EXTRACTION, "synthetic_instruction"))
_SEED_TEXTS = 5
_MOST_HELD = 40
"""Examples of one thread that it goes on changing; older ones stay as they are."""

Outcome = tuple[str, str, str, str, str | None]
"""An example's id, what was done to it, and its state, label and technique after it."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write and what must come of it.

    Attributes:
        name: Its own name, which is its request id where it has one.
        kind: Which of the store's methods it calls.
        run: Makes it.
        outcomes: The changes that it makes.
        encoder: The encoder under which it keeps vectors, or "".
        kept: The examples whose vectors it keeps.
        decided: The content hashes of the prompts that it decides on.
    """

    name: str
    kind: str
    run: Callable[[ExampleStore], object]
    outcomes: tuple[Outcome, ...] = ()
    encoder: str = ""
    kept: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()


def vectors_of(texts: Sequence[str]) -> NDArray[np.float32]:
    """A unit vector for every text, always the same one.

    Args:
        texts: The texts.

    Returns:
        (n, 16) float32 unit rows.
    """
    rows = np.zeros((len(texts), DIMENSIONS), np.float32)
    for number, text in enumerate(texts):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        rows[number] = np.random.default_rng(seed).standard_normal(DIMENSIONS, np.float32)
        rows[number] /= np.linalg.norm(rows[number])
    return rows


def writes(name: str) -> Iterator[Write]:
    """The writes of one thread; a thread asks for the next one when the last one was acknowledged.

    Args:
        name: The thread's own; it seeds the choice, and nobody else touches the thread's examples.

    Yields:
        The writes.
    """
    thread = _Thread(name)
    while True:
        yield thread.next()


class _Thread:
    """What a thread knows of its own examples, and so what its next write must do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._chance = random.Random(name)  # noqa: S311  # no secret depends on it
        self._number = 0
        self._texts = 0
        self._held: dict[str, Example] = {}
        self._seed: dict[str, Example] = {}
        self._kinds: dict[str, Callable[[Act], Write | None]] = {
            "add": self._add,
            "accept": lambda act: self._move(act, "accept", Action.ACCEPT, {State.PENDING}, State.ACTIVE),
            "reject": lambda act: self._move(act, "reject", Action.REJECT, {State.PENDING}, State.REVOKED),
            "revoke": lambda act: self._move(
                act, "revoke", Action.REVOKE, {State.PENDING, State.ACTIVE}, State.REVOKED
            ),
            "restore": lambda act: self._move(act, "restore", Action.RESTORE, {State.REVOKED}, State.PENDING),
            "relabel": self._relabel,
            "supersede": self._supersede,
            "revoke_source": self._revoke_source,
            "replace_source": self._replace_source,
            "keep_vectors": self._keep_vectors,
            "decide": self._decide,
        }

    def next(self) -> Write:
        """The next write."""
        while True:
            self._number += 1
            act = Act("crash test", "", f"{self._name} {self._number}")
            kind = self._chance.choice(list(self._kinds))
            made = self._kinds[kind if len(self._held) > 1 else "add"](act)
            if made is not None:
                return made

    def _new(self, state: State) -> Example:
        self._texts += 1
        label, technique = self._chance.choice(_LABELS)
        text = f"{self._name} text {self._texts} " + "and more of it " * self._chance.randrange(40)
        source = f"{self._name} {self._chance.choice('ab')}"
        return Example(text, label, technique, source=source, state=state)

    def _some(self, states: set[State]) -> list[Example]:
        fitting = [example for example in self._held.values() if example.state in states]
        return self._chance.sample(fitting, min(len(fitting), self._chance.randrange(1, 4)))

    def _hold(self, *examples: Example) -> None:
        self._held |= {example.id: example for example in examples}
        while len(self._held) > _MOST_HELD:
            del self._held[next(iter(self._held))]

    def _add(self, act: Act) -> Write:
        new = [
            self._new(self._chance.choice([State.PENDING, State.ACTIVE])) for _ in range(self._chance.randrange(1, 4))
        ]
        self._hold(*new)
        return _write(act, "add", lambda store: store.add(new, act), Action.ADD, new)

    def _move(self, act: Act, kind: str, action: Action, states: set[State], to: State) -> Write | None:
        moved = [replace(example, state=to) for example in self._some(states)]
        if not moved:
            return None
        self._hold(*moved)
        ids = [example.id for example in moved]
        return _write(act, kind, lambda store: getattr(store, kind)(ids, act), action, moved)

    def _relabel(self, act: Act) -> Write | None:
        changed = []
        for example in self._some(set(State)):
            label, technique = self._chance.choice(
                [labels for labels in _LABELS if labels != (example.label, example.technique)]
            )
            changed.append(replace(example, label=label, technique=technique))
        self._hold(*changed)
        relabels = [Relabel(e.id, e.label, e.technique, e.capabilities) for e in changed]
        return _write(act, "relabel", lambda store: store.relabel(relabels, act), Action.RELABEL, changed)

    def _supersede(self, act: Act) -> Write | None:
        old = self._some({State.PENDING, State.ACTIVE})[:1]
        if not old:
            return None
        gone, new = replace(old[0], state=State.REVOKED), self._new(State.ACTIVE)
        self._hold(gone, new)
        made = _write(act, "supersede", lambda store: store.supersede(gone.id, new, act), Action.SUPERSEDE, [gone])
        return replace(made, outcomes=(*made.outcomes, _outcome(Action.ADD, new)))

    def _revoke_source(self, act: Act) -> Write:
        """Revoke all of a fresh source; of an old one somebody no longer knows everything."""
        source = f"{self._name} source {self._number}"
        new = [replace(self._new(State.ACTIVE), source=source) for _ in range(3)]

        def run(store: ExampleStore) -> None:
            store.add(new, Act(act.actor, "", f"{act.request_id}{FIRST}"))
            store.revoke_source(source, act)

        return _write(act, "revoke_source", run, Action.REVOKE, [replace(e, state=State.REVOKED) for e in new])

    def _replace_source(self, act: Act) -> Write | None:
        source = f"{self._name} seed"
        wanted = {}
        for number in range(_SEED_TEXTS):
            label, technique = self._chance.choice(_LABELS[:2])
            example = Example(f"{self._name} seed {number}", label, technique, source=source)
            if self._chance.random() < 0.6:
                wanted[example.id] = example
        outcomes = list(self._outcomes_of_replacing(wanted))
        if not outcomes:
            return None
        examples = list(wanted.values())
        made = _write(act, "replace_source", lambda store: store.replace_source(source, examples, act), Action.ADD, [])
        return replace(made, outcomes=tuple(outcomes))

    def _outcomes_of_replacing(self, wanted: dict[str, Example]) -> Iterator[Outcome]:
        for held in list(self._seed.values()):
            new = wanted.get(held.id)
            if new is None:
                if held.state is State.ACTIVE:
                    self._seed[held.id] = replace(held, state=State.REVOKED)
                    yield _outcome(Action.REVOKE, self._seed[held.id])
                continue
            self._seed[held.id] = replace(held, state=State.ACTIVE)
            if held.state is State.REVOKED:
                yield _outcome(Action.RESTORE, self._seed[held.id])
            if not held.same_labels(new):
                self._seed[held.id] = new
                yield _outcome(Action.RELABEL, new)
        for new in wanted.values():
            if new.id not in self._seed:
                self._seed[new.id] = new
                yield _outcome(Action.ADD, new)

    def _keep_vectors(self, act: Act) -> Write:
        some = self._some(set(State))
        vectors = dict(zip((e.id for e in some), vectors_of([e.text for e in some]), strict=True))
        encoder = f"of {act.request_id}"
        made = _write(act, "keep_vectors", lambda store: store.keep_vectors(encoder, vectors), Action.ADD, [])
        return replace(made, encoder=encoder, kept=tuple(vectors))

    def _decide(self, act: Act) -> Write:
        hashes = tuple(content_hash(f"{act.request_id} prompt {number}") for number in range(3))
        made = datetime(2025, 1, 1, tzinfo=UTC)
        decisions = [Decision(name, self._chance.choice(list(Choice)), act.actor, "", made) for name in hashes]
        return replace(_write(act, "decide", lambda store: store.decide(decisions), Action.ADD, []), decided=hashes)


def _write(
    act: Act, kind: str, run: Callable[[ExampleStore], object], action: Action, examples: Sequence[Example]
) -> Write:
    return Write(act.request_id or "", kind, run, tuple(_outcome(action, example) for example in examples))


def _outcome(action: Action, example: Example) -> Outcome:
    return example.id, action.value, example.state.value, example.label.value, example.technique
