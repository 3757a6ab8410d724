"""An evaluation on paper: JSON, Markdown, a ROC picture and a reliability picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from classifier.train.evaluate import HARD, MODEL, Evaluation
from classifier.train.metrics import Interval, Ranking, Scores, Truth

mpl.use("Agg")
_COLOURS = {MODEL: "#0b6e4f", "TF-IDF": "#c8553d", "keywords": "#8a6fb0", "length": "#8d99ae"}


def write_report(evaluation: Evaluation, folder: Path, *, name: str = "evaluation", command: str = "") -> list[Path]:
    """Write <name>.json, <name>.md, <name>-roc.png and <name>-reliability.png.

    Args:
        evaluation: The figures.
        folder: Where to write.
        name: How the files begin.
        command: What reproduces the report.

    Returns:
        The files, Markdown last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}{end}" for end in (".json", "-roc.png", "-reliability.png", ".md")]
    files[0].write_text(json.dumps(evaluation.as_json(), indent=2) + "\n", encoding="utf-8")
    _roc(evaluation, files[1])
    _reliability(evaluation, files[2])
    files[3].write_text(markdown(evaluation, name, command), encoding="utf-8")
    return files


def markdown(evaluation: Evaluation, name: str, command: str) -> str:
    """The report as Markdown.

    Args:
        evaluation: The figures.
        name: How the pictures' files begin.
        command: What reproduces the report.

    Returns:
        The text.
    """
    review, flag = evaluation.thresholds
    sections = [
        "# Evaluation",
        f"Bundle `{evaluation.bundle}`, index revision {evaluation.revision}, {evaluation.rows:,} rows, of which "
        f"{evaluation.strict_rows:,} count for extraction (rows whose text alone may not show the label are left out "
        "and reported apart). Intervals are 95 % bootstrap intervals over templates, not rows.",
        *([f"Reproduce:\n\n```sh\n{command}\n```"] if command else []),
        "## Extraction, strict rows",
        _table(
            ("scorer", "AUROC", "recall at 1 % FPR", "recall at 0.1 % FPR"),
            [(which, *map(_interval, found)) for which, found in evaluation.extraction.items()],
        ),
        f"![ROC curves]({name}-roc.png)",
        "With the weak rows in: " + _sentence(evaluation.extraction_weak) + ".",
        f"Calibration error (ECE, 15 bins) on strict rows: {evaluation.calibration_error:.3f}.",
        f"![Reliability]({name}-reliability.png)",
        "## Capabilities, strict rows",
        _table(
            ("scorer", "macro AUROC", "macro AP"),
            [(which, *(f"{v:.3f}" for v in found)) for which, found in evaluation.capability_macro.items()],
        ),
        _table(
            ("capability", "AUROC", "AP"),
            [(which, *map(_interval, found)) for which, found in evaluation.capabilities.items()],
        ),
        "## False positives at the thresholds in force",
        f"Review from {review:.3f}, flag from {flag:.3f}. Of all strict negatives, "
        f"{_interval(evaluation.false_positives[0])} are reviewed or flagged and "
        f"{_interval(evaluation.false_positives[1])} flagged. Flagged of the ordinary groups: "
        + ", ".join(
            f"{group} {evaluation.flagged_hard[group]:.1%}" for group in HARD if group in evaluation.flagged_hard
        )
        + ".",
        "In the tables below, *over 1 % threshold* is the share of rows above the threshold that 1 % of all strict "
        "negatives exceed: recall for harvest sources, false positives for the others.",
        "## Groups",
        _rows(evaluation.groups),
        "## Languages",
        _rows(evaluation.languages),
        "## Sources",
        _rows(evaluation.sources),
    ]
    return "\n\n".join(sections) + "\n"


def _rows(rows: Sequence[Mapping[str, object]]) -> str:
    heads = ("name", "rows", "extraction", "strict", "median probability", "over 1 % threshold", "review+", "flag")
    keys = ("median_probability", "over_one_percent", "reviewed", "flagged")
    return _table(
        heads,
        [
            (
                *(str(row[k]) for k in ("name", "rows", "extraction", "strict")),
                f"{row[keys[0]]:.3f}",
                *(f"{row[k]:.1%}" for k in keys[1:]),
            )
            for row in rows
        ],
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _interval(found: Interval) -> str:
    return "n/a" if np.isnan(found.value) else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _sentence(found: Sequence[Interval]) -> str:
    names = ("AUROC", "recall at 1 % FPR", "recall at 0.1 % FPR")
    return ", ".join(f"{name} {_interval(value)}" for name, value in zip(names, found, strict=True))


def _roc(evaluation: Evaluation, path: Path) -> None:
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, scores in {MODEL: evaluation.probabilities, **evaluation.baselines}.items():
        curve = Ranking(scores, evaluation.truth).curve(np.ones(len(scores)))
        area = evaluation.extraction[name][0].value
        axes.plot(
            np.maximum(curve.false_positives, 1e-4),
            curve.true_positives,
            label=f"{name} (AUROC {area:.3f})",
            color=_COLOURS[name],
            linewidth=2.4 if name == MODEL else 1.4,
        )
    axes.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1.01), xlabel="false-positive rate", ylabel="recall")
    axes.set_title("Extraction, strict rows")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)


def _reliability(evaluation: Evaluation, path: Path, bins: int = 15) -> None:
    confidence, frequency, counts = _binned(evaluation.probabilities, evaluation.truth, bins)
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="perfect")
    top.plot(confidence, frequency, marker="o", color=_COLOURS[MODEL], label=MODEL)
    top.set(ylabel="share that is extraction", ylim=(-0.02, 1.02), title="Reliability, strict rows")
    top.grid(visible=True, alpha=0.3)
    top.legend(frameon=False)
    bottom.bar((np.arange(bins) + 0.5) / bins, counts, width=0.9 / bins, color="#8d99ae")
    bottom.set(yscale="log", xlabel="extraction probability", ylabel="rows", xlim=(0, 1))
    figure.savefig(path, dpi=110)


def _binned(probability: Scores, truth: Truth, bins: int) -> tuple[list[float], list[float], list[int]]:
    which = np.minimum((probability * bins).astype(int), bins - 1)
    held = [number for number in range(bins) if (which == number).any()]
    confidence = [float(probability[which == number].mean()) for number in held]
    frequency = [float(truth[which == number].mean()) for number in held]
    return confidence, frequency, np.bincount(which, minlength=bins).tolist()
