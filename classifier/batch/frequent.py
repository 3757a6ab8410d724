"""The keys with the highest sums in a long stream, such as the accounts with the most flagged requests.

Memory is bounded whatever the number of keys: when too many are held, the lightest are let go, and the most that any of
them can have had is remembered. Until then everything is exact.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WAITING_ROWS = 2**17


class Frequent:
    """Sums of measures by key. Not safe to be shared among threads."""

    def __init__(self, measures: Sequence[str], *, most_keys: int = 100_000, most_bytes: int = 64 * 2**20) -> None:
        """Begin empty.

        Args:
            measures: What is added up, each a number that is not negative. A key is kept for any of them.
            most_keys: How many keys are kept when some are let go.
            most_bytes: What those may take.
        """
        self._measures = tuple(measures)
        self._most_keys, self._most_bytes = most_keys, most_bytes
        self._held: pa.Table | None = None
        self._waiting: list[pa.Table] = []
        self._unseen = dict.fromkeys(measures, 0)

    def add(self, keys: pa.Array, measures: Mapping[str, pa.Array]) -> None:
        """Take rows.

        Args:
            keys: (n,) strings.
            measures: For each measure (n,) integers or booleans.
        """
        columns = {name: pc.cast(measures[name], pa.int64()) for name in self._measures}
        sums = [(name, "sum") for name in self._measures]
        grouped = pa.table({"key": keys, **columns}).group_by("key", use_threads=False).aggregate(sums)
        self._waiting.append(grouped.rename_columns({f"{name}_sum": name for name in self._measures}))
        waiting_bytes = sum(table.nbytes for table in self._waiting)
        if sum(map(len, self._waiting)) >= _WAITING_ROWS or waiting_bytes >= self._most_bytes:
            self._merge()

    @property
    def unseen(self) -> Mapping[str, int]:
        """For each measure the most that a key which is not in the table can add up to; 0: every key is there."""
        self._merge()
        return self._unseen

    def table(self) -> pa.Table:
        """The keys that are held.

        Returns:
            key and the measures; a sum is too low by at most what was unseen when its key was first held.
        """
        self._merge()
        if self._held is None:
            return pa.table(
                {"key": pa.array([], pa.string()), **{name: pa.array([], pa.int64()) for name in self._measures}}
            )
        return self._held.select(["key", *self._measures])

    def _merge(self) -> None:
        if not self._waiting:
            return
        slack = [f"{name}_slack" for name in self._measures]
        fresh = pa.concat_tables(self._waiting)
        for name in (*slack, "known"):
            fresh = fresh.append_column(name, pa.array(np.zeros(len(fresh), np.int64)))
        tables = [fresh] if self._held is None else [self._held, fresh]
        names = [*self._measures, *slack, "known"]
        grouped = (
            pa.concat_tables(tables).group_by("key", use_threads=False).aggregate([(name, "sum") for name in names])
        )
        columns = {name: grouped[f"{name}_sum"].to_numpy() for name in names}
        for name in self._measures:  # a key that was let go before may be back
            new = columns["known"] == 0
            columns[f"{name}_slack"] = np.where(new, self._unseen[name], columns[f"{name}_slack"])
        columns["known"] = np.ones(len(grouped), np.int64)
        merged = pa.table({"key": grouped["key"].combine_chunks(), **{name: pa.array(columns[name]) for name in names}})
        self._held, self._waiting = self._pruned(merged), []

    def _pruned(self, table: pa.Table) -> pa.Table:
        most = min(self._most_keys, int(self._most_bytes * len(table) / max(1, table.nbytes)))
        if len(table) <= 2 * most:
            return table
        keep = np.zeros(len(table), bool)
        highest = {name: table[name].to_numpy() + table[f"{name}_slack"].to_numpy() for name in self._measures}
        for values in highest.values():
            keep[np.argsort(-values, kind="stable")[: max(1, most // len(self._measures))]] = True
        for name, values in highest.items():
            self._unseen[name] = max(self._unseen[name], int(values[~keep].max(initial=0)))
        return table.filter(pa.array(keep))
