"""Charts as inline SVG: built as elements, so that every text is escaped, and coloured by the page's style."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 940, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 30
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_MOST_LABELS = 8


@dataclass(frozen=True, slots=True)
class Series:
    """A measure over the bins of a chart.

    Attributes:
        name: What it is.
        style: A class of the page's style, which gives the colour.
        values: (bins,).
    """

    name: str
    style: str
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """The bins of a chart.

    Attributes:
        names: For each bin what it is, for its tooltip.
        ticks: Labels, each with its place in bins, from 0 to their number.
    """

    names: Sequence[str]
    ticks: Sequence[tuple[float, str]]


def spread(places: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """As many labels as there is room for, at equal distances."""
    step = ceil(len(places) / _MOST_LABELS) if places else 1
    return list(places[::step])


def columns(series: Sequence[Series], axis: Axis, written: Callable[[float], str], label: str) -> Element:
    """Stacked columns.

    Args:
        series: From the lowest to the highest.
        axis: The bins.
        written: Writes a value.
        label: What is shown, for readers that do not see.

    Returns:
        An svg element.
    """
    total = np.sum([one.values for one in series], axis=0)
    svg, top = _frame(float(total.max(initial=0.0)), axis, written, label, least=1.0)
    step = _PLOT_WIDTH / len(axis.names)
    gap = min(2.0, step * 0.2)
    base = np.zeros(len(axis.names))
    for one in series:
        for place, value in enumerate(one.values.tolist()):
            if value <= 0:
                continue
            high, low = _y((base[place] + value) / top), _y(base[place] / top)
            rect = SubElement(svg, "rect", {"class": one.style})
            _place(rect, x=_LEFT + place * step + gap / 2, y=high, width=step - gap, height=max(0.4, low - high))
            SubElement(rect, "title").text = f"{axis.names[place]}: {one.name} {written(value)}"
        base += one.values
    return svg


def lines(series: Sequence[Series], axis: Axis, written: Callable[[float], str], label: str) -> Element:
    """One line for each series; where a value is no number the line is broken.

    Args:
        series: The lines.
        axis: The bins.
        written: Writes a value.
        label: What is shown, for readers that do not see.

    Returns:
        An svg element.
    """
    highest = max((float(np.nanmax(one.values)) for one in series if np.isfinite(one.values).any()), default=0.0)
    svg, top = _frame(highest, axis, written, label)
    step = _PLOT_WIDTH / len(axis.names)
    for one in series:
        points = [(_LEFT + (place + 0.5) * step, _y(value / top)) for place, value in enumerate(one.values.tolist())]
        path, pen = [], "M"
        for (x, y), value in zip(points, one.values.tolist(), strict=True):
            if not np.isfinite(value):
                pen = "M"
                continue
            path.append(f"{pen}{x:.1f},{y:.1f}")
            pen = "L"
        SubElement(svg, "path", {"class": f"line {one.style}", "d": " ".join(path)})
        for (x, y), value, name in zip(points, one.values.tolist(), axis.names, strict=True):
            if np.isfinite(value):
                dot = SubElement(svg, "circle", {"class": one.style, "r": "2.2", "cx": f"{x:.1f}", "cy": f"{y:.1f}"})
                SubElement(dot, "title").text = f"{name}: {one.name} {written(value)}"
    return svg


def marks(svg: Element, places: Sequence[tuple[float, str, str]], bins: int) -> None:
    """Draw upright lines into a chart.

    Args:
        svg: The chart.
        places: For each, from left to right, its place in bins, its name, and its class; the last one's name stands to
            its right, the others' to their left.
        bins: How many bins the chart has.
    """
    for number, (place, name, style) in enumerate(places, start=1):
        x = _LEFT + _PLOT_WIDTH * place / bins
        line = {"class": f"mark {style}", "x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": f"{_TOP}", "y2": f"{_y(0):.1f}"}
        SubElement(svg, "line", line)
        aside, anchor = (5, "start") if number == len(places) else (-5, "end")
        at = {"class": "label", "x": f"{x + aside:.1f}", "y": f"{_TOP + 11}", "text-anchor": anchor}
        SubElement(svg, "text", at).text = name


def interval(share: float, low: float, high: float) -> Element:
    """A small bar of a share with its interval."""
    svg = Element("svg", {"class": "interval", "viewBox": "0 0 104 12", "role": "img", "aria-label": "its interval"})
    for style, x, y, width, height in (
        ("rail", 2.0, 5.0, 100.0, 2.0),
        ("flag", 2.0, 3.0, 100 * share, 6.0),
        ("whisker", 2 + 100 * low, 5.5, 100 * (high - low), 1.0),
        ("whisker", 2 + 100 * low - 0.5, 2.0, 1.0, 8.0),
        ("whisker", 2 + 100 * high - 0.5, 2.0, 1.0, 8.0),
    ):
        _place(SubElement(svg, "rect", {"class": style}), x=x, y=y, width=width, height=height)
    return svg


def _frame(
    highest: float, axis: Axis, written: Callable[[float], str], label: str, *, least: float = 0.0
) -> tuple[Element, float]:
    """The chart without its data, and the value at its upper end."""
    svg = Element("svg", {"class": "chart", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": label})
    step = max(least, _step(highest))
    ticks = max(1, ceil(highest / step - 1e-9))
    for tick in range(ticks + 1):
        y = _y(tick / ticks)
        SubElement(
            svg,
            "line",
            {"class": "grid", "x1": f"{_LEFT}", "x2": f"{WIDTH - _RIGHT}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"},
        )
        at = {"class": "label", "x": f"{_LEFT - 6}", "y": f"{y + 4:.1f}", "text-anchor": "end"}
        SubElement(svg, "text", at).text = written(tick * step)
    for place, name in axis.ticks:
        x = _LEFT + _PLOT_WIDTH * place / len(axis.names)
        tick_line = {
            "class": "grid",
            "x1": f"{x:.1f}",
            "x2": f"{x:.1f}",
            "y1": f"{_y(0):.1f}",
            "y2": f"{_y(0) + 5:.1f}",
        }
        SubElement(svg, "line", tick_line)
        at = {"class": "label", "x": f"{x:.1f}", "y": f"{HEIGHT - 8}", "text-anchor": "middle" if place else "start"}
        SubElement(svg, "text", at).text = name
    return svg, ticks * step


def _step(highest: float) -> float:
    """The distance of ticks: 1, 2 or 5 times a power of ten, for four to eight of them."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** floor(log10(highest / 4))
    return power * max(one for one in (1, 2, 5) if one * power <= highest / 4 or one == 1)


def _y(share: float) -> float:
    return _TOP + _PLOT_HEIGHT * (1.0 - share)


def _place(element: Element, **numbers: float) -> None:
    for name, value in numbers.items():
        element.set(name, f"{value:.2f}")
