"""Tables of an evaluation: by source, technique, language and length, false positives, abstentions, failures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from classifier.train.judged import Judged, cut_at, share
from classifier.train.labelled import EvaluationRow
from classifier.train.metrics import Figure, Interval, Scores, Truth, auroc, bootstrap, cluster_means, recall_at

ORDINARY = ("hard_negative", "benign")
"""The groups of ordinary use, whose prompts must not be flagged."""
RATES = (0.01, 0.001)
"""The false-positive rates at which recall is measured."""
RANKING: tuple[Figure, ...] = (auroc, *(recall_at(rate) for rate in RATES))
LENGTHS = (("up to 32", 0, 32), ("33-128", 33, 128), ("129-254", 129, 254), ("255-1,000", 255, 1_000))
"""Length buckets in tokens; what is over the last is a bucket of its own."""
WORST = 20


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Any rows of one source or group, weak ones too.

    Attributes:
        name: The source or group.
        rows: How many.
        extraction: How many are labelled so.
        strict: How many show it by their text.
        median_probability: The median extraction probability.
        over: The share over the threshold at 1 % false positives.
        reviewed: The share reviewed or flagged.
        flagged: The share flagged.
    """

    name: str
    rows: int
    extraction: int
    strict: int
    median_probability: float
    over: float
    reviewed: float
    flagged: float


@dataclass(frozen=True, slots=True)
class TechniqueRow:
    """Strict positives of one technique against all strict negatives.

    Attributes:
        name: The technique.
        rows: Its positives.
        templates: From how many templates.
        ranking: AUROC, recall at 1 % and at 0.1 % false positives.
        flagged: The share flagged.
    """

    name: str
    rows: int
    templates: int
    ranking: list[Interval]
    flagged: Interval


@dataclass(frozen=True, slots=True)
class PartRow:
    """Strict rows of one language or length.

    Attributes:
        name: The language code, or the bucket in tokens.
        positives: How many rows are extraction.
        negatives: How many are not.
        area: AUROC within the part; nan where one class is missing.
        recall: Share of positives over the threshold at 1 % false positives, by template.
        caught: Share of positives flagged, by template.
        over: Share of negatives over the threshold at 1 % false positives, Wilson.
        flagged: Share of negatives flagged, Wilson.
    """

    name: str
    positives: int
    negatives: int
    area: Interval
    recall: Interval
    caught: Interval
    over: Interval
    flagged: Interval


@dataclass(frozen=True, slots=True)
class OrdinaryRow:
    """Strict negatives of one source of ordinary use.

    Attributes:
        name: The source.
        group: Its group.
        rows: How many.
        alarms: How many are flagged.
        flagged: The share flagged, Wilson.
        over: The share over the threshold at 1 % false positives.
    """

    name: str
    group: str
    rows: int
    alarms: int
    flagged: Interval
    over: float


@dataclass(frozen=True, slots=True)
class AbstentionRow:
    """Rows that were not judged, for one reason, in one language.

    Attributes:
        code: The reason.
        language: The language code.
        rows: How many rows, weak ones too.
        extraction: How many of them are labelled so.
        of: How many rows the language has.
    """

    code: str
    language: str
    rows: int
    extraction: int
    of: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that the scorer is far wrong about, without its text.

    Attributes:
        id: The row's.
        source: Where it comes from.
        probability: Its extraction probability.
        judged: Whether the scorer judged it.
    """

    id: str
    source: str
    probability: float
    judged: bool


class Tables:
    """Makes the tables of one run."""

    def __init__(self, rows: Sequence[EvaluationRow], judged: Judged, draws: int) -> None:
        """Set the thresholds on all strict negatives.

        Args:
            rows: Labelled prompts.
            judged: What the scorer says of them.
            draws: Bootstrap resamples.
        """
        self.rows = rows
        self.judged = judged
        self.draws = draws
        self.truth = np.array([row.extraction for row in rows], bool)
        self.strict = np.array([row.strict for row in rows], bool)
        self.clusters = np.array([row.template for row in rows], dtype=object)
        self.cuts = tuple(cut_at(judged.logits[self.strict & ~self.truth], rate) for rate in RATES)
        self.over = judged.logits > self.cuts[0]

    def ranking(self, scores: Scores, kept: Truth, figures: Sequence[Figure] = RANKING) -> list[Interval]:
        """Figures of (n,) scores on the kept rows, with intervals by template."""
        clusters = self.clusters[kept].tolist()
        return bootstrap(scores[kept], self.truth[kept], clusters, figures, draws=self.draws)

    def mean(self, values: Truth, kept: Truth) -> Interval:
        """The share of the kept rows for which (n,) values hold, with its interval by template.

        Args:
            values: What is counted.
            kept: Which rows.

        Returns:
            The interval. Where all rows agree, resampling knows no doubt; it is then Wilson's of so many templates.
        """
        clusters = self.clusters[kept].tolist()
        if values[kept].all() or not values[kept].any():
            return share(np.full(len(set(clusters)), bool(values[kept].any())))
        return cluster_means(values[kept].astype(np.float64)[:, None], clusters, draws=self.draws)[0]

    def by(self, key: Callable[[EvaluationRow], str]) -> list[GroupRow]:
        """A row for each value of the key, in alphabetical order."""
        return [self._group(name, inside) for name, inside in self._parted(key, np.ones(len(self.rows), bool))]

    def techniques(self) -> list[TechniqueRow]:
        """A row for each technique of the strict positives, the most frequent first."""
        positives, negatives = self.strict & self.truth, self.strict & ~self.truth
        found = [
            TechniqueRow(
                name=name,
                rows=int(inside.sum()),
                templates=len(set(self.clusters[inside])),
                ranking=self.ranking(self.judged.logits, inside | negatives),
                flagged=self.mean(self.judged.flagged, inside),
            )
            for name, inside in self._parted(lambda row: row.technique or "not named", positives)
        ]
        return sorted(found, key=lambda row: -row.rows)

    def languages(self) -> list[PartRow]:
        """A row for each language of the strict rows, the most frequent first."""
        found = [self._part(name, inside) for name, inside in self._parted(lambda row: row.language, self.strict)]
        return sorted(found, key=lambda row: -(row.positives + row.negatives))

    def lengths(self) -> list[PartRow]:
        """A row for each length bucket of the strict rows, shortest first."""
        tokens, last = self.judged.tokens, LENGTHS[-1][2]
        buckets = [(name, (tokens >= first) & (tokens <= end)) for name, first, end in LENGTHS]
        buckets.append((f"over {last:,}", tokens > last))
        return [self._part(name, inside & self.strict) for name, inside in buckets if (inside & self.strict).any()]

    def ordinary(self) -> list[OrdinaryRow]:
        """A row for each source of ordinary use, the most flagged first."""
        found = []
        for group in ORDINARY:
            of_group = np.array([row.group == group for row in self.rows], bool)
            for name, inside in self._parted(lambda row: row.source, of_group & self.strict & ~self.truth):
                hits = self.judged.flagged[inside]
                over = float(self.over[inside].mean())
                found.append(OrdinaryRow(name, group, len(hits), int(hits.sum()), share(hits), over))
        return sorted(found, key=lambda row: (-row.flagged.value, -row.over, row.name))

    def abstentions(self) -> list[AbstentionRow]:
        """A row for each reason and language, the most frequent first."""
        counts: dict[tuple[str, str], list[int]] = {}
        for row, code in zip(self.rows, self.judged.abstentions, strict=True):
            if code is not None:
                held = counts.setdefault((code, row.language), [0, 0])
                held[0] += 1
                held[1] += row.extraction
        total = {language: sum(row.language == language for row in self.rows) for _, language in counts}
        found = [
            AbstentionRow(code, language, rows, extraction, total[language])
            for (code, language), (rows, extraction) in counts.items()
        ]
        return sorted(found, key=lambda row: (-row.rows, row.code, row.language))

    def false_alarms(self) -> list[Failure]:
        """The strict negatives with the highest logits, worst first."""
        return self._worst(self.strict & ~self.truth, -self.judged.logits)

    def misses(self) -> list[Failure]:
        """The strict positives with the lowest logits, worst first."""
        return self._worst(self.strict & self.truth, self.judged.logits)

    def _parted(self, key: Callable[[EvaluationRow], str], kept: Truth) -> list[tuple[str, Truth]]:
        values = np.array([key(row) for row in self.rows], dtype=object)
        return [(str(value), kept & (values == value)) for value in sorted(set(values[kept]))]

    def _group(self, name: str, inside: Truth) -> GroupRow:
        return GroupRow(
            name=name,
            rows=int(inside.sum()),
            extraction=int((inside & self.truth).sum()),
            strict=int((inside & self.strict).sum()),
            median_probability=float(np.median(self.judged.probabilities[inside, 0])),
            over=float(self.over[inside].mean()),
            reviewed=float(self.judged.reviewed[inside].mean()),
            flagged=float(self.judged.flagged[inside].mean()),
        )

    def _part(self, name: str, inside: Truth) -> PartRow:
        positives, negatives = inside & self.truth, inside & ~self.truth
        return PartRow(
            name=name,
            positives=int(positives.sum()),
            negatives=int(negatives.sum()),
            area=self.ranking(self.judged.logits, inside, (auroc,))[0],
            recall=self.mean(self.over, positives),
            caught=self.mean(self.judged.flagged, positives),
            over=share(self.over[negatives]),
            flagged=share(self.judged.flagged[negatives]),
        )

    def _worst(self, kept: Truth, badness: Scores) -> list[Failure]:
        numbers = np.flatnonzero(kept)
        chosen = numbers[np.argsort(badness[numbers], kind="stable")[:WORST]].tolist()
        rows, judged = self.rows, self.judged
        return [
            Failure(rows[i].id, rows[i].source, float(judged.probabilities[i, 0]), judged.abstentions[i] is None)
            for i in chosen
        ]
