"""One write under way: what it changes is gathered, then stored as one revision with its history."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from index.change import Act, Action
from index.contract import Relabel
from index.errors import ExampleConflict, InvalidExample
from index.example import Example, Label, State
from index.queries import by_id, chunks, last_revision, not_found, select_examples
from index.schema import (
    as_example,
    as_row,
    changes_table,
    examples_table,
    instant_text,
    meta_table,
    requests_table,
    standing_row,
)

_LAST = sa.select(
    sa.select(sa.func.max(changes_table.c.number)).scalar_subquery(),
    sa.select(sa.func.max(examples_table.c.position)).scalar_subquery(),
)
_ADD, _CHANGE, _REQUEST = (sa.insert(table) for table in (examples_table, changes_table, requests_table))
_COUNT = (
    sa.update(meta_table).where(meta_table.c.key == "revision").values(value=sa.bindparam("new", type_=sa.BigInteger))
)
_PROPOSING = (Action.ADD.value, Action.RESTORE.value, Action.RELABEL.value)
_ALTERED = ("label", "technique", "capabilities", "state", "changed", "last_change", "by_hand")


class Writing:
    """The changes of one write, in a transaction that no other writer overtakes."""

    def __init__(self, connection: Connection, act: Act) -> None:
        """Begin with nothing changed."""
        self.act = act
        self.revision = last_revision(connection) + 1
        self._connection = connection
        self._number, self._position = (last or 0 for last in connection.execute(_LAST).one())
        self._at = instant_text(datetime.now(UTC))
        self._fresh: list[dict[str, object]] = []
        self._altered: list[dict[str, object]] = []
        self._changes: list[dict[str, object]] = []

    def held(self, ids: Sequence[str]) -> dict[str, Example]:
        """The examples with these ids, in whatever state.

        Args:
            ids: All of them are stored.

        Returns:
            The examples by id.

        Raises:
            ExampleNotFound: When one is not.
        """
        found = by_id(self._connection, ids)
        if missing := next((name for name in ids if name not in found), None):
            raise not_found(missing)
        return found

    def add(self, examples: Iterable[Example], *, keeps_others: bool = False) -> list[Example]:
        """Add what is not stored yet.

        Args:
            examples: Pending or active.
            keeps_others: Whether a text that is stored already stays as it is, whatever it is; else that is a conflict
                unless it is the same.

        Returns:
            Each as it is stored, in the order given.

        Raises:
            ExampleConflict: When a text is stored with other labels, or was revoked.
            InvalidExample: When one is revoked.
        """
        given = list(examples)
        known = by_id(self._connection, [example.id for example in given])
        stored = []
        for example in given:
            held = known.get(example.id)
            if held is None:
                held = known[example.id] = self._add(example)
            elif held.content_hash != example.content_hash:
                raise ExampleConflict(f"{held.id} is another text's id already: change a letter of this one")
            elif not keeps_others:
                _check_same(held, example)
            stored.append(held)
        return stored

    def of_source(self, source: str) -> list[tuple[Example, bool]]:
        """The examples of a source, oldest first, each with whether somebody changed it by hand."""
        query = select_examples().add_columns(examples_table.c.by_hand).where(examples_table.c.source == source)
        rows = self._connection.execute(query.order_by(examples_table.c.position))
        return [(as_example(row), bool(row[-1])) for row in rows]

    def proposed_by(self, actor: str, ids: Sequence[str]) -> str:
        """The first of the examples that the actor proposed, restored or last relabelled; "" for none."""
        number = changes_table.c.number
        columns = (changes_table.c.example_id, changes_table.c.action, changes_table.c.actor)
        for some in chunks(ids):
            query = sa.select(*columns).where(
                changes_table.c.example_id.in_(some), changes_table.c.action.in_(_PROPOSING)
            )
            # The first word on an example and the last ones count.
            words: dict[tuple[str, str], str] = {
                (example_id, action): by for example_id, action, by in self._connection.execute(query.order_by(number))
            }
            if barred := next((name for (name, _), by in words.items() if by == actor), None):
                return barred
        return ""

    def bring_to(self, held: Example, wanted: Example | None) -> None:
        """Make an example active with the wanted labels, or revoked when it is not wanted, for the sake of its source."""
        if wanted is None:
            if held.state is State.ACTIVE:
                self.alter(replace(held, state=State.REVOKED), Action.REVOKE, by_hand=False)
            return
        if held.state is not State.ACTIVE:
            action = Action.RESTORE if held.state is State.REVOKED else Action.ACCEPT
            held = self.alter(replace(held, state=State.ACTIVE), action, by_hand=False)
        if not held.same_labels(wanted):
            self.alter(relabelled(held, wanted), Action.RELABEL, by_hand=False)

    def _add(self, example: Example) -> Example:
        if example.state is State.REVOKED:
            raise InvalidExample("state is revoked: add the example as a pending or an active one")
        self._position += 1
        added = example.at_revision(self.revision)
        number = self._note(added, Action.ADD)
        self._fresh.append({**as_row(added), "position": self._position, "last_change": number, "by_hand": False})
        return added

    def alter(self, to: Example, action: Action, *, by_hand: bool = True, replacement: str = "") -> Example:
        """Change a stored example's state or labels.

        Args:
            to: The example as it shall be.
            action: What is done.
            by_hand: Whether somebody does it who means this example, so that replacing its source leaves it so.
            replacement: The id of the example that takes its place.

        Returns:
            The example after it.
        """
        after = replace(to, changed=self.revision)
        number = self._note(after, action, replacement)
        standing = {**standing_row(after), "changed": self.revision, "last_change": number, "by_hand": by_hand}
        self._altered.append({"held": after.id, **{f"new_{name}": standing[name] for name in _ALTERED}})
        return after

    def _note(self, after: Example, action: Action, replacement: str = "") -> int:
        self._number += 1
        self._changes.append(
            {
                "number": self._number,
                "revision": self.revision,
                "example_id": after.id,
                "action": action.value,
                **standing_row(after),
                "actor": self.act.actor,
                "reason": self.act.reason,
                "at": self._at,
                "request_id": self.act.request_id or "",
                "replacement": replacement,
            }
        )
        return self._number

    def finish(self, content: str) -> None:
        """Store the changes, and the request id with what it stands for.

        Args:
            content: What was asked for, as `content_of` says it.
        """
        run = self._connection.execute
        if self._fresh:
            run(_ADD, self._fresh)
        if self._altered:
            new = {name: sa.bindparam(f"new_{name}", type_=examples_table.c[name].type) for name in _ALTERED}
            run(sa.update(examples_table).where(examples_table.c.id == sa.bindparam("held")).values(new), self._altered)
        if self._changes:
            run(_CHANGE, self._changes)
            run(_COUNT, {"new": self.revision})
        if self.act.request_id is not None:
            revision = self.revision if self._changes else self.revision - 1
            run(_REQUEST, {"request_id": self.act.request_id, "content": content, "revision": revision})


def content_of(act: Act, what: str, *parts: object) -> str:
    """A short name of everything that a write asks for, so that its request id is not used for another one.

    Args:
        act: Who asks, and why.
        what: The kind of write.
        *parts: What JSON can hold.

    Returns:
        The kind and a SHA-256.
    """
    asked = json.dumps([act.actor, act.reason, *parts], ensure_ascii=True, separators=(",", ":"))
    return f"{what}:{hashlib.sha256(asked.encode()).hexdigest()}"


def part_of(example: Example) -> list[object]:
    """What is asked for when an example is added; the time is left out, for it is another one when it is asked again."""
    words = [example.language, example.source, example.author, example.note, example.licence]
    return [example.content_hash, *labels_of(example), example.state, *words]


def relabelled(held: Example, to: Example | Relabel) -> Example:
    """An example with other labels."""
    return replace(held, label=to.label, technique=to.technique, capabilities=to.capabilities)


def labels_of(example: Example) -> tuple[Label, str | None, tuple[str, ...]]:
    """An example's labels."""
    return example.label, example.technique, example.capabilities


def _check_same(held: Example, example: Example) -> None:
    if held.state is State.REVOKED:
        raise ExampleConflict(f"{held.id} holds this text and was revoked: restore it or leave it out")
    if not held.same_labels(example):
        raise ExampleConflict(f"{held.id} holds this text with other labels: relabel or leave it out")
