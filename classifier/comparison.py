"""A report that compares two bundles on the same frozen rows, and the rule by which it is judged.

The report carries the SHA-256 of the rows' file and of both manifests, and a digest of itself. The digest shows damage
and careless editing; it is no signature.
"""

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from classifier.errors import PromotionRefused
from classifier.manifest import Cutoffs, Sha256

RECALL = "recall_at_1pct_fpr"
CAUGHT, ALARMS = "positives_flagged", "negatives_flagged"
CAPABILITIES = "capability_average_precision"
SIGNIFICANT = 0.05
CAPABILITY_MARGIN = 0.01
MAX_REPORT_BYTES = 4 * 2**20
RULE = (
    "worse: the paired 95 % interval of the difference of recall at 1 % false positives lies wholly below 0; or more "
    "ordinary rows are flagged than the budget allows; or, each bundle at its own thresholds, fewer positives are flagged, "
    "or more negatives, by McNemar's exact test (p < 0.05) and by a paired 95 % interval without 0; or the interval of the "
    "difference of the capabilities' mean average precision lies wholly below -0.01; or a capability or technique is no "
    "longer told. better: not worse, and the interval of the difference of recall lies wholly above 0. no worse: otherwise."
)


class Outcome(StrEnum):
    """What a comparison comes to."""

    BETTER = "better"
    NO_WORSE = "no worse"
    WORSE = "worse"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Part):
    """A figure with its 95 % interval; None where the rows do not determine it."""

    value: float | None
    low: float | None
    high: float | None


class Paired(_Part):
    """A figure of both bundles on the same rows, and the difference: the candidate's less the current one's."""

    candidate: Estimate
    current: Estimate
    difference: Estimate


class Decisions(_Part):
    """Which rows are flagged by which bundle, each at its own thresholds.

    Attributes:
        both: By both.
        candidate_only: By the candidate alone.
        current_only: By the current one alone.
        neither: By neither.
        p_value: McNemar's exact two-sided one, which takes rows to be drawn independently.
    """

    both: int
    candidate_only: int
    current_only: int
    neither: int
    p_value: Annotated[float, Field(ge=0, le=1)]


class Compared(_Part):
    """One of the two bundles.

    Attributes:
        name: Its folder.
        version: Its full version.
        manifest_sha256: The hash of its manifest, which holds those of all its files.
        thresholds: Its own.
        training_revision: The store's revision that it was trained on, if it was.
        corpus_sha256: Fingerprint of what it was trained on.
    """

    name: str
    version: str
    manifest_sha256: Sha256
    thresholds: Cutoffs
    training_revision: int | None
    corpus_sha256: Sha256


class Frozen(_Part):
    """The rows.

    Attributes:
        file: The file's name.
        sha256: Of its bytes.
        rows: How many it holds.
        trained_on: How many were left out, because one of the bundles was trained on their very text.
        positives: Strict positives that were compared.
        negatives: Strict negatives.
        ordinary: Strict negatives of ordinary use.
        templates: Templates of the strict rows.
    """

    file: str
    sha256: Sha256
    rows: int
    trained_on: int
    positives: int
    negatives: int
    ordinary: int
    templates: int


class Ordinary(_Part):
    """Rows of ordinary use that are flagged, against the budget.

    Attributes:
        budget: The share that may be, in (0, 1).
        rows: How many rows there are.
        candidate: How many the candidate flags.
        current: How many the current one flags.
    """

    budget: Annotated[float, Field(gt=0, lt=1)]
    rows: Annotated[int, Field(gt=0)]
    candidate: int
    current: int


class Measured(_Part):
    """All that was measured; the verdict follows from it.

    Attributes:
        frozen: On which rows.
        candidate: What may be promoted.
        current: What it is compared with.
        draws: Bootstrap resamples, by template.
        figures: Figures by name.
        positives: Decisions on strict positives.
        negatives: Decisions on strict negatives.
        ordinary: Rows of ordinary use that are flagged.
        lost: Capabilities and techniques that only the current one tells.
    """

    frozen: Frozen
    candidate: Compared
    current: Compared
    draws: int
    figures: dict[str, Paired]
    positives: Decisions
    negatives: Decisions
    ordinary: Ordinary
    lost: tuple[str, ...]


class Comparison(_Part):
    """The report.

    Attributes:
        schema_version: The form of this report.
        made: When (UTC).
        software: The version of Stillwatch that made it.
        measured: The figures.
        rule: How the verdict follows.
        verdict: The verdict.
        grounds: Why, in words.
    """

    schema_version: Literal[1]
    made: datetime
    software: str
    measured: Measured
    rule: str
    verdict: Outcome
    grounds: tuple[str, ...]

    def digest(self) -> str:
        """The SHA-256 of the report's contents, in hexadecimal."""
        return hashlib.sha256(_canonical(self)).hexdigest()


def judge(found: Measured) -> tuple[Outcome, tuple[str, ...]]:
    """Apply the rule.

    Args:
        found: What was measured.

    Returns:
        The verdict and its grounds.
    """
    recall = found.figures[RECALL].difference
    grounds = []
    if _under(recall, 0.0):
        grounds.append(f"recall at 1 % false positives is lower: {_points(recall)}")
    share = found.ordinary.candidate / found.ordinary.rows
    if share > found.ordinary.budget:
        grounds.append(f"{share:.2%} of the ordinary rows are flagged, and the budget is {found.ordinary.budget:.2%}")
    caught, alarms = found.figures[CAUGHT].difference, found.figures[ALARMS].difference
    if found.positives.p_value < SIGNIFICANT and _under(caught, 0.0):
        grounds.append(f"fewer positives are flagged: {_points(caught)}, p = {found.positives.p_value:.2g}")
    if found.negatives.p_value < SIGNIFICANT and _over(alarms, 0.0):
        grounds.append(f"more negatives are flagged: {_points(alarms)}, p = {found.negatives.p_value:.2g}")
    capabilities = found.figures.get(CAPABILITIES)
    if capabilities is not None and _under(capabilities.difference, -CAPABILITY_MARGIN):
        grounds.append(f"capabilities are told less well: {_points(capabilities.difference)}")
    if found.lost:
        grounds.append(f"no longer told: {', '.join(found.lost)}")
    if grounds:
        return Outcome.WORSE, tuple(grounds)
    if _over(recall, 0.0):
        return Outcome.BETTER, (f"recall at 1 % false positives is higher: {_points(recall)}",)
    return Outcome.NO_WORSE, (f"recall at 1 % false positives differs by {_points(recall)}",)


def dump_report(report: Comparison) -> bytes:
    """The report as JSON, with its digest."""
    held = report.model_dump(mode="json") | {"digest": report.digest()}
    return (json.dumps(held, indent=2, ensure_ascii=True) + "\n").encode()


def read_report(path: Path) -> Comparison:
    """Read a report, and see that it is as it was written and that its verdict follows from its figures.

    Args:
        path: What `stillwatch evaluate --against` wrote.

    Returns:
        The report.

    Raises:
        PromotionRefused: When it cannot be read, is no such report, or was altered.
    """
    again = "run  stillwatch evaluate --bundle ... --against ...  again"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_REPORT_BYTES + 1)
        held = json.loads(data) if len(data) <= MAX_REPORT_BYTES else None
        digest = held.pop("digest", None) if isinstance(held, dict) else None
        report = Comparison.model_validate_json(json.dumps(held))
    except OSError as error:
        raise PromotionRefused(f"the report {path} cannot be read ({error.strerror}): check the name") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its form"
        raise PromotionRefused(f"{path.name} is no report of a comparison (wrong at {where}): {again}") from None
    except (ValueError, RecursionError):
        raise PromotionRefused(f"{path.name} is no report of a comparison (no JSON): {again}") from None
    if digest != report.digest():
        raise PromotionRefused(f"{path.name} was altered, its digest does not fit: {again}")
    if report.rule != RULE or (report.verdict, report.grounds) != judge(report.measured):
        raise PromotionRefused(f"{path.name} was judged by another rule than this version's: {again}")
    return report


def _canonical(report: Comparison) -> bytes:
    return json.dumps(report.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _under(found: Estimate, limit: float) -> bool:
    return found.high is not None and found.high < limit


def _over(found: Estimate, limit: float) -> bool:
    return found.low is not None and found.low > limit


def _points(found: Estimate) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "an unknown number of points"
    return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
