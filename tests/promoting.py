"""What the tests of promotion share: a home of three bundles, and reports on them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import variants

from classifier import comparison
from classifier.bundle import read_manifest
from classifier.comparison import Compared, Comparison, Decisions, Estimate, Measured, Paired, dump_report
from classifier.models import current_name, identify
from classifier.promotion import Promotion, promote


def home_of_three(folder: Path) -> Path:
    """A home in which the default bundle is current and two others are not."""
    made = variants.make_home(folder)
    for version in ("9.0.0", "9.1.0"):
        variants.make_current(made, variants.versioned(version))
    variants.point(made, "default")
    return made


def named(home: Path, version: str) -> str:
    (found,) = (path.name for path in (home / "bundles").iterdir() if path.name.startswith(version))
    return found


def compared(folder: Path) -> Compared:
    found, head = identify(folder), read_manifest(folder)[0].head
    return Compared(
        name=found.name,
        version=found.version,
        manifest_sha256=found.manifest_sha256,
        thresholds=head.thresholds,
        training_revision=head.training_revision,
        corpus_sha256=head.corpus_sha256,
    )


def report_of(home: Path, candidate: str, current: str, *, lost: float = 0.0) -> Path:
    """A report on two bundles, in which the candidate loses so much recall."""
    same = Estimate(value=0.0, low=0.0, high=0.0)
    recall = Estimate(value=-lost, low=-lost, high=-lost)
    figures = {
        comparison.RECALL: Paired(candidate=same, current=same, difference=recall),
        comparison.CAUGHT: Paired(candidate=same, current=same, difference=same),
        comparison.ALARMS: Paired(candidate=same, current=same, difference=same),
    }
    decisions = Decisions(both=1, candidate_only=0, current_only=0, neither=1, p_value=1.0)
    measured = Measured.model_validate(
        {
            "frozen": {
                "file": "frozen.jsonl",
                "sha256": "0" * 64,
                "rows": 400,
                "trained_on": 0,
                "positives": 50,
                "negatives": 350,
                "ordinary": 350,
                "templates": 400,
            },
            "candidate": compared(home / "bundles" / candidate).model_dump(),
            "current": compared(home / "bundles" / current).model_dump(),
            "draws": 10,
            "figures": figures,
            "positives": decisions,
            "negatives": decisions,
            "ordinary": {"budget": 0.01, "rows": 350, "candidate": 0, "current": 0},
            "lost": (),
        }
    )
    verdict, grounds = comparison.judge(measured)
    report = Comparison(
        schema_version=1,
        made=datetime.now(UTC),
        software="test",
        measured=measured,
        rule=comparison.RULE,
        verdict=verdict,
        grounds=grounds,
    )
    path = home / f"{candidate}-{current}.json"
    path.write_bytes(dump_report(report))
    return path


def promoted(home: Path, name: str, **given: Any) -> Promotion:
    """Promote by a fitting report."""
    bundles = home / "bundles"
    report = report_of(home, name, current_name(bundles), **given)
    return promote(bundles, name, report, actor="ada", reason="it is better", threads=2)


def current(home: Path) -> str:
    return current_name(home / "bundles")
