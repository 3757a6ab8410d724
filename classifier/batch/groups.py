"""Exact figures of a few accounts or templates of a run, from a second look at its rows."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.batch.distinct import Distinct
from classifier.batch.parts import SCORES, read_parts
from classifier.interval import wilson
from classifier.verdict import Decision

SUSPECT = (Decision.FLAG.value, Decision.REVIEW.value)


@dataclass(slots=True)
class Group:
    """The scored requests that share an account or a template.

    Attributes:
        key: The account, or the template's fingerprint.
        rows: How many they are.
        decisions: How many have which decision.
        techniques: How many of the flagged and reviewed ones fit which technique best.
        others: Of an account its templates, of a template its accounts.
        first: The earliest time, in microseconds since 1970 UTC; None where no request has one.
        last: The latest.
        example: File, row and request id of the request with the highest extraction probability.
        highest: That probability; below 0 where none was judged.
    """

    key: str
    rows: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    techniques: Counter[str] = field(default_factory=Counter)
    others: Distinct = field(default_factory=Distinct)
    first: int | None = None
    last: int | None = None
    example: tuple[str, int, str] = ("", 0, "")
    highest: float = -2.0

    @property
    def flagged(self) -> int:
        """How many are flagged."""
        return self.decisions[Decision.FLAG.value]

    @property
    def share(self) -> float:
        """The share that is flagged."""
        return self.flagged / self.rows if self.rows else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % interval."""
        return wilson(self.flagged, self.rows)

    @property
    def technique(self) -> str:
        """The technique of most of its flagged and reviewed requests, or ""."""
        return min(self.techniques, key=lambda name: (-self.techniques[name], name), default="")


def row_groups(output: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read a run's scored rows a row group at a time.

    Args:
        output: The run's output.
        columns: Which columns.

    Yields:
        Tables of at most some 17,000 rows, in the order of the parts' names.

    Raises:
        RunRefused: When a file among the parts is none.
    """
    for part in read_parts(output):
        with pq.ParquetFile(output / SCORES / part.name) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=list(columns))


def gather(output: Path, accounts: Iterable[str], templates: Iterable[str]) -> tuple[list[Group], list[Group]]:
    """Count the requests of some accounts and templates.

    Args:
        output: The run's output.
        accounts: The accounts.
        templates: The templates' fingerprints.

    Returns:
        A group for each account and for each template, in their order.
    """
    found = [Group(key) for key in accounts], [Group(key) for key in templates]
    keys = [pa.array([group.key for group in own], pa.string()) for own in found]
    columns = ["account", "template", "decision", "technique", "extraction_probability", "time"]
    for table in row_groups(output, [*columns, "file", "row", "request_id"]):
        for own, wanted, column, other in zip(
            found, keys, ("account", "template"), ("template", "account"), strict=True
        ):
            codes = pc.index_in(table[column], value_set=wanted)
            chosen = table.filter(pc.is_valid(codes))
            if len(chosen):
                _count(own, codes.drop_null().to_numpy(), chosen, other)
    return found


def _count(groups: Sequence[Group], codes: NDArray[np.int32], table: pa.Table, other: str) -> None:
    rows = table.append_column("group", pa.array(codes))
    suspect = rows.filter(pc.is_in(rows["decision"], value_set=pa.array(SUSPECT)))
    for group, decision, number in _counts(rows, "decision"):
        groups[group].decisions[decision] += number
        groups[group].rows += number
    for group, technique, number in _counts(suspect, "technique"):
        groups[group].techniques[technique] += number
    named = rows.filter(pc.not_equal(rows[other], ""))
    names: dict[int, list[str]] = {}
    for group, name, _ in _counts(named, other):
        names.setdefault(group, []).append(name)
    for group, own in names.items():
        groups[group].others.add(own)
    spans = rows.group_by("group", use_threads=False).aggregate([("time", "min"), ("time", "max")])
    moments = [pc.cast(spans[f"time_{end}"], pa.int64()).to_pylist() for end in ("min", "max")]
    for group, first, last in zip(spans["group"].to_pylist(), *moments, strict=True):
        if first is not None:
            seen = groups[group]
            seen.first = first if seen.first is None else min(seen.first, first)
            seen.last = last if seen.last is None else max(seen.last, last)
    _examples(groups, codes, rows)


def _counts(rows: pa.Table, column: str) -> Iterator[tuple[int, str, int]]:
    counted = rows.group_by(["group", column], use_threads=False).aggregate([([], "count_all")])
    return zip(*(counted[name].to_pylist() for name in ("group", column, "count_all")), strict=True)


def _examples(groups: Sequence[Group], codes: NDArray[np.int32], rows: pa.Table) -> None:
    judged = pc.not_equal(rows["decision"], Decision.ABSTAIN.value).to_numpy()
    scores = np.where(judged, rows["extraction_probability"].to_numpy(), -1.0)
    order = np.lexsort((-scores, codes))
    firsts = order[np.unique(codes[order], return_index=True)[1]]
    for place in firsts.tolist():
        group = groups[codes[place]]
        if scores[place] > group.highest:
            group.highest = float(scores[place])
            group.example = tuple(rows[name][place].as_py() for name in ("file", "row", "request_id"))
