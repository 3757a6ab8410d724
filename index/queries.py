"""What is asked of the store's tables by more than one of its methods."""

import re
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from index.errors import ExampleNotFound
from index.example import Example
from index.schema import EXAMPLE_COLUMNS, EXAMPLE_COLUMNS_AS_OF, as_example, changes_table, examples_table, meta_table

_ID = re.compile(r"ex-[0-9a-f]{20}")
CHUNK = 500
"""How many values one query takes."""
# Statements that every write runs are made once: making one takes longer than running it.
_REVISION = sa.select(meta_table.c.value).where(meta_table.c.key == "revision")
_EXAMPLES: sa.Select[tuple[object, ...]] = sa.select(*EXAMPLE_COLUMNS)
_AMONG = examples_table.c.id.in_(sa.bindparam("ids", expanding=True))
_BY_ID = _EXAMPLES.where(_AMONG)


def last_revision(connection: Connection) -> int:
    """The number of the last write."""
    return int(connection.scalar(_REVISION) or 0)


def by_id(connection: Connection, ids: Sequence[str], *, as_of: int | None = None) -> dict[str, Example]:
    """Examples by their ids; those that are not stored are left out.

    Args:
        connection: Where.
        ids: Which.
        as_of: As they were at this revision, without those that came later; None for now.

    Returns:
        The examples by id.
    """
    found = {}
    query = _BY_ID if as_of is None else select_examples(as_of).where(_AMONG)
    for some in chunks(ids):
        for row in connection.execute(query, {"ids": list(some)}):
            example = as_example(row)
            found[example.id] = example
    return found


def select_examples(as_of: int | None = None) -> sa.Select[tuple[object, ...]]:
    """The examples as they are, or as they were at a revision.

    Args:
        as_of: The revision; None for now.

    Returns:
        A query of what `as_example` reads.
    """
    if as_of is None:
        return _EXAMPLES
    earlier = changes_table.alias("earlier")
    last = (
        sa.select(sa.func.max(earlier.c.number))
        .where(earlier.c.example_id == examples_table.c.id, earlier.c.revision <= as_of)
        .scalar_subquery()
    )
    return sa.select(*EXAMPLE_COLUMNS_AS_OF).join_from(examples_table, changes_table, changes_table.c.number == last)


def standing(as_of: int | None) -> sa.Table:
    """The table in which the queries of `select_examples` find state and labels."""
    return examples_table if as_of is None else changes_table


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Values in groups that one query takes."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def not_found(example_id: str) -> ExampleNotFound:
    """The error of an id that no example has; what is no id is not repeated."""
    named = f"the id {example_id}" if _ID.fullmatch(example_id) else "this id"
    return ExampleNotFound(f"no example has {named}: list the examples to find it")
