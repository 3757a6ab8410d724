"""`stillwatch evaluate`: figures on labelled prompts, beside three baselines."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.corpus import SeedRow
from classifier.errors import DataRejected, InvalidPrompt
from classifier.rows import read_rows
from classifier.scorer import Scorer
from classifier.text import canonical
from classifier.train.baselines import EXTRACTION, baseline_scores
from classifier.train.fit import expected_calibration_error
from classifier.train.metrics import (
    Interval,
    Scores,
    Truth,
    auroc,
    average_precision,
    bootstrap,
    cluster_means,
    recall_at,
)
from index.example import MAX_TEXT_CHARS

MODEL = "Stillwatch"
HARD = ("hard_negative", "benign")
_BATCH = 256


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """A labelled prompt.

    Attributes:
        text: The prompt.
        extraction: Whether it is of a kind used for harvesting.
        capabilities: What it targets.
        source: Where it comes from.
        group: The kind of source.
        language: A language code.
        template: Its template within the source, or the whole source where rows were rendered from one template;
            its own number otherwise.
        weak: Labels that the text alone may not show.
    """

    text: str
    extraction: bool
    capabilities: frozenset[str]
    source: str
    group: str
    language: str
    template: str
    weak: frozenset[str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of one run.

    Attributes:
        bundle: The bundle's version.
        revision: The example store's revision.
        rows: How many rows were scored.
        strict_rows: How many count for extraction's strict figures.
        extraction: For each scorer AUROC and recall at 1 % and 0.1 % false positives, strict.
        extraction_weak: The same figures of the model with weak rows in.
        capability_macro: For each scorer the mean AUROC and average precision over capabilities, strict.
        capabilities: For each capability the model's AUROC and average precision, strict.
        sources: A table of sources.
        groups: A table of groups.
        languages: A table of languages.
        thresholds: The review and flag thresholds in force.
        false_positives: Share of all strict negatives that are reviewed or flagged, and flagged.
        flagged_hard: Share of benign and hard-negative rows flagged, by group.
        calibration_error: ECE of the extraction probability on strict rows.
        probabilities: (n,) extraction probabilities of strict rows, for the pictures.
        truth: (n,) what they are.
        baselines: For each baseline (n,) scores of strict rows, for the pictures.
    """

    bundle: str
    revision: int
    rows: int
    strict_rows: int
    extraction: dict[str, list[Interval]]
    extraction_weak: list[Interval]
    capability_macro: dict[str, list[float]]
    capabilities: dict[str, list[Interval]]
    sources: list[dict[str, object]]
    groups: list[dict[str, object]]
    languages: list[dict[str, object]]
    thresholds: tuple[float, float]
    false_positives: list[Interval]
    flagged_hard: dict[str, float]
    calibration_error: float
    probabilities: Scores
    truth: Truth
    baselines: dict[str, Scores]

    def as_json(self) -> dict[str, object]:
        """The figures without the per-row scores; numbers that the rows do not determine are None."""
        kept = {k: v for k, v in asdict(self).items() if k not in ("probabilities", "truth", "baselines")}
        cleaned = _without_nan(kept)
        assert isinstance(cleaned, dict)
        return cleaned


def read_evaluation(path: Path) -> list[EvaluationRow]:
    """Read labelled prompts: {text, extraction, capabilities, source, group, lang} and, if there, weak and template.

    Args:
        path: A .jsonl or .jsonl.gz file.

    Returns:
        The rows.

    Raises:
        DataRejected: When the file has no rows, or a row lacks a field.
    """
    rows = []
    for number, row in read_rows(path):
        try:
            source = str(row.get("source") or "unnamed")
            rows.append(
                EvaluationRow(
                    text=_text(row["text"]),
                    extraction=_truth(row["extraction"]),
                    capabilities=_names(row["capabilities"]),
                    source=source,
                    group=str(row.get("group") or "ungrouped"),
                    language=str(row.get("lang") or "unknown"),
                    template=_template(row, source, number),
                    weak=_names(row.get("weak")),
                )
            )
        except (KeyError, TypeError, InvalidPrompt) as error:
            raise DataRejected(
                f"{path.name}, line {number}: needs text, extraction and capabilities ({error}): mend the row"
            ) from None
    if not rows:
        raise DataRejected(f"{path.name} holds no rows: give labelled prompts")
    return rows


def evaluate(
    rows: Sequence[EvaluationRow],
    scorer: Scorer,
    corpus: Sequence[SeedRow],
    *,
    draws: int = 1_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score the rows and compute every figure.

    Args:
        rows: Labelled prompts.
        scorer: What is evaluated.
        corpus: The seed corpus, on which the TF-IDF baseline is trained.
        draws: Bootstrap resamples.
        progress: Told how many of how many rows are scored.

    Returns:
        The figures.
    """
    labels = scorer.model.labels
    names = (EXTRACTION, *labels.capabilities)
    logits, scores, revision = _score(rows, scorer, progress)
    everything: dict[str, Mapping[str, Scores]] = {
        MODEL: {EXTRACTION: logits, **{name: scores[:, 1 + i] for i, name in enumerate(labels.capabilities)}},
        **baseline_scores(corpus, labels, [row.text for row in rows]),
    }
    truth = {EXTRACTION: np.array([row.extraction for row in rows])}
    truth |= {name: np.array([name in row.capabilities for row in rows]) for name in labels.capabilities}
    strict = {name: _strict(rows, EXTRACTION if name == EXTRACTION else "capabilities") for name in names}
    clusters = np.array([row.template for row in rows], dtype=object)

    def figures(which: str, name: str, kept: NDArray[np.bool_], wanted: list[Callable[..., float]]) -> list[Interval]:
        return bootstrap(everything[which][name][kept], truth[name][kept], clusters[kept].tolist(), wanted, draws=draws)

    extraction_figures: list[Callable[..., float]] = [auroc, recall_at(0.01), recall_at(0.001)]
    capability_figures: list[Callable[..., float]] = [auroc, average_precision]
    capabilities = {
        which: {name: figures(which, name, strict[name], capability_figures) for name in labels.capabilities}
        for which in everything
    }
    kept = strict[EXTRACTION]
    probability = scores[:, 0]
    tables = _Tables(rows, probability, logits, kept, scorer)
    return Evaluation(
        bundle=scorer.model.version,
        revision=revision,
        rows=len(rows),
        strict_rows=int(kept.sum()),
        extraction={which: figures(which, EXTRACTION, kept, extraction_figures) for which in everything},
        extraction_weak=figures(MODEL, EXTRACTION, np.ones(len(rows), bool), extraction_figures),
        capability_macro={
            which: [float(np.nanmean([found[i].value for found in table.values()])) for i in range(2)]
            for which, table in capabilities.items()
        },
        capabilities=capabilities[MODEL],
        sources=tables.by(lambda row: row.source),
        groups=tables.by(lambda row: row.group),
        languages=tables.by(lambda row: row.language),
        thresholds=(scorer.model.thresholds.review, scorer.model.thresholds.flag),
        false_positives=_false_positives(
            probability[kept & ~truth[EXTRACTION]],
            clusters[kept & ~truth[EXTRACTION]].tolist(),
            (scorer.model.thresholds.review, scorer.model.thresholds.flag),
            draws,
        ),
        flagged_hard=tables.flagged_hard(),
        calibration_error=expected_calibration_error(probability[kept], truth[EXTRACTION][kept]),
        probabilities=probability[kept],
        truth=truth[EXTRACTION][kept],
        baselines={which: table[EXTRACTION][kept] for which, table in everything.items() if which != MODEL},
    )


class _Tables:
    """Rows of figures for each source, group or language."""

    def __init__(
        self,
        rows: Sequence[EvaluationRow],
        probability: Scores,
        logits: Scores,
        kept: NDArray[np.bool_],
        scorer: Scorer,
    ) -> None:
        self._rows = rows
        self._probability = probability
        self._kept = kept
        self._logits = logits
        self._truth = np.array([row.extraction for row in rows])
        self._flag = scorer.model.thresholds.flag
        self._review = scorer.model.thresholds.review
        negatives = logits[kept & ~self._truth]
        self._one_percent = float(np.quantile(negatives, 0.99)) if len(negatives) else math.nan

    def by(self, key: Callable[[EvaluationRow], str]) -> list[dict[str, object]]:
        """One row of figures for each value of the key, in alphabetical order."""
        values = np.array([key(row) for row in self._rows])
        return [self._row(str(value), values == value) for value in sorted(set(values))]

    def flagged_hard(self) -> dict[str, float]:
        """Share of each benign group's rows that the default threshold flags."""
        groups = np.array([row.group for row in self._rows])
        flagged = self._probability >= self._flag
        return {name: float(flagged[groups == name].mean()) for name in HARD if (groups == name).any()}

    def _row(self, name: str, inside: NDArray[np.bool_]) -> dict[str, object]:
        positive, strict = inside & self._truth, inside & self._kept
        return {
            "name": name,
            "rows": int(inside.sum()),
            "extraction": int(positive.sum()),
            "strict": int(strict.sum()),
            "flagged": float((self._probability[inside] >= self._flag).mean()),
            "reviewed": float((self._probability[inside] >= self._review).mean()),
            "over_one_percent": float((self._logits[inside] > self._one_percent).mean()),
            "median_probability": float(np.median(self._probability[inside])),
        }


def _score(
    rows: Sequence[EvaluationRow], scorer: Scorer, progress: Callable[[int, int], None]
) -> tuple[Scores, Scores, int]:
    """Raw extraction logits (n,), probabilities (n, 1 + capabilities) and the index revision."""
    logits, scores, revision = [], [], 0
    for start in range(0, len(rows), _BATCH):
        scored = scorer.score([row.text for row in rows[start : start + _BATCH]])
        revision = scored.provenance.index_revision
        for verdict in scored.verdicts:
            logits.append(verdict.extraction_logit)
            scores.append([verdict.extraction_probability, *(c.probability for c in verdict.capabilities)])
        progress(len(logits), len(rows))
    return np.array(logits), np.array(scores), revision


def _false_positives(
    negatives: Scores, clusters: list[str], thresholds: tuple[float, float], draws: int
) -> list[Interval]:
    """The share of negatives at or over each threshold."""
    over = np.stack([negatives >= threshold for threshold in thresholds], axis=1).astype(np.float64)
    return cluster_means(over, clusters, draws=draws)


def _strict(rows: Sequence[EvaluationRow], label: str) -> NDArray[np.bool_]:
    return np.array([label not in row.weak for row in rows])


def _template(row: Mapping[str, object], source: str, number: int) -> str:
    if row.get("template") or row.get("rendered"):
        return f"{source}/{row.get('template') or ''}"
    return f"{source}#{number}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text must be a string")
    canonical(value, MAX_TEXT_CHARS)
    return value


def _truth(value: object) -> bool:
    if value not in (0, 1):  # True and False are 1 and 0
        raise TypeError("extraction must be true, false, 1 or 0")
    return bool(value)


def _names(value: object) -> frozenset[str]:
    if not isinstance(value, list | None):
        raise TypeError("capabilities and weak must be lists")
    return frozenset(map(str, value or []))


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
