"""Two bundles on the same frozen rows: differences with paired intervals, and McNemar's test on their decisions."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from classifier import __version__, comparison
from classifier.budget import rows_needed
from classifier.bundle import open_bundle
from classifier.canary import alone
from classifier.comparison import Compared, Comparison, Decisions, Estimate, Frozen, Measured, Ordinary, Paired
from classifier.errors import DataRejected
from classifier.models import identify
from classifier.scorer import Scorer
from classifier.train.judged import REFUSED, Judged, judge
from classifier.train.labelled import EvaluationRow
from classifier.train.metrics import Interval, Ranking, Scores, Truth, auroc, average_precision
from classifier.train.resampled import Weighted, bootstrap_pair
from classifier.train.tables import ORDINARY, RANKING, RATES
from classifier.trained import trained_on
from index.example import content_hash

LEAST_POSITIVES = 50
LEAST_NEGATIVES = rows_needed(RATES[0])
"""With fewer, one row is more than the false-positive rate at which recall is compared."""
_RANKING = ("extraction_auroc", comparison.RECALL, "recall_at_01pct_fpr")
_MEANS = ("capability_auroc", comparison.CAPABILITIES)


@dataclass(frozen=True, slots=True)
class Contender:
    """One of two bundles that are compared.

    Attributes:
        scorer: It, with its own thresholds and no examples but its own.
        about: What the report says of it.
        trained_on: Content hashes of what it was trained on.
    """

    scorer: Scorer
    about: Compared
    trained_on: frozenset[str]


def compare(
    file: Path,
    rows: Sequence[EvaluationRow],
    candidate: Contender,
    current: Contender,
    *,
    budget: float,
    draws: int = 1_000,
    progress: Callable[[str], None] = lambda doing: None,
) -> Comparison:
    """Score the same rows with both bundles, and judge the difference.

    Args:
        file: Where the rows were read.
        rows: Labelled prompts; those whose very text one of the bundles was trained on are left out.
        candidate: What may be promoted.
        current: What it is compared with.
        budget: The share of ordinary rows that may be flagged, in (0, 1).
        draws: Bootstrap resamples, by template.
        progress: Told what is being done.

    Returns:
        The report.

    Raises:
        DataRejected: When the rows do not suffice, or a bundle refuses one of them.
    """
    sha256, read = hashlib.sha256(file.read_bytes()).hexdigest(), len(rows)
    seen = candidate.trained_on | current.trained_on
    kept = [row for row in rows if content_hash(row.text) not in seen]
    table = _Rows(kept)
    _check_size(file, table, budget)
    first, second = (_judged(side, kept, progress) for side in (candidate, current))
    progress("drawing paired intervals")
    measured = Measured(
        frozen=Frozen(
            file=file.name,
            sha256=sha256,
            rows=read,
            trained_on=read - len(kept),
            positives=int(table.positives.sum()),
            negatives=int(table.negatives.sum()),
            ordinary=int(table.ordinary.sum()),
            templates=len(set(table.clusters[table.strict])),
        ),
        candidate=candidate.about,
        current=current.about,
        draws=draws,
        figures=_figures(table, (first, second), (candidate.scorer, current.scorer), draws),
        positives=mcnemar(first.flagged[table.positives], second.flagged[table.positives]),
        negatives=mcnemar(first.flagged[table.negatives], second.flagged[table.negatives]),
        ordinary=Ordinary(
            budget=budget,
            rows=int(table.ordinary.sum()),
            candidate=int(first.flagged[table.ordinary].sum()),
            current=int(second.flagged[table.ordinary].sum()),
        ),
        lost=_lost(candidate.scorer, current.scorer),
    )
    verdict, grounds = comparison.judge(measured)
    return Comparison(
        schema_version=1,
        made=datetime.now(UTC),
        software=__version__,
        measured=measured,
        rule=comparison.RULE,
        verdict=verdict,
        grounds=grounds,
    )


def contender(folder: Path, *, threads: int) -> Contender:
    """Open a bundle to compare it, with its own thresholds and no examples but its own.

    Args:
        folder: The bundle's directory.
        threads: Threads of one run of the encoder.

    Returns:
        The contender.

    Raises:
        BundleRejected: When it cannot be opened.
    """
    found, bundle = identify(folder), open_bundle(folder, threads=threads)
    head = bundle.manifest.head
    about = Compared(
        name=found.name,
        version=found.version,
        manifest_sha256=found.manifest_sha256,
        thresholds=head.thresholds,
        training_revision=head.training_revision,
        corpus_sha256=head.corpus_sha256,
    )
    return Contender(alone(bundle), about, frozenset(trained_on(folder)))


def mcnemar(first: Truth, second: Truth) -> Decisions:
    """McNemar's exact test on paired decisions.

    Args:
        first: (n,) which rows the one flags.
        second: (n,) which rows the other flags.

    Returns:
        The four counts and the two-sided p-value: how likely so uneven a split of the rows on which they differ is, when
        either is as likely as the other.
    """
    only, other = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = float(binomtest(only, only + other, 0.5).pvalue) if only + other else 1.0
    return Decisions(
        both=int((first & second).sum()),
        candidate_only=only,
        current_only=other,
        neither=int((~first & ~second).sum()),
        p_value=min(1.0, p_value),
    )


class _Rows:
    """Which rows count for what."""

    def __init__(self, rows: Sequence[EvaluationRow]) -> None:
        self.rows = rows
        self.truth = np.array([row.extraction for row in rows], bool)
        self.strict = np.array([row.strict for row in rows], bool)
        self.positives, self.negatives = self.strict & self.truth, self.strict & ~self.truth
        self.ordinary = self.negatives & np.array([row.group in ORDINARY for row in rows], bool)
        self.clusters: NDArray[np.object_] = np.array([row.template for row in rows], dtype=object)


def _check_size(file: Path, table: _Rows, budget: float) -> None:
    """Refuse rows that could not show a regression."""
    for name, found, least in (
        ("strict positives", table.positives, LEAST_POSITIVES),
        ("strict negatives", table.negatives, LEAST_NEGATIVES),
        (f"ordinary rows for a budget of {budget:.3%}", table.ordinary, rows_needed(budget)),
    ):
        if found.sum() < least:
            raise DataRejected(f"{file.name} has {int(found.sum()):,} {name} and needs {least:,}: give more rows")


def _judged(side: Contender, rows: Sequence[EvaluationRow], progress: Callable[[str], None]) -> Judged:
    version = side.about.version
    found = judge(
        side.scorer,
        [row.text for row in rows],
        lambda done: progress(f"{version}: scored {done:,} of {len(rows):,} rows"),
    )
    refused = [row.id for row, code in zip(rows, found.abstentions, strict=True) if code == REFUSED]
    if refused:
        raise DataRejected(f"{version} refuses {len(refused)} rows, {refused[0]} the first: leave them out")
    return found


def _figures(
    table: _Rows, sides: tuple[Judged, Judged], scorers: tuple[Scorer, Scorer], draws: int
) -> dict[str, Paired]:
    found = _pairs(_RANKING, table, table.strict, [_ranking(table, side.logits) for side in sides], draws)
    for name, kept in ((comparison.CAUGHT, table.positives), (comparison.ALARMS, table.negatives)):
        found |= _pairs((name,), table, kept, [_share(side.flagged[kept]) for side in sides], draws)
    kept = np.array(["capabilities" not in row.weak for row in table.rows], bool)
    told = [scorer.model.labels.capabilities for scorer in scorers]
    truth = {name: np.array([name in row.capabilities for row in table.rows], bool)[kept] for name in told[0]}
    shared = [name for name in told[0] if name in told[1] and truth[name].any() and not truth[name].all()]
    if shared:
        means = [
            _mean([Ranking(side.probabilities[kept, 1 + names.index(name)], truth[name]) for name in shared])
            for side, names in zip(sides, told, strict=True)
        ]
        found |= _pairs(_MEANS, table, kept, means, draws)
    return found


def _pairs(names: Sequence[str], table: _Rows, kept: Truth, sides: Sequence[Weighted], draws: int) -> dict[str, Paired]:
    found = bootstrap_pair(sides[0], sides[1], table.clusters[kept].tolist(), draws=draws)
    return {
        name: Paired(candidate=_estimate(p.first), current=_estimate(p.second), difference=_estimate(p.difference))
        for name, p in zip(names, found, strict=True)
    }


def _ranking(table: _Rows, logits: Scores) -> Weighted:
    ranking = Ranking(logits[table.strict], table.truth[table.strict])

    def figures(weights: Scores) -> list[float]:
        curve = ranking.curve(weights)
        return [figure(curve) for figure in RANKING]

    return figures


def _share(hits: Truth) -> Weighted:
    return lambda weights: [float(weights @ hits / weights.sum())]


def _mean(rankings: Sequence[Ranking]) -> Weighted:
    def figures(weights: Scores) -> list[float]:
        curves = [ranking.curve(weights) for ranking in rankings]
        return [float(np.mean([figure(curve) for curve in curves])) for figure in (auroc, average_precision)]

    return figures


def _lost(candidate: Scorer, current: Scorer) -> tuple[str, ...]:
    told, tells = ({*s.model.labels.techniques, *s.model.labels.capabilities} for s in (current, candidate))
    return tuple(sorted(told - tells))


def _estimate(found: Interval) -> Estimate:
    value, low, high = (part if math.isfinite(part) else None for part in (found.value, found.low, found.high))
    return Estimate(value=value, low=low, high=high)
