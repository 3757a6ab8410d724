"""From windows to a prompt: which view and window speak for it, and where that window stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier.text import source_span
from classifier.verdict import Extent, Inspection, LabelScore
from classifier.views import Prepared
from classifier.windows import Window, covered

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pooling:
    """How the extraction logits of many windows become one.

    Attributes:
        length_penalty: What each unit of ln(windows) takes from a prompt; 0 in the default bundle (decision 0008).
        finer_offset: Taken from the logits of the finer windows, so that benign ones reach only a little higher than others.
    """

    length_penalty: float = 0.0
    finer_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Strongest:
    """The view of a prompt with the highest extraction score.

    Attributes:
        view: Its number.
        window: The window of either scale that speaks for it; of equal ones the finer.
        row: That window's row among all of the prompt's windows.
        totals: The view's logits, extraction first.
        as_sent: The extraction logit of the first view.
    """

    view: int
    window: Window
    row: int
    totals: list[float]
    as_sent: float


def aggregate(logits: Floats, windows: int, pooling: Pooling) -> Floats:
    """Bring the windows' logits to the prompt's.

    Extraction takes the highest window of both scales: what is buried in a long prompt must not be diluted by what
    surrounds it, and while a harvest scaffold shows best in a long window, a buried sentence does in a short one. The
    highest of many is higher by chance, for which a bundle may set a penalty. Techniques and capabilities are the whole
    prompt's, and take the middle between the highest and the mean of the long windows.

    Args:
        logits: (windows + finer windows, labels) float32, extraction first.
        windows: How many of them are of the first scale.
        pooling: How extraction's are brought together.

    Returns:
        (labels,) float32.
    """
    long, short = logits[:windows], logits[windows:, 0]
    highest = long.max(axis=0)
    found = 0.5 * (highest + long.mean(axis=0))
    extraction = max(highest[0], short.max() - pooling.finer_offset) if len(short) else highest[0]
    found[0] = extraction - pooling.length_penalty * math.log(windows)
    return np.asarray(found, np.float32)


def strongest_view(prompt: Prepared, logits: Floats, pooling: Pooling) -> Strongest:
    """Find the view that speaks for a prompt.

    Args:
        prompt: The prompt.
        logits: (windows, labels) float32 of all its views, in order.
        pooling: How extraction's are brought together.

    Returns:
        The view with the highest extraction logit.
    """
    found: list[Strongest] = []
    row = 0
    for number, view in enumerate(prompt.views):
        own = logits[row : row + view.count]
        totals = aggregate(own, len(view.windows), pooling).tolist()
        scores = own[:, 0].copy()
        scores[len(view.windows) :] -= pooling.finer_offset
        place = len(scores) - 1 - int(scores[::-1].argmax())
        window = (*view.windows, *view.finer)[place]
        found.append(Strongest(number, window, row + place, totals, found[0].totals[0] if found else totals[0]))
        row += view.count
    return max(found, key=lambda candidate: candidate.totals[0])


def inspection(prompt: Prepared, strongest: Strongest, *, judged: bool) -> Inspection:
    """How much of a prompt was read, and where its strongest window stands in the original text.

    Args:
        prompt: The prompt.
        strongest: Which view and window.
        judged: False where the scorer abstains: then nothing counts as inspected.

    Returns:
        The inspection. The span of an undisguised view is the whole text, because undoing a disguise moves everything.
    """
    view, window = prompt.views[strongest.view], strongest.window
    total, spans = len(view.tokens.ids), view.tokens.spans
    first, last = 0, len(prompt.text)
    if strongest.view == 0 and view.count > 1:
        first, last = spans[window.start][0], spans[window.end - 1][1]
        if prompt.text != view.text:
            first, last = source_span(prompt.text, first, last, len(view.text))
    read = max(covered(view.windows), covered(view.finer))
    extent = (Extent.FULL if read == total else Extent.PARTIAL) if judged else Extent.NONE
    return Inspection(extent, read, total, view.count, (first, last))


def distribution(names: Sequence[str], logits: Sequence[float]) -> tuple[LabelScore, ...]:
    """Logits of labels that exclude each other, as probabilities that add up to 1, highest first."""
    if not names:
        return ()
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    found = (LabelScore(name, weight / total) for name, weight in zip(names, weights, strict=True))
    return tuple(sorted(found, key=lambda score: -score.probability))
