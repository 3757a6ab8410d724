"""The example store: durable before it is acknowledged, in SQLite or PostgreSQL, with every change kept."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from index.backend import Backend, guarded
from index.change import Act, Action, Decision
from index.contract import ExampleStore, Relabel
from index.errors import ExampleConflict, ExampleNotFound, InvalidExample, NotAllowed, StoreUnavailable
from index.example import Example, State
from index.migrations import migrate
from index.postgres import PostgresBackend
from index.queries import by_id
from index.reading import StoreReader
from index.schema import (
    changes_table,
    decision_row,
    decisions_table,
    requests_table,
    vectors_table,
)
from index.sqlite import SqliteBackend
from index.writing import Writing, content_of, part_of, relabelled

Work = Callable[[Writing], list[Example]]


def open_store(address: str | Path) -> ExampleStore:
    """Open the store that an address names, making it when it is not there and its tables anew when they are old.

    Args:
        address: The path of an SQLite file, whose folder must exist; or postgresql://user@host:port/database.

    Returns:
        The opened store.

    Raises:
        StoreUnavailable: When it cannot be opened, is no store, or was written by a newer version.
    """
    text = str(address)
    if text.startswith("postgresql:"):
        return SqlStore(PostgresBackend(text))
    if "://" in text and isinstance(address, str):
        raise StoreUnavailable(
            "the example store's address is none: give a path, or postgresql://user@host:port/database"
        )
    return SqlStore(SqliteBackend(Path(address)))


class SqlStore(StoreReader):
    """The one store, on whatever database."""

    def __init__(self, backend: Backend) -> None:
        """Open the store on a database.

        Args:
            backend: The database; closed with the store.

        Raises:
            StoreUnavailable: When it cannot be used, or was written by a newer version.
        """
        super().__init__(backend)
        upsert = backend.upsert(vectors_table)
        self._keep = upsert.on_conflict_do_update(
            index_elements=["encoder", "example_id"], set_={"vector": upsert.excluded.vector}
        )
        try:
            migrate(backend)
        except BaseException:
            self.close()
            raise

    def add(self, examples: Sequence[Example], act: Act) -> list[Example]:
        """Store all of the examples or none, durably.

        Args:
            examples: What to store, each pending or active.
            act: Who adds them, and why.

        Returns:
            The examples as they are stored, in the order given; a text that is stored with the same labels as it is.

        Raises:
            ExampleConflict: When a text is stored with other labels, or was revoked; nothing is stored.
            InvalidExample: When the request id was used for another write; nothing is stored.
            StoreUnavailable: When the store cannot be written; nothing is stored.
        """
        content = content_of(act, "add", *map(part_of, examples))
        ids = [example.id for example in examples]
        return self._write(act, content, lambda writing: writing.add(examples), ids=ids, added=examples)

    def accept(self, ids: Sequence[str], act: Act, *, by_another: bool = False) -> list[Example]:
        """Make pending examples active; those that are active stay so.

        Args:
            ids: Which.
            act: Who accepts them, and why.
            by_another: Whether nobody may accept what he proposed, restored or last relabelled himself.

        Returns:
            The examples after it.

        Raises:
            NotAllowed: When by_another forbids it; nothing is accepted.
            ExampleConflict: When one was revoked; nothing is accepted.
            ExampleNotFound: When one is not stored; nothing is accepted.
        """

        def work(writing: Writing) -> list[Example]:
            if by_another:
                pending = [name for name, held in writing.held(ids).items() if held.state is State.PENDING]
                if barred := writing.proposed_by(act.actor, pending):
                    raise NotAllowed(f"{act.actor} proposed or relabelled {barred}: somebody else must accept it")
            return _move(writing, ids, Action.ACCEPT, {State.PENDING}, State.ACTIVE)

        return self._write(act, content_of(act, "accept", *ids), work, ids=ids)

    def reject(self, ids: Sequence[str], act: Act) -> list[Example]:
        """Make pending examples revoked; those that are revoked stay so. ExampleConflict for an active one."""
        return self._write(
            act,
            content_of(act, "reject", *ids),
            lambda writing: _move(writing, ids, Action.REJECT, {State.PENDING}, State.REVOKED),
            ids=ids,
        )

    def revoke(self, ids: Sequence[str], act: Act) -> list[Example]:
        """Make active or pending examples revoked; those that are revoked stay so."""
        return self._write(
            act,
            content_of(act, "revoke", *ids),
            lambda writing: _move(writing, ids, Action.REVOKE, {State.PENDING, State.ACTIVE}, State.REVOKED),
            ids=ids,
        )

    def revoke_source(self, source: str, act: Act) -> list[Example]:
        """Revoke every example of a source, as one revision.

        Args:
            source: Which; "" is refused.
            act: Who revokes them, and why.

        Returns:
            Those that were not revoked before.

        Raises:
            InvalidExample: When the source is empty.
        """
        if not source:
            raise InvalidExample("source is empty: name the source that is to be revoked")

        def work(writing: Writing) -> list[Example]:
            held = [example for example, _ in writing.of_source(source) if example.state is not State.REVOKED]
            return [writing.alter(replace(example, state=State.REVOKED), Action.REVOKE) for example in held]

        return self._write(act, content_of(act, "revoke_source", source), work)

    def restore(self, ids: Sequence[str], act: Act, state: State = State.PENDING) -> list[Example]:
        """Bring revoked examples back.

        Args:
            ids: Which; those that are in the state already stay so.
            act: Who restores them, and why.
            state: Pending, or active at once.

        Returns:
            The examples after it.

        Raises:
            InvalidExample: When the state is neither.
            ExampleConflict: When one is not revoked and in another state; nothing is restored.
        """
        if state is State.REVOKED:
            raise InvalidExample("state is revoked: restore examples as pending or as active ones")
        return self._write(
            act,
            content_of(act, "restore", state, *ids),
            lambda writing: _move(writing, ids, Action.RESTORE, {State.REVOKED}, state),
            ids=ids,
        )

    def relabel(self, relabels: Sequence[Relabel], act: Act) -> list[Example]:
        """Give examples other labels; their state stays.

        Args:
            relabels: Which, and what they are.
            act: Who relabels them, and why.

        Returns:
            The examples after it.

        Raises:
            InvalidExample: When labels are not allowed, or contradict each other.
            ExampleNotFound: When one is not stored.
        """
        ids = [wanted.example_id for wanted in relabels]

        def work(writing: Writing) -> list[Example]:
            done = writing.held(ids)
            seen: dict[str, Relabel] = {}
            for wanted in relabels:
                held = done[wanted.example_id]
                after = relabelled(held, wanted)
                if seen.setdefault(held.id, wanted) != wanted:
                    raise InvalidExample(f"{held.id} is given two different labels: give it one")
                if not held.same_labels(after):
                    done[held.id] = writing.alter(after, Action.RELABEL)
            return [done[name] for name in ids]

        parts = [[wanted.example_id, wanted.label, wanted.technique, wanted.capabilities] for wanted in relabels]
        return self._write(act, content_of(act, "relabel", *parts), work, ids=ids)

    def supersede(self, example_id: str, replacement: Example, act: Act) -> Example:
        """Revoke an example and add the one that takes its place, in one revision.

        Args:
            example_id: The example that goes.
            replacement: The one that comes; one that is stored already with the same labels may take the place as well.
            act: Who does it, and why.

        Returns:
            The replacement as it is stored.

        Raises:
            ExampleConflict: When the first is revoked already, or the second's text is stored with other labels or was
                revoked.
            InvalidExample: When both are the same text.
        """

        def work(writing: Writing) -> list[Example]:
            held = writing.held([example_id])[example_id]
            if held.content_hash == replacement.content_hash:
                raise InvalidExample(f"{held.id} cannot take its own place: relabel it")
            if held.state is State.REVOKED:
                raise ExampleConflict(f"{held.id} is revoked already: add the other text by itself")
            added = writing.add([replacement])
            writing.alter(replace(held, state=State.REVOKED), Action.SUPERSEDE, replacement=replacement.id)
            return added

        content = content_of(act, "supersede", example_id, part_of(replacement))
        return self._write(act, content, work, ids=[replacement.id])[0]

    def replace_source(self, source: str, examples: Sequence[Example], act: Act) -> None:
        """Make the active examples of a source exactly these, in one revision; nothing happens when they are.

        Args:
            source: The source.
            examples: All that it shall hold. A text that is stored under another source stays as it is, and so does
                one that somebody accepted, revoked, restored or relabelled by hand.
            act: Who does it, and why.
        """
        wanted = {example.id: example for example in examples}

        def work(writing: Writing) -> list[Example]:
            kept = set()
            for held, by_hand in writing.of_source(source):
                kept.add(held.id)
                if not by_hand:
                    writing.bring_to(held, wanted.get(held.id))
            writing.add((e for e in wanted.values() if e.id not in kept), keeps_others=True)
            return []

        self._write(act, content_of(act, "replace_source", source, *map(part_of, wanted.values())), work, ids=[])

    def keep_vectors(self, encoder: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep embeddings, so that a restart need not encode the examples again.

        Args:
            encoder: The encoder's fingerprint.
            vectors: (d,) float32 unit vectors by example id.

        Raises:
            ExampleNotFound: When one is of no stored example; none is kept.
        """
        if not vectors:
            return
        rows = [
            {"encoder": encoder, "example_id": name, "vector": vector.astype("<f4").tobytes()}
            for name, vector in vectors.items()
        ]
        with self._writing() as connection:
            try:
                connection.execute(self._keep, rows)
            except sa.exc.IntegrityError:
                raise ExampleNotFound("a vector's example is not stored: add the example first") from None

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Keep reviewers' decisions; the last one on a prompt counts."""
        if not decisions:
            return
        with self._writing() as connection:
            last = connection.scalar(sa.select(sa.func.max(decisions_table.c.number))) or 0
            rows = [{"number": number, **decision_row(made)} for number, made in enumerate(decisions, last + 1)]
            connection.execute(sa.insert(decisions_table), rows)

    def _write(
        self,
        act: Act,
        content: str,
        work: Work,
        *,
        ids: Sequence[str] | None = None,
        added: Sequence[Example] = (),
    ) -> list[Example]:
        """Do a write, or find what it did when its request id was used before."""
        with self._writing() as connection:
            used = None
            if act.request_id is not None:
                used = connection.execute(
                    sa.select(requests_table).where(requests_table.c.request_id == act.request_id)
                ).first()
            if used is None:
                writing = Writing(connection, act)
                done = work(writing)
                writing.finish(content)
                return done
            if ids is None:
                query = sa.select(changes_table.c.example_id).where(changes_table.c.request_id == act.request_id)
                ids = list(connection.scalars(query.order_by(changes_table.c.number)))
            then = by_id(connection, ids, as_of=used.revision)
            if used.content != content and not _asked_by_first_version(used.content, added, then):
                raise InvalidExample("request_id was used for another write: give this one an id of its own")
            return [then[name] for name in ids]

    def _writing(self) -> AbstractContextManager[Connection]:
        return guarded(self._backend, self._backend.writing())


def _move(writing: Writing, ids: Sequence[str], action: Action, origins: Collection[State], to: State) -> list[Example]:
    """Bring examples from one of some states to another one."""
    done = writing.held(ids)
    for name, held in done.items():
        if held.state in origins:
            done[name] = writing.alter(replace(held, state=to), action)
        elif held.state is not to:
            raise ExampleConflict(f"{name} is {held.state}: {action} takes {' or '.join(sorted(origins))} examples")
    return [done[name] for name in ids]


def _asked_by_first_version(content: str, added: Sequence[Example], then: Mapping[str, Example]) -> bool:
    """Whether a request that the first version of the store wrote down, by its texts alone, added the same."""
    return (
        ":" not in content
        and bool(added)
        and content == " ".join(example.content_hash for example in added)
        and all(example.id in then and then[example.id].same_labels(example) for example in added)
    )
