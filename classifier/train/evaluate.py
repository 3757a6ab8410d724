"""`stillwatch evaluate`: figures on labelled prompts, beside three baselines."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from classifier.corpus import SeedRow
from classifier.errors import DataRejected
from classifier.scorer import Scorer
from classifier.train.baselines import EXTRACTION, baseline_scores
from classifier.train.judged import REFUSED, judge
from classifier.train.labelled import EvaluationRow
from classifier.train.metrics import Interval, Scores, Truth, auroc, average_precision
from classifier.train.resampled import bootstrap_calibration, bootstrap_labels
from classifier.train.robustness import Robustness, measure_robustness
from classifier.train.tables import (
    AbstentionRow,
    Failure,
    GroupRow,
    OrdinaryRow,
    PartRow,
    Tables,
    TechniqueRow,
)

MODEL = "Stillwatch"


@dataclass(frozen=True, slots=True)
class Selection:
    """The model's headline figures of extraction on some of the rows, at thresholds that these rows set.

    Attributes:
        name: Which rows.
        rows: How many.
        positives: How many are extraction.
        ranking: AUROC, recall at 1 % and at 0.1 % false positives.
        calibration_error: ECE in 15 bins.
        reviewed: Share of negatives reviewed or flagged.
        flagged: Share of negatives flagged.
        caught: Share of positives flagged.
    """

    name: str
    rows: int
    positives: int
    ranking: list[Interval]
    calibration_error: Interval
    reviewed: Interval
    flagged: Interval
    caught: Interval


@dataclass(frozen=True, slots=True)
class Plotted:
    """Scores of the strict rows, for the pictures.

    Attributes:
        logits: (n,) raw extraction logits.
        probabilities: (n,) extraction probabilities.
        truth: (n,) what the rows are.
        baselines: For each baseline (n,) scores.
    """

    logits: Scores
    probabilities: Scores
    truth: Truth
    baselines: Mapping[str, Scores]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of one run. All intervals are 95 % ones.

    Attributes:
        bundle: The bundle's version.
        revision: The example store's revision.
        rows: How many rows were scored.
        strict_rows: How many count for extraction's strict figures.
        thresholds: The review and flag thresholds in force.
        cuts: The raw logits over which 1 % and 0.1 % of the strict negatives stand.
        selections: The headline figures on all strict rows, and on other selections of rows.
        suspects: Ids of rows that are believed to be mislabelled and stand in the file, in order.
        suspects_elsewhere: How many such ids the file does not hold.
        extraction: For each scorer AUROC and recall at 1 % and 0.1 % false positives, strict.
        capability_macro: For each scorer the mean AUROC and average precision over capabilities, strict.
        capabilities: For each capability the model's AUROC and average precision, strict.
        techniques: Figures for each technique.
        languages: Figures for each language.
        lengths: Figures for each length bucket.
        ordinary: False positives for each source of ordinary use.
        abstentions: Rows that were not judged.
        false_alarms: The worst strict negatives.
        misses: The worst strict positives.
        groups: A table of groups.
        sources: A table of sources.
        robustness: Evasions and long prompts; None when they were not measured.
        plotted: What the pictures show.
    """

    bundle: str
    revision: int
    rows: int
    strict_rows: int
    thresholds: tuple[float, float]
    cuts: tuple[float, ...]
    selections: list[Selection]
    suspects: list[str]
    suspects_elsewhere: int
    extraction: dict[str, list[Interval]]
    capability_macro: dict[str, list[Interval]]
    capabilities: dict[str, list[Interval]]
    techniques: list[TechniqueRow]
    languages: list[PartRow]
    lengths: list[PartRow]
    ordinary: list[OrdinaryRow]
    abstentions: list[AbstentionRow]
    false_alarms: list[Failure]
    misses: list[Failure]
    groups: list[GroupRow]
    sources: list[GroupRow]
    robustness: Robustness | None
    plotted: Plotted

    def as_json(self) -> dict[str, object]:
        """The figures without the per-row scores; numbers that the rows do not determine are None."""
        kept = asdict(self)
        del kept["plotted"]
        cleaned = _without_nan(kept)
        assert isinstance(cleaned, dict)
        return cleaned


def evaluate(
    rows: Sequence[EvaluationRow],
    scorer: Scorer,
    corpus: Sequence[SeedRow],
    *,
    draws: int = 1_000,
    suspects: frozenset[str] = frozenset(),
    evasions: bool = False,
    progress: Callable[[str], None] = lambda doing: None,
) -> Evaluation:
    """Score the rows and compute every figure.

    Args:
        rows: Labelled prompts.
        scorer: What is evaluated.
        corpus: The seed corpus, on which the TF-IDF baseline is trained.
        draws: Bootstrap resamples.
        suspects: Ids of rows that are believed to be mislabelled; the headline figures are given without them, too.
        evasions: Whether to measure evasions and long prompts as well.
        progress: Told what is being done.

    Returns:
        The figures.

    Raises:
        DataRejected: When the scorer refuses a row, or there are too few rows to measure evasions with.
    """
    judged = judge(scorer, [row.text for row in rows], lambda done: progress(f"scored {done:,} of {len(rows):,} rows"))
    refused = [row.id for row, code in zip(rows, judged.abstentions, strict=True) if code == REFUSED]
    if refused:
        raise DataRejected(f"{len(refused)} rows are refused by the scorer, {refused[0]} the first: leave them out")
    tables = Tables(rows, judged, draws)
    strict, negatives = tables.strict, tables.strict & ~tables.truth
    progress("scoring the baselines")
    baselines = baseline_scores(corpus, scorer.model.labels, [row.text for row in rows])
    progress("drawing intervals")
    macro, each = _capabilities(tables, scorer.model.labels.capabilities, baselines, draws)
    found = [row.id for row in rows if row.id in suspects]
    trusted = np.array([row.id not in suspects for row in rows], bool)
    selections = [_selection("all strict rows", tables, strict)]
    selections.append(_selection("judged rows only", tables, strict & judged.judged))
    if found:
        selections.append(_selection("without suspects", tables, strict & trusted))
    selections.append(_selection("weak rows in", tables, np.ones(len(rows), bool)))
    return Evaluation(
        bundle=scorer.model.version,
        revision=judged.revision,
        rows=len(rows),
        strict_rows=int(strict.sum()),
        thresholds=(scorer.model.thresholds.review, scorer.model.thresholds.flag),
        cuts=tables.cuts,
        selections=selections,
        suspects=found,
        suspects_elsewhere=len(suspects) - len(set(found)),
        extraction={
            MODEL: selections[0].ranking,
            **{which: tables.ranking(scores[EXTRACTION], strict) for which, scores in baselines.items()},
        },
        capability_macro=macro,
        capabilities=each,
        techniques=tables.techniques(),
        languages=tables.languages(),
        lengths=tables.lengths(),
        ordinary=tables.ordinary(),
        abstentions=tables.abstentions(),
        false_alarms=tables.false_alarms(),
        misses=tables.misses(),
        groups=tables.by(lambda row: row.group),
        sources=tables.by(lambda row: row.source),
        robustness=measure_robustness(
            rows, judged, scorer, cuts=tables.cuts, negatives=negatives, draws=draws, progress=progress
        )
        if evasions
        else None,
        plotted=Plotted(
            judged.logits[strict],
            judged.probabilities[strict, 0],
            tables.truth[strict],
            {which: scores[EXTRACTION][strict] for which, scores in baselines.items()},
        ),
    )


def _selection(name: str, tables: Tables, kept: Truth) -> Selection:
    judged, positives, negatives = tables.judged, kept & tables.truth, kept & ~tables.truth
    return Selection(
        name=name,
        rows=int(kept.sum()),
        positives=int(positives.sum()),
        ranking=tables.ranking(judged.logits, kept),
        calibration_error=bootstrap_calibration(
            judged.probabilities[kept, 0], tables.truth[kept], tables.clusters[kept].tolist(), draws=tables.draws
        ),
        reviewed=tables.mean(judged.reviewed, negatives),
        flagged=tables.mean(judged.flagged, negatives),
        caught=tables.mean(judged.flagged, positives),
    )


def _capabilities(
    tables: Tables, names: Sequence[str], baselines: Mapping[str, Mapping[str, Scores]], draws: int
) -> tuple[dict[str, list[Interval]], dict[str, list[Interval]]]:
    """The means of each scorer over capabilities, and the model's figures of each capability."""
    if not names:
        return {}, {}
    kept = np.array(["capabilities" not in row.weak for row in tables.rows], bool)
    truth = np.array([[name in row.capabilities for name in names] for row in tables.rows], bool)[kept]
    scores = {MODEL: tables.judged.probabilities[:, 1:]}
    scores |= {which: np.stack([table[name] for name in names], axis=1) for which, table in baselines.items()}
    clusters, figures = tables.clusters[kept].tolist(), (auroc, average_precision)
    found = {
        which: bootstrap_labels(table[kept], truth, clusters, figures, draws=draws) for which, table in scores.items()
    }
    return {which: macro for which, (macro, _) in found.items()}, dict(zip(names, found[MODEL][1], strict=True))


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
