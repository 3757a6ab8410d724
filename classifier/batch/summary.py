"""What a run says in sum, by streaming over its parts: memory is bounded for any number of rows, accounts and templates."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.batch.frequent import Frequent
from classifier.batch.groups import Group, gather, row_groups
from classifier.batch.manifest import Counts, counted
from classifier.batch.parts import SCORES, Part, read_parts
from classifier.batch.timeline import Bins, Timeline
from classifier.errors import RunRefused
from classifier.interval import wilson
from classifier.verdict import Decision

DECISIONS = tuple(decision.value for decision in Decision)
TARGETED = 0.5
"""A request targets a capability from this probability."""
LEAST_ROWS = 20
"""Shares are compared among accounts with so many requests."""
LISTED = 20
_RECOUNTED = 50
_MEASURES = ("rows", "flagged")
EDGES = np.linspace(-12.0, 12.0, 97)
"""Of the histogram's bins, in log-odds of the extraction probability."""
_COLUMNS = (
    "time",
    "decision",
    "extraction_probability",
    "technique",
    "capabilities",
    "account",
    "template",
    "abstention",
)


@dataclass(frozen=True, slots=True)
class Top:
    """A list of accounts or templates.

    Attributes:
        groups: The first of them; their figures are exact.
        total: How many different ones were held in memory.
        unseen: The most "rows" and "flagged" requests of one that was let go and so may be missing; 0 where none was.
    """

    groups: tuple[Group, ...]
    total: int
    unseen: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run says in sum. Requests that were not judged (abstain) are in no histogram, technique or capability.

    Attributes:
        counts: Of all finished parts.
        inputs: The same by input.
        capabilities: For each capability how many judged requests target it, and how many flagged ones.
        techniques: For each technique how many flagged and how many reviewed requests fit it best.
        abstentions: How many requests were not judged for which reason.
        histogram: (96,) judged requests by log-odds of the extraction probability, in EDGES; the outermost bins hold
            what lies beyond.
        timeline: Requests over time: the decisions, then the techniques (of flagged and reviewed requests), then the
            capabilities (of judged ones); None when no request has a time.
        untimed: How many scored requests have no time.
        accounts_by_flagged: The accounts with the most flagged requests.
        accounts_by_share: Those with at least LEAST_ROWS requests, by the lower limit of the share that is flagged.
        templates_by_flagged: The templates with the most flagged requests.
        templates_by_rows: The templates with the most requests.
        nameless: How many scored requests name no account.
    """

    counts: Counts
    inputs: Mapping[str, Counts]
    capabilities: Mapping[str, tuple[int, int]]
    techniques: Mapping[str, tuple[int, int]]
    abstentions: Mapping[str, int]
    histogram: NDArray[np.int64]
    timeline: Bins | None
    untimed: int
    accounts_by_flagged: Top
    accounts_by_share: Top
    templates_by_flagged: Top
    templates_by_rows: Top
    nameless: int


def summarise(output: Path) -> Summary:
    """Sum a run up.

    Args:
        output: The run's output.

    Returns:
        The sums of its finished parts.

    Raises:
        RunRefused: When there is no part, or a file among them is none.
    """
    parts = list(read_parts(output))
    if not parts:
        raise RunRefused(f"{output} holds no part of a run: name the folder that was a run's --output")
    schema = pq.read_schema(output / SCORES / parts[0].name)
    techniques: set[str] = set()
    for table in row_groups(output, ["technique"]):
        techniques.update(pc.unique(table["technique"]).to_pylist())
    sums = _Sums(tuple(one.name for one in schema.field("capabilities").type), tuple(sorted(techniques - {""})))
    for table in row_groups(output, _COLUMNS):
        sums.add(table)
    by_input: dict[str, list[Part]] = {}
    for part in parts:
        by_input.setdefault(part.source, []).append(part)
    inputs = {name: counted(own) for name, own in by_input.items()}
    return sums.summary(output, counted(parts), inputs)


class _Sums:
    """Sums over rows that are seen once, in any order."""

    def __init__(self, capabilities: Sequence[str], techniques: Sequence[str]) -> None:
        self._capabilities, self._techniques = capabilities, techniques
        self._timeline = Timeline(len(DECISIONS) + len(techniques) + len(capabilities))
        self._histogram = np.zeros(len(EDGES) - 1, np.int64)
        self._of_technique = np.zeros((len(techniques), 2), np.int64)
        self._of_capability = np.zeros((len(capabilities), 2), np.int64)
        self._abstentions: Counter[str] = Counter()
        self._untimed = self._nameless = 0
        self._accounts, self._templates = Frequent(_MEASURES), Frequent(_MEASURES)

    def add(self, table: pa.Table) -> None:
        decisions = _one_hot(table["decision"], DECISIONS)
        flagged, reviewed, judged = (decisions[:, DECISIONS.index(one)] for one in ("flag", "review", "abstain"))
        judged = ~judged
        techniques = _one_hot(table["technique"], self._techniques) & (flagged | reviewed)[:, None]
        scores = table["capabilities"].combine_chunks()
        targeted = [scores.field(name).to_numpy() >= TARGETED for name in self._capabilities]
        capabilities = np.stack(targeted, axis=1) & judged[:, None]
        for place, which in enumerate((flagged, reviewed)):
            self._of_technique[:, place] += (techniques & which[:, None]).sum(axis=0)
        for place, which in enumerate((judged, flagged)):
            self._of_capability[:, place] += (capabilities & which[:, None]).sum(axis=0)
        self._histogram += _by_log_odds(table["extraction_probability"].to_numpy()[judged])
        self._abstentions.update(table["abstention"].drop_null().to_pylist())
        timed = pc.is_valid(table["time"]).to_numpy()
        self._untimed += int((~timed).sum())
        times = pc.cast(table["time"].drop_null(), pa.int64()).to_numpy()
        if len(times):
            self._timeline.add(times, np.hstack([decisions, techniques, capabilities])[timed])
        measures = {"rows": pa.array(np.ones(len(table), bool)), "flagged": pa.array(flagged)}
        named = pc.not_equal(table["account"], "")
        self._nameless += len(table) - pc.sum(named).as_py() if len(table) else 0
        self._accounts.add(table["account"].filter(named), {name: one.filter(named) for name, one in measures.items()})
        self._templates.add(table["template"], measures)

    def summary(self, output: Path, counts: Counts, inputs: Mapping[str, Counts]) -> Summary:
        rankings = [
            _candidates(self._accounts, _by_flagged),
            _candidates(self._accounts, _by_share),
            _candidates(self._templates, _by_flagged),
            _candidates(self._templates, _by_rows),
        ]
        accounts, templates = gather(output, {*rankings[0], *rankings[1]}, {*rankings[2], *rankings[3]})
        return Summary(
            counts=counts,
            inputs=inputs,
            capabilities=dict(zip(self._capabilities, map(_pair, self._of_capability), strict=True)),
            techniques=dict(zip(self._techniques, map(_pair, self._of_technique), strict=True)),
            abstentions=dict(sorted(self._abstentions.items())),
            histogram=self._histogram,
            timeline=self._timeline.bins(),
            untimed=self._untimed,
            accounts_by_flagged=_top(accounts, self._accounts, _flagged_first),
            accounts_by_share=_top(
                [group for group in accounts if group.rows >= LEAST_ROWS], self._accounts, _surest_first
            ),
            templates_by_flagged=_top(templates, self._templates, _flagged_first),
            templates_by_rows=_top(templates, self._templates, lambda group: (-group.rows, group.key), flagged=False),
            nameless=self._nameless,
        )


def _one_hot(column: pa.ChunkedArray, names: Sequence[str]) -> NDArray[np.bool_]:
    """(n, names) which of the names each row has."""
    codes = pc.fill_null(pc.index_in(column, value_set=pa.array(names, pa.string())), -1).to_numpy()
    return codes[:, None] == np.arange(len(names))  # type: ignore[no-any-return]  # pyarrow has no types


def _by_log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    inside = np.clip(probabilities, 1e-9, 1 - 1e-9)
    odds = np.clip(np.log(inside) - np.log1p(-inside), EDGES[0], EDGES[-1])
    return np.histogram(odds, EDGES)[0].astype(np.int64)


def _pair(row: NDArray[np.int64]) -> tuple[int, int]:
    return int(row[0]), int(row[1])


def _by_flagged(rows: NDArray[np.int64], flagged: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = flagged + rows / (1.0 + rows.max(initial=0))  # of equally many, those with more rows
    return found


def _by_rows(rows: NDArray[np.int64], flagged: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rows + flagged / (1.0 + flagged.max(initial=0))
    return found


def _by_share(rows: NDArray[np.int64], flagged: NDArray[np.int64]) -> NDArray[np.float64]:
    lowest = [wilson(hits, total)[0] for hits, total in zip(flagged.tolist(), rows.tolist(), strict=True)]
    return np.where(rows >= LEAST_ROWS, lowest, -1.0)


def _candidates(
    keys: Frequent, value: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
) -> list[str]:
    """The keys that may be among the first; more than are listed, because their sums may be too low."""
    table = keys.table()
    order = np.argsort(-value(table["rows"].to_numpy(), table["flagged"].to_numpy()), kind="stable")[:_RECOUNTED]
    return table["key"].take(pa.array(order)).to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types


def _flagged_first(group: Group) -> tuple[float, float, str]:
    return -group.flagged, -group.rows, group.key


def _surest_first(group: Group) -> tuple[float, float, str]:
    return -group.interval[0], -group.rows, group.key


def _top(groups: Sequence[Group], keys: Frequent, order: Callable[[Group], Any], *, flagged: bool = True) -> Top:
    listed = sorted((group for group in groups if group.flagged or not flagged), key=order)[:LISTED]
    return Top(tuple(listed), len(keys.table()), dict(keys.unseen))
