"""Which decisions changed between two runs over the same inputs: in sum, by what they share, and row by row."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifier.batch.changed import COMPARED, SHARED, changed_rows, check_output, written
from classifier.batch.compare import Joined, join, open_run
from classifier.batch.frequent import Frequent
from classifier.batch.moves import MoveCounter, Moves
from classifier.batch.provenance import check_comparable, explain
from classifier.verdict import Decision

KINDS = ("flagged", "unflagged", "other")
"""What a change can be: newly flagged, no longer flagged, or between the other decisions."""
GROUPINGS = ("technique", "file", "account", "template", "example")
_SEVERITY = pa.array([Decision.REVIEW.value, Decision.FLAG.value])


@dataclass(frozen=True, slots=True)
class Change:
    """The changed decisions of requests that share something.

    Attributes:
        key: What they share; "" where they name nothing.
        changed: How many they are.
        kinds: How many of them are of which kind.
    """

    key: str
    changed: int
    kinds: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from the first run to the second.

    Attributes:
        notes: What explains it, for people.
        compared: How many requests both runs scored.
        only_before: How many only the first run scored.
        only_after: How many only the second one did.
        matrix: How many requests went from which decision to which.
        changed: How many have another decision.
        by_threshold: How many of those have the same score, so that thresholds alone made the change.
        moves: How far scores moved.
        moves_of_changed: The same of the changed ones alone.
        groups: For each of GROUPINGS the changes by it, most first. The technique is that of the severer decision; the
            example is the nearest one of the second run that is not among the nearest ones of the first.
        unseen: For each grouping the most changes of a key that may be missing from it; 0: none is missing.
    """

    notes: tuple[str, ...]
    compared: int
    only_before: int
    only_after: int
    matrix: Mapping[tuple[str, str], int]
    changed: int
    by_threshold: int
    moves: Moves
    moves_of_changed: Moves
    groups: Mapping[str, tuple[Change, ...]]
    unseen: Mapping[str, int]


def compare(before: Path, after: Path, output: Path | None = None, *, listed: int = 20) -> Difference:
    """Compare two runs.

    Args:
        before: The output of the first run.
        after: That of the second one.
        output: A Parquet file for the changed rows, or None.
        listed: How many groups of each grouping are given.

    Returns:
        What changed.

    Raises:
        RunRefused: When a folder holds no run, or the runs have not the same inputs.
        InvalidSetting: When the output lies in one of the runs.
    """
    runs = open_run(before), open_run(after)
    check_comparable(*runs)
    if output is not None:
        check_output(output, runs)
    sums = _Sums()
    with written(output) as file:
        for joined in join(*runs, (*SHARED, *COMPARED)):
            file.write(sums.add(joined))
    return sums.difference(explain(*runs, sums.changed), listed)


class _Sums:
    def __init__(self) -> None:
        self._matrix: Counter[tuple[str, str]] = Counter()
        self._compared = self._only_before = self._only_after = self._by_threshold = 0
        self._moves, self._moves_of_changed = MoveCounter(), MoveCounter()
        self._groups = {name: Frequent(("changed", *KINDS)) for name in GROUPINGS}

    @property
    def changed(self) -> int:
        """How many decisions changed so far."""
        return sum(number for (first, second), number in self._matrix.items() if first != second)

    def add(self, joined: Joined) -> pa.Table:
        """Count a stretch of rows; its changed rows with both runs' columns."""
        self._compared += len(joined.before)
        self._only_before += joined.only_before
        self._only_after += joined.only_after
        decisions = pa.table({"a": joined.before["decision"], "b": joined.after["decision"]})
        counted = decisions.group_by(["a", "b"], use_threads=False).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            self._matrix[row["a"], row["b"]] += row["count_all"]
        scores = [side["extraction_probability"].to_numpy() for side in (joined.before, joined.after)]
        judged = np.logical_and(*(pc.not_equal(decisions[side], "abstain").to_numpy() for side in ("a", "b")))
        changed = pc.not_equal(decisions["a"], decisions["b"]).to_numpy()
        self._moves.add(*(own[judged] for own in scores))
        self._moves_of_changed.add(*(own[judged & changed] for own in scores))
        self._by_threshold += int((changed & judged & (scores[0] == scores[1])).sum())
        rows = changed_rows(joined, pa.array(np.flatnonzero(changed)))
        if len(rows):
            self._group(rows)
        return rows

    def _group(self, rows: pa.Table) -> None:
        is_flag = [pc.equal(rows[f"decision_{side}"], Decision.FLAG.value).to_numpy() for side in "ab"]
        kinds = is_flag[1], is_flag[0], ~(is_flag[0] | is_flag[1])
        measures = {
            "changed": pa.array(np.ones(len(rows), bool)),
            **dict(zip(KINDS, map(pa.array, kinds), strict=True)),
        }
        severity = [pc.fill_null(pc.index_in(rows[f"decision_{side}"], _SEVERITY), -1).to_numpy() for side in "ab"]
        technique = pc.if_else(pa.array(severity[1] >= severity[0]), rows["technique_b"], rows["technique_a"])
        suspect = pa.array(np.maximum(*severity) >= 0)  # allowed requests have no technique to speak of
        near = zip(rows["nearest_ids_a"].to_pylist(), rows["nearest_ids_b"].to_pylist(), strict=True)
        came = pa.array([next((one for one in after if one not in before), "") for before, after in near], pa.string())
        keys = {"technique": pc.if_else(suspect, technique, ""), "example": came}
        for name, own in self._groups.items():
            own.add(keys[name] if name in keys else rows[name], measures)

    def difference(self, notes: tuple[str, ...], listed: int) -> Difference:
        return Difference(
            notes=notes,
            compared=self._compared,
            only_before=self._only_before,
            only_after=self._only_after,
            matrix=dict(sorted(self._matrix.items())),
            changed=self.changed,
            by_threshold=self._by_threshold,
            moves=self._moves.moves,
            moves_of_changed=self._moves_of_changed.moves,
            groups={name: _most(own, listed) for name, own in self._groups.items()},
            unseen={name: own.unseen["changed"] for name, own in self._groups.items()},
        )


def _most(keys: Frequent, listed: int) -> tuple[Change, ...]:
    table = keys.table().sort_by([("changed", "descending"), ("key", "ascending")]).slice(0, listed)
    return tuple(Change(row["key"], row["changed"], {kind: row[kind] for kind in KINDS}) for row in table.to_pylist())
