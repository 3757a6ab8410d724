"""A comparison of two bundles on paper: JSON, and Markdown. Neither holds a prompt's text."""

import math
from pathlib import Path

from classifier import comparison
from classifier.comparison import Comparison, Decisions, Estimate, dump_report
from classifier.train.markdown import UNKNOWN, code, interval, percent, points, table
from classifier.train.metrics import Interval

NAME = "comparison"
_TITLES = {
    "extraction_auroc": "extraction AUROC",
    comparison.RECALL: "recall at 1 % FPR",
    "recall_at_01pct_fpr": "recall at 0.1 % FPR",
    comparison.CAUGHT: "positives flagged",
    comparison.ALARMS: "negatives flagged",
    "capability_auroc": "capability macro AUROC",
    comparison.CAPABILITIES: "capability macro AP",
}


def write_comparison(report: Comparison, folder: Path, *, command: str = "") -> list[Path]:
    """Write comparison.json and comparison.md.

    Args:
        report: The report.
        folder: Where to write.
        command: What reproduces it.

    Returns:
        The files, Markdown last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{NAME}.json", folder / f"{NAME}.md"]
    files[0].write_bytes(dump_report(report))
    files[1].write_text(markdown(report, command), encoding="utf-8")
    return files


def markdown(report: Comparison, command: str) -> str:
    """The report as Markdown.

    Args:
        report: The report.
        command: What reproduces it.

    Returns:
        The text.
    """
    found = report.measured
    frozen, sides = found.frozen, (found.candidate, found.current)
    figures = [
        (title, *map(_figure, (pair.candidate, pair.current)), points(_interval(pair.difference)))
        for name, title in _TITLES.items()
        if (pair := found.figures.get(name)) is not None
    ]
    parts = [
        "# Comparison",
        f"**{code(found.candidate.version)} is {report.verdict.value}** than {code(found.current.version)}."
        if report.verdict != comparison.Outcome.NO_WORSE
        else f"**{code(found.candidate.version)} is no worse** than {code(found.current.version)}.",
        "\n".join(f"- {ground}" for ground in report.grounds),
        f"The rule: {report.rule}",
        *([f"Reproduce:\n\n```sh\n{command}\n```"] if command else []),
        "## What was compared",
        table(
            ("", "candidate", "current"),
            [
                ("bundle", *(code(side.version) for side in sides)),
                ("manifest SHA-256", *(code(side.manifest_sha256) for side in sides)),
                ("trained on", *(_corpus(side.training_revision) for side in sides)),
                ("corpus SHA-256", *(code(side.corpus_sha256) for side in sides)),
                ("review from", *(f"{side.thresholds.review:.6g}" for side in sides)),
                ("flag from", *(f"{side.thresholds.flag:.6g}" for side in sides)),
            ],
        ),
        f"Rows: {code(frozen.file)}, SHA-256 {code(frozen.sha256)}: {frozen.rows:,}, of which {frozen.trained_on:,} were "
        f"left out because one of the bundles was trained on their very text. Compared are {frozen.positives:,} strict "
        f"positives and {frozen.negatives:,} strict negatives, {frozen.ordinary:,} of them ordinary, of "
        f"{frozen.templates:,} templates. Each bundle searches its own seed examples only, and decides by its own "
        "thresholds.",
        "## Figures",
        f"Intervals are 95 % ones of {found.draws:,} resamples of templates, the same for both bundles; the difference "
        "is in points.",
        table(("figure", "candidate", "current", "difference"), figures),
        "## Decisions",
        table(
            ("strict rows flagged by", "both", "candidate only", "current only", "neither", "McNemar's exact p"),
            [_decisions("positives", found.positives), _decisions("negatives", found.negatives)],
        ),
        "McNemar's test takes rows to be drawn independently; rows of one template are not, so the rule asks for the "
        "interval over templates as well.",
        f"Of {found.ordinary.rows:,} ordinary rows the candidate flags {found.ordinary.candidate:,} "
        f"({percent(found.ordinary.candidate / found.ordinary.rows)}), the current one {found.ordinary.current:,}; the "
        f"budget is {percent(found.ordinary.budget)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _corpus(revision: int | None) -> str:
    return "the seed corpus" if revision is None else f"the example store at revision {revision}"


def _decisions(name: str, found: Decisions) -> tuple[str, ...]:
    counts = (found.both, found.candidate_only, found.current_only, found.neither)
    return (name, *(f"{count:,}" for count in counts), f"{found.p_value:.2g}")


def _interval(found: Estimate) -> Interval:
    return Interval(*(math.nan if part is None else part for part in (found.value, found.low, found.high)))


def _figure(found: Estimate) -> str:
    return UNKNOWN if found.value is None else interval(_interval(found))
