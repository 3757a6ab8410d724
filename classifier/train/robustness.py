"""What is still recognised when it is disguised, reworded, translated or buried in a long text.

Every threshold is the one that undisguised negatives set; what is measured never moves it.
"""

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.conversation import body_text
from classifier.errors import DataRejected
from classifier.rows import read_rows
from classifier.scorer import Scorer
from classifier.train.buried import LongRow, measure_buried
from classifier.train.evasions import AS_BODY, EVASIONS, Evasion
from classifier.train.judged import Judged, judge, share
from classifier.train.labelled import EvaluationRow, drawn
from classifier.train.losses import Loss, loss
from classifier.train.metrics import NOT_KNOWN, Interval, Scores, Truth, auroc, bootstrap
from classifier.train.tables import ORDINARY

PAIRS = Path(__file__).parent / "pairs.jsonl"
"""Harvest prompts, each with a paraphrase and translations, written for this measurement."""
PARAPHRASE, ENGLISH = "paraphrase", "en"
FORMS = (PARAPHRASE, "es", "zh", "fr", "de")
SAMPLE = 240
LONG_SAMPLE = 150
SHORT_TOKENS = 600
"""The longest prompts that are buried."""
LONG_TOKENS = (2_000, 8_000)


@dataclass(frozen=True, slots=True)
class EvasionRow:
    """One evasion.

    Attributes:
        name: The evasion.
        losses: Recall lost at 1 % and at 0.1 % false positives.
        not_judged: The share of the evaded prompts that are not judged.
        ordinary: The share of ordinary prompts over the threshold at 1 % once they are evaded likewise, Wilson.
    """

    name: str
    losses: list[Loss]
    not_judged: float
    ordinary: Interval


@dataclass(frozen=True, slots=True)
class FormRow:
    """One rewording or translation.

    Attributes:
        name: The paraphrase, or the language's code.
        losses: Recall lost at 1 % and at 0.1 % false positives.
        area: AUROC against the strict negatives of the form's own language; nan where there are none.
        not_judged: The share that is not judged.
    """

    name: str
    losses: list[Loss]
    area: Interval
    not_judged: float


@dataclass(frozen=True, slots=True)
class Plain:
    """What is said of prompts that have rewordings, as they are.

    Attributes:
        prompts: How many there are.
        area: AUROC against the strict negatives of their language; nan where there are none.
        not_judged: The share that is not judged.
    """

    prompts: int
    area: Interval
    not_judged: float


@dataclass(frozen=True, slots=True)
class Negatives:
    """Strict negatives of one language.

    Attributes:
        logits: (n,) their scores.
        templates: (n,) their templates.
    """

    logits: Scores
    templates: Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class Robustness:
    """What was measured of changed prompts.

    Attributes:
        positives: How many strict positives were evaded.
        templates: Of how many templates.
        negatives: How many strict negatives were evaded.
        ordinary: The share of those over the threshold at 1 % as they are.
        not_judged: The share of the positives that is not judged as they are.
        evasions: A row for each evasion.
        pairs: What is said of prompts that have rewordings, as they are.
        forms: A row for the paraphrase and each translation.
        buried: How many strict positives were buried.
        long: A row for each length of the text around them.
    """

    positives: int
    templates: int
    negatives: int
    ordinary: Interval
    not_judged: float
    evasions: list[EvasionRow]
    pairs: Plain
    forms: list[FormRow]
    buried: int
    long: list[LongRow]


def measure_robustness(
    rows: Sequence[EvaluationRow],
    judged: Judged,
    scorer: Scorer,
    *,
    cuts: Sequence[float],
    negatives: Truth,
    draws: int,
    seed: int = 0,
    evasions: Mapping[str, Evasion] = EVASIONS,
    pairs: Path = PAIRS,
    progress: Callable[[str], None] = lambda doing: None,
) -> Robustness:
    """Change a sample of the rows in every way and score it anew.

    Args:
        rows: Labelled prompts.
        judged: What the scorer says of them as they are.
        scorer: What is evaluated.
        cuts: The logits over which 1 % and 0.1 % of the strict negatives stand.
        negatives: (n,) which rows are strict negatives.
        draws: Bootstrap resamples.
        seed: Of the samples and of the evasions.
        evasions: The evasions by name.
        pairs: The file of rewordings; where it is missing, none are measured.
        progress: Told what is being done.

    Returns:
        The losses.

    Raises:
        DataRejected: When there are no strict positives, or no benign text to pad and bury with.
    """
    positives = [number for number, row in enumerate(rows) if row.strict and row.extraction]
    chosen = drawn(rows, positives, SAMPLE, seed)
    others = np.flatnonzero(negatives)
    random = np.random.default_rng(seed)
    against = sorted(random.choice(others, min(SAMPLE, len(others) // 2), replace=False).tolist())
    ordinary = [number for number in others.tolist() if rows[number].group in ORDINARY]
    padding = [rows[number].text for number in sorted(set(ordinary) - set(against))]
    if not chosen or not any(text.strip() for text in padding):
        raise DataRejected(
            "evasions need rows that are strictly extraction, and benign or hard_negative rows to pad them with: "
            "add some, or measure without --evasions"
        )
    sample = _Sample(rows, judged, scorer, cuts, chosen, against, padding, draws, seed)
    evaded = []
    for number, (name, evade) in enumerate(evasions.items(), 1):
        progress(f"evasion {number} of {len(evasions)}: {name}")
        evaded.append(sample.evaded(name, evade))
    progress("rewordings and translations")
    plain, forms = measure_forms(pairs, scorer, cuts, draws, _by_language(rows, judged, others))
    short = [number for number in positives if judged.tokens[number] <= SHORT_TOKENS]
    buried = drawn(rows, short, LONG_SAMPLE, seed)
    around = [
        number
        for number in others.tolist()
        if rows[number].group in ORDINARY or (rows[number].group == "multilingual" and rows[number].language == "en")
    ]
    return Robustness(
        positives=len(chosen),
        templates=len({rows[number].template for number in chosen}),
        negatives=len(against),
        ordinary=share(judged.logits[against] > cuts[0]),
        not_judged=float(1 - judged.judged[chosen].mean()),
        evasions=evaded,
        pairs=plain,
        forms=forms,
        buried=len(buried),
        long=measure_buried(
            [rows[number] for number in buried],
            judged.logits[buried] > cuts[0],
            [rows[number].text for number in around],
            scorer,
            cut=cuts[0],
            lengths=LONG_TOKENS,
            draws=draws,
            seed=seed,
            progress=progress,
        ),
    )


def measure_forms(
    pairs: Path, scorer: Scorer, cuts: Sequence[float], draws: int, negatives: Mapping[str, Negatives]
) -> tuple[Plain, list[FormRow]]:
    """Compare prompts with their rewordings and translations.

    Args:
        pairs: Rows {text, paraphrase, es, zh, fr, de}.
        scorer: What is evaluated.
        cuts: The logits over which 1 % and 0.1 % of the strict negatives stand.
        draws: Bootstrap resamples.
        negatives: Strict negatives by language.

    Returns:
        What is said of the prompts as they are, and a row for each form; none where the file is missing.

    Raises:
        DataRejected: When a row lacks a form.
    """
    table: list[list[str]] = []
    for number, row in read_rows(pairs) if pairs.is_file() else ():
        texts = [row.get(name) for name in ("text", *FORMS)]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataRejected(f"{pairs.name}, line {number}: needs text, {', '.join(FORMS)}: mend the row")
        table.append(list(map(str, texts)))
    if not table:
        return Plain(0, NOT_KNOWN, float("nan")), []
    plain, *changed = (judge(scorer, column) for column in zip(*table, strict=True))
    clusters = list(range(len(table)))
    forms = [
        FormRow(
            name,
            [loss(plain.logits > cut, found.logits > cut, clusters, draws) for cut in cuts],
            _area(found.logits, negatives.get(ENGLISH if name == PARAPHRASE else name), draws),
            float(1 - found.judged.mean()),
        )
        for name, found in zip(FORMS, changed, strict=True)
    ]
    area = _area(plain.logits, negatives.get(ENGLISH), draws)
    return Plain(len(table), area, float(1 - plain.judged.mean())), forms


def _by_language(rows: Sequence[EvaluationRow], judged: Judged, others: NDArray[np.int64]) -> dict[str, Negatives]:
    numbers: dict[str, list[int]] = {}
    for number in others.tolist():
        numbers.setdefault(rows[number].language, []).append(number)
    return {
        language: Negatives(judged.logits[own], [rows[number].template for number in own])
        for language, own in numbers.items()
    }


def _area(positives: Scores, negatives: Negatives | None, draws: int) -> Interval:
    if negatives is None:
        return NOT_KNOWN
    truth = np.repeat([True, False], [len(positives), len(negatives.logits)])
    clusters = [*range(len(positives)), *negatives.templates]
    return bootstrap(np.concatenate([positives, negatives.logits]), truth, clusters, [auroc], draws=draws)[0]


@dataclass(frozen=True, slots=True)
class _Sample:
    """Rows that go through every evasion."""

    rows: Sequence[EvaluationRow]
    judged: Judged
    scorer: Scorer
    cuts: Sequence[float]
    positives: list[int]
    negatives: list[int]
    padding: list[str]
    draws: int
    seed: int

    def evaded(self, name: str, evade: Evasion) -> EvasionRow:
        """Evade all rows and compare them with themselves."""
        numbers = [*self.positives, *self.negatives]
        found = judge(self.scorer, [self._text(name, evade, number) for number in numbers])
        changed, ordinary = found.logits[: len(self.positives)], found.logits[len(self.positives) :]
        clusters = [self.rows[number].template for number in self.positives]
        alone = self.judged.logits[self.positives]
        return EvasionRow(
            name=name,
            losses=[loss(alone > cut, changed > cut, clusters, self.draws) for cut in self.cuts],
            not_judged=float(1 - found.judged[: len(self.positives)].mean()),
            ordinary=share(ordinary > self.cuts[0]),
        )

    def _text(self, name: str, evade: Evasion, number: int) -> str:
        # Each row and evasion has a generator of its own, so that adding one changes none of the others.
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode()), number])
        text = evade(self.rows[number].text, random, self.padding)
        return body_text(text.encode()) if name == AS_BODY else text
