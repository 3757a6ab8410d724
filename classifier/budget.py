"""Thresholds from an operator's own benign traffic, and how much a sample of it can show.

A budget is the share of benign prompts that may lie at or over a threshold. A sample supports a budget when it could
show that a threshold keeps to it: when not one row of it exceeded a threshold, the 95 % upper bound of the share would
be within the budget. Every figure takes the rows to be drawn independently; a sample in which one caller's template
stands a thousand times shows less than its size promises.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A bundle's bytes are verified in one place only.
from classifier.bundle import names_of, read_manifest, verified_file, write_bundle
from classifier.config import Settings
from classifier.conversation import body_text
from classifier.errors import BundleRejected, DataRejected, InvalidPrompt, InvalidSetting
from classifier.policy import Thresholds
from classifier.prompts import NamedPrompt, read_prompts
from classifier.runtime import open_runtime
from classifier.scorer import Scorer

LEAST_BUDGET, MOST_BUDGET = 0.00001, 0.2
REVIEW_FACTOR = 4
"""How many times the flag budget the review budget is, unless the operator says otherwise."""
MOST_REJECTED = 0.05
"""The share of rows that cannot be scored above which a file is refused."""
_BATCH = 256
_SHARE = re.compile(r"(\d{1,20}(?:\.\d{0,40})?|\.\d{1,40})(e-?\d{1,2})?\s*(%?)", re.ASCII | re.IGNORECASE)
_TERMS_AT_ONCE = 4_096
_NEGLIGIBLE = -45.0
"""A term of a sum whose logarithm is so far under the largest one's changes no digit of a float."""


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A threshold with what was measured of it on the sample.

    Attributes:
        threshold: Probability in [0, 1]; rows at or over it exceed.
        exceeding: How many rows of the sample do.
        total: The sample's rows.
        low: The lower end of the 95 % interval of the share of all such traffic that exceeds.
        high: Its upper end. The threshold lies between two rows of the sample, and the interval holds for such a one.
    """

    threshold: float
    exceeding: int
    total: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """The measured share of rows that exceed, in [0, 1]."""
        return self.exceeding / self.total


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration did.

    Attributes:
        flag: The new flag threshold.
        review: The new review threshold.
        rows: Rows that the thresholds were set on.
        abstained: Rows that the scorer does not judge; they are never flagged and count for nothing.
        rejected: Rows that could not be scored.
        bundle: The new bundle's directory.
    """

    flag: Cutoff
    review: Cutoff
    rows: int
    abstained: int
    rejected: int
    bundle: Path


@dataclass(frozen=True, slots=True)
class _Sample:
    probabilities: list[float]
    abstained: int
    rejected: int


def parse_budget(text: str) -> float:
    """Read a budget as an operator writes it.

    Args:
        text: A percentage such as "0.1%", or a share such as "0.001".

    Returns:
        The share, in [LEAST_BUDGET, MOST_BUDGET].

    Raises:
        DataRejected: When the text is neither, or out of bounds.
    """
    found = _SHARE.fullmatch(text.strip())
    if found is None:
        raise DataRejected(f"the budget {text[:40]!a} is no share: write it like 0.1% or 0.001")
    digits, exponent, percent = found.groups()
    share = Decimal(digits + (exponent or "")) / (100 if percent else 1)
    return _within_bounds(float(share))


def rows_needed(budget: float, confidence: float = 0.95) -> int:
    """How many benign rows a budget needs.

    Args:
        budget: Share in (0, 1).
        confidence: In (0, 1).

    Returns:
        The smallest n for which 0 of n rows give a one-sided Clopper-Pearson upper bound, 1 - (1 - confidence)^(1/n),
        that is within the budget.
    """
    rows = max(1, math.ceil(math.log1p(-confidence) / math.log1p(-budget)))
    # The quotient may be off by a rounding; the bound itself decides.
    while rows > 1 and _least_budget(rows - 1, confidence) <= budget:
        rows -= 1
    while _least_budget(rows, confidence) > budget:
        rows += 1
    return rows


def interval(exceeding: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided Clopper-Pearson interval of a share.

    Args:
        exceeding: How many rows exceed, in [0, total].
        total: How many rows there are, at least 1.
        confidence: In (0, 1); what is left of it is halved between the two sides.

    Returns:
        Both ends, in [0, 1], each to a relative 1e-7 for up to ten million rows.

    Raises:
        ValueError: When the counts are out of order.
    """
    if not 0 <= exceeding <= total or total < 1:
        raise ValueError("an interval needs 0 <= exceeding <= total and a row")
    tail = math.log(0.5 * (1.0 - confidence))
    share = exceeding / total
    low, high = 0.0, 1.0
    if exceeding > 0:  # as many or more exceed: as few or fewer do not
        low = _crossing(0.0, share, lambda p: _log_tail(total - exceeding, total, math.log1p(-p), math.log(p)) >= tail)
    if exceeding < total:
        high = _crossing(share, 1.0, lambda p: _log_tail(exceeding, total, math.log(p), math.log1p(-p)) <= tail)
    return low, high


def choose(probabilities: Sequence[float] | NDArray[np.float64], budget: float) -> Cutoff:
    """The lowest threshold that keeps a benign sample within a budget.

    Args:
        probabilities: (n,) extraction probabilities of the sample, in [0, 1].
        budget: The share that may lie at or over the threshold, in (0, 1).

    Returns:
        The threshold, midway between the lowest probability that may exceed and the next one below; where none may,
        between the highest probability and 1. Rows of equal probability stand or fall together.

    Raises:
        DataRejected: When the sample is too small for the budget, holds what is no probability, or has so many rows
            at 1.0 that no threshold keeps to the budget.
    """
    rows = np.sort(np.asarray(probabilities, np.float64))
    total = len(rows)
    if total < rows_needed(budget):
        raise _too_few(total, budget, "scored benign rows")
    if not ((rows >= 0.0) & (rows <= 1.0)).all():
        raise DataRejected("a score is no probability: build the bundle again")
    # A float such as 0.29 is a little under what was written, and must not cost a row.
    allowed = int(Decimal(str(budget)) * total)
    below = float(rows[total - allowed - 1])
    if below == 1.0:
        at_one = total - int(np.searchsorted(rows, 1.0))
        raise DataRejected(
            f"{at_one:,} of {total:,} benign rows have the probability 1.0 and only {allowed:,} may exceed: no threshold "
            f"keeps to {_percent(budget)}; look at these rows, or raise the budget"
        )
    first = int(np.searchsorted(rows, below, side="right"))
    above = float(rows[first]) if first < total else 1.0
    middle = below + 0.5 * (above - below)
    exceeding = total - first
    # Between two floats that are neighbours there is nothing.
    return Cutoff(middle if middle > below else above, exceeding, total, *interval(exceeding, total))


def recalibrated(folder: Path, bundles: Path, thresholds: Thresholds, note: Mapping[str, float]) -> Path:
    """Write a bundle again with other thresholds, beside the old one, and point "current" at it.

    Args:
        folder: The old bundle.
        bundles: The folder of all bundles.
        thresholds: The new ones.
        note: Figures that are added to the report in the manifest.

    Returns:
        The new bundle's directory.

    Raises:
        BundleRejected: When a file of the old bundle is missing or altered.
    """
    manifest, _ = read_manifest(folder)
    files = {name: verified_file(folder, name, manifest.files[name]) for name in names_of(manifest)}
    card = manifest.model_dump(mode="json", exclude={"files"})
    card["head"]["thresholds"] = {"review": thresholds.review, "flag": thresholds.flag}
    card["head"]["report"] |= note
    return write_bundle(bundles, card, files)


def calibrate(
    file: Path,
    settings: Settings,
    budget: float,
    review_budget: float | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibrated:
    """Set the thresholds of the current bundle on benign traffic, and make what comes of it the current bundle.

    The rows are scored against the operator's own example store, as the traffic will be.

    Args:
        file: Benign prompts, .jsonl or .jsonl.gz, in the forms that `stillwatch score` reads.
        settings: Where bundle and store are.
        budget: The share of benign prompts that may be flagged.
        review_budget: The share that may be reviewed or flagged; by default REVIEW_FACTOR times the budget, at most
            MOST_BUDGET.
        progress: Told how many of how many rows are scored.

    Returns:
        The thresholds, what was measured, and the new bundle.

    Raises:
        DataRejected: When the file cannot be read, over MOST_REJECTED of its rows cannot be scored, a budget is out of
            bounds, or the rows do not support the budget.
        InvalidSetting: When the settings override the thresholds that are to be set.
        BundleRejected: When the bundle cannot be opened, or another one became current meanwhile.
    """
    flag_share = _within_bounds(budget)
    review_share = _within_bounds(min(REVIEW_FACTOR * budget, MOST_BUDGET) if review_budget is None else review_budget)
    if review_share < flag_share:
        raise DataRejected(
            f"the review budget {_percent(review_share)} is under the budget {_percent(flag_share)}: raise it"
        )
    if (settings.flag_threshold, settings.review_threshold) != (None, None):
        raise InvalidSetting("flag_threshold or review_threshold is set and would hide what is calibrated: unset them")
    total = sum(1 for _ in _prompts(file))  # reading costs little; a file that will not do is refused before scoring
    if total < rows_needed(flag_share):
        raise _too_few(total, flag_share, f"rows in {file.name}")
    with open_runtime(settings) as runtime:
        version = runtime.bundle.model.version
        sample = _scored(islice(_prompts(file), total), runtime.scorer, total, progress)
    used = len(sample.probabilities)
    if used < rows_needed(flag_share):
        lost = f"{sample.abstained:,} not judged, {sample.rejected:,} not scored"
        raise _too_few(used, flag_share, f"left of {total:,} rows ({lost})")
    flag, review = choose(sample.probabilities, flag_share), choose(sample.probabilities, review_share)
    folder = settings.bundle.resolve()
    if read_manifest(folder)[1] != version:
        raise BundleRejected("another bundle became the current one while the rows were scored: calibrate again")
    note = {"calibrated_rows": float(used)}
    for name, share, cutoff in (("flag", flag_share, flag), ("review", review_share, review)):
        figures = {"budget": share, "rate": cutoff.rate, "rate_low": cutoff.low, "rate_high": cutoff.high}
        note |= {f"calibrated_{name}_{key}": value for key, value in figures.items()}
    bundle = recalibrated(folder, settings.bundles, Thresholds(review.threshold, flag.threshold), note)
    return Calibrated(flag, review, used, sample.abstained, sample.rejected, bundle)


def _prompts(file: Path) -> Iterator[NamedPrompt]:
    return read_prompts(None, file, BytesIO(), lines=True)


def _scored(
    prompts: Iterator[NamedPrompt], scorer: Scorer, total: int, progress: Callable[[int, int], None]
) -> _Sample:
    """Score prompts batch by batch, and give up as soon as too many cannot be scored."""
    probabilities: list[float] = []
    done = abstained = rejected = 0
    while group := list(islice(prompts, _BATCH)):
        texts = [_text(prompt) for prompt in group]
        forms = scorer.prepare_each([text for text in texts if isinstance(text, str)])
        failures = [found for found in (*texts, *forms) if isinstance(found, InvalidPrompt)]
        rejected += len(failures)
        if failures and rejected > MOST_REJECTED * total:
            raise DataRejected(
                f"{rejected:,} of the first {done + len(group):,} rows cannot be scored, and at most "
                f"{_percent(MOST_REJECTED)} of {total:,} may be so (one of them: {failures[0]}): mend or remove them"
            )
        good = [form for form in forms if not isinstance(form, InvalidPrompt)]
        for verdict in scorer.score_prepared(good).verdicts if good else ():
            if verdict.abstention is None:
                probabilities.append(verdict.extraction_probability)
            else:
                abstained += 1
        done += len(group)
        progress(done, total)
    return _Sample(probabilities, abstained, rejected)


def _text(prompt: NamedPrompt) -> str | InvalidPrompt:
    try:
        return prompt.content if isinstance(prompt.content, str) else body_text(prompt.content)
    except InvalidPrompt as error:
        return error


def _within_bounds(share: float) -> float:
    if not LEAST_BUDGET <= share <= MOST_BUDGET:
        bounds = f"{_percent(LEAST_BUDGET)} to {_percent(MOST_BUDGET)}"
        raise DataRejected(f"a budget of {_percent(share)} is out of bounds: take one from {bounds}")
    return share


def _too_few(rows: int, budget: float, what: str) -> DataRejected:
    text = f"a budget of {_percent(budget)} needs {rows_needed(budget):,} benign rows and there are {rows:,} {what}"
    if rows < rows_needed(MOST_BUDGET):
        return DataRejected(f"{text}, too few for any budget: give more")
    least = Context(prec=2, rounding=ROUND_CEILING).create_decimal(100 * Decimal(_least_budget(rows, 0.95)))
    return DataRejected(f"{text}: give more, or take a budget of {least.normalize():f}% or more")


def _least_budget(rows: int, confidence: float) -> float:
    """The one-sided Clopper-Pearson upper bound of a share of which 0 of so many rows are."""
    return -math.expm1(math.log1p(-confidence) / rows)


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def _crossing(low: float, high: float, reached: Callable[[float], bool]) -> float:
    """Where a condition that holds from some point on begins to hold, by bisection to the last bit."""
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _log_tail(most: int, total: int, log_p: float, log_q: float) -> float:
    """The logarithm of P(X <= most) for X ~ Binomial(total, p), where most <= total * p.

    The terms fall from the one at most downwards, so the sum ends where they no longer matter. Both logarithms are
    given, because 1 - p would lose the digits of a small p.
    """
    choices = math.lgamma(total + 1) - math.lgamma(most + 1) - math.lgamma(total - most + 1)
    first = choices + most * log_p + (total - most) * log_q
    summed, last = 1.0, 0.0
    for start in range(most, 0, -_TERMS_AT_ONCE):
        j = np.arange(start, max(start - _TERMS_AT_ONCE, 0), -1, dtype=np.float64)
        logs = last + np.cumsum(np.log(j / (total - j + 1)) + (log_q - log_p))
        summed += float(np.exp(logs).sum())
        last = float(logs[-1])
        if last < _NEGLIGIBLE:
            break
    return first + math.log(summed)
