"""Pictures of an evaluation: ROC curves, reliability, and a histogram of scores."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from classifier.train.evaluate import MODEL, Evaluation
from classifier.train.judged import share
from classifier.train.metrics import Ranking, Scores

mpl.use("Agg")
_COLOURS = {MODEL: "#0b6e4f", "TF-IDF": "#c8553d", "keywords": "#8a6fb0", "length": "#8d99ae"}
_POSITIVE, _NEGATIVE, _FAINT, _INK = "#c8553d", "#3d6b99", "#8d99ae", "#333333"
_DPI = 120


def draw_roc(evaluation: Evaluation, path: Path) -> None:
    """Draw the ROC curves of the model and the baselines, false positives on a logarithmic scale.

    Args:
        evaluation: The figures.
        path: The PNG to write.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    plotted = evaluation.plotted
    for rate in (0.01, 0.001):
        axes.axvline(rate, color=_FAINT, linewidth=1, linestyle=":")
    for name, scores in {MODEL: plotted.logits, **plotted.baselines}.items():
        curve = Ranking(scores, plotted.truth).curve(np.ones(len(scores)))
        axes.plot(
            np.maximum(curve.false_positives, 1e-5),
            curve.true_positives,
            label=f"{name} (AUROC {evaluation.extraction[name][0].value:.3f})",
            color=_COLOURS.get(name, _INK),
            linewidth=2.4 if name == MODEL else 1.4,
            drawstyle="steps-post",
        )
    axes.set(xscale="log", xlim=(3e-4, 1), ylim=(0, 1.01), xlabel="false-positive rate", ylabel="recall")
    axes.set_title("Extraction, strict rows: recall against false positives", loc="left")
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False, loc="upper left")
    _plain(axes)
    figure.savefig(path, dpi=_DPI)


def draw_reliability(evaluation: Evaluation, path: Path, bins: int = 15) -> None:
    """Draw how often rows of each probability are extraction, with how many rows there are.

    Args:
        evaluation: The figures.
        path: The PNG to write.
        bins: How many bins of equal width.
    """
    probability, truth = evaluation.plotted.probabilities, evaluation.plotted.truth
    which = np.minimum((probability * bins).astype(int), bins - 1)
    held = [number for number in range(bins) if (which == number).any()]
    confidence = [float(probability[which == number].mean()) for number in held]
    shares = [share(truth[which == number]) for number in held]
    frequency = np.array([found.value for found in shares])
    errors = np.abs(np.array([[found.low, found.high] for found in shares]).reshape(-1, 2).T - frequency)
    figure = Figure(figsize=(7.5, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=_FAINT, linestyle="--", linewidth=1, label="perfectly calibrated")
    top.errorbar(
        confidence, frequency, errors, marker="o", color=_COLOURS[MODEL], capsize=2, linewidth=1.6, label=MODEL
    )
    top.set(ylabel="share that is extraction", ylim=(-0.02, 1.02))
    error = evaluation.selections[0].calibration_error.value
    top.set_title(f"Reliability, strict rows (ECE {error:.3f})", loc="left")
    top.legend(frameon=False, loc="upper left")
    bottom.bar((np.arange(bins) + 0.5) / bins, np.bincount(which, minlength=bins), width=0.9 / bins, color=_FAINT)
    bottom.set(yscale="log", xlabel="extraction probability", ylabel="rows", xlim=(0, 1), ylim=(0.8, None))
    _plain(top)
    _plain(bottom)
    figure.savefig(path, dpi=_DPI)


def draw_histogram(evaluation: Evaluation, path: Path, bins: int = 60) -> None:
    """Draw how the raw scores of positives and negatives are spread, rows on a logarithmic scale.

    Args:
        evaluation: The figures.
        path: The PNG to write.
        bins: How many bins of equal width.
    """
    plotted = evaluation.plotted
    logits, truth = plotted.logits, plotted.truth
    edges = np.linspace(logits.min(), max(logits.max(), logits.min() + 1e-6), bins + 1).tolist()
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, part, colour in (("negatives", ~truth, _NEGATIVE), ("positives", truth, _POSITIVE)):
        label = f"{name} ({int(part.sum()):,})"
        axes.hist(logits[part], edges, histtype="stepfilled", color=colour, alpha=0.35, label=label)
        axes.hist(logits[part], edges, histtype="step", color=colour, linewidth=1.4)
    axes.set(yscale="log", xlabel="raw extraction logit", ylabel="rows", ylim=(0.8, None))
    axes.margins(x=0.01)
    top = axes.get_ylim()[1]
    axes.set_ylim(0.8, top * 12)
    marks = [("1 % FPR", evaluation.cuts[0]), ("0.1 % FPR", evaluation.cuts[1])]
    marks.append(("flag", _first_over(plotted.probabilities, logits, evaluation.thresholds[1])))
    for height, (name, place) in enumerate(marks):
        if np.isfinite(place):
            axes.axvline(place, ymax=0.97, color=_INK, linewidth=1, linestyle="-" if name == "flag" else ":")
            axes.annotate(
                name,
                (place, top * 8 / 2.4**height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8.5,
                color=_INK,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
            )
    axes.set_title("Extraction scores, strict rows", loc="left")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    _plain(axes)
    figure.savefig(path, dpi=_DPI)


def _first_over(probabilities: Scores, logits: Scores, threshold: float) -> float:
    """The lowest logit whose probability reaches a threshold."""
    over = logits[probabilities >= threshold]
    return float(over.min()) if len(over) else float("nan")


def _plain(axes: Axes) -> None:
    axes.grid(visible=True, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
