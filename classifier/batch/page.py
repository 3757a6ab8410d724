"""The summary of a run as one HTML page that needs nothing else: no script, no font, no network."""

from collections.abc import Mapping, Sequence
from importlib import resources
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from classifier.batch import charts
from classifier.batch.charts import Axis, Series
from classifier.batch.elements import Cell, Column, count, legend, moment, name, percent, section, table
from classifier.batch.manifest import Counts, RunManifest
from classifier.batch.names import shown
from classifier.batch.rankings import add_rankings
from classifier.batch.summary import DECISIONS, EDGES, TARGETED, Summary
from classifier.batch.timeline import DAY, HOUR, MINUTE, Bins

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MOST_INPUTS = 50
_ODDS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
_STACK = ("flag", "review", "abstain", "allow")


def page(manifest: RunManifest, summary: Summary) -> bytes:
    """Write the page of a run.

    Args:
        manifest: The run's; only its versions, settings and calls are taken from it.
        summary: The run's sums.

    Returns:
        HTML in UTF-8. It holds no prompt, and names from the log only as escaped text.
    """
    html = Element("html", {"lang": "en"})
    head = SubElement(html, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width"})
    SubElement(head, "meta", {"name": "referrer", "content": "no-referrer"})
    SubElement(head, "title").text = "Stillwatch: logs scored again"
    SubElement(head, "style").text = resources.files("classifier.batch").joinpath("page.css").read_text("utf-8")
    body = SubElement(html, "body")
    _headline(body, manifest, summary)
    _over_time(body, summary)
    _scores(body, manifest, summary)
    add_rankings(body, summary)
    _unscored(body, summary)
    _inputs(body, summary)
    _origin(body, manifest)
    text: str = tostring(html, encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{text}\n".encode()


def _headline(body: Element, manifest: RunManifest, summary: Summary) -> None:
    counts = summary.counts
    SubElement(body, "h1").text = "Logs scored again"
    state = "" if manifest.state == "done" else f" The run is {manifest.state}: not all of the input is in here."
    SubElement(body, "p").text = (
        f"Stillwatch {shown(manifest.stillwatch)}, bundle {shown(manifest.bundle_version)}, index revision "
        f"{manifest.index_revision}, written {manifest.sessions[-1].ended:%Y-%m-%d %H:%M} UTC.{state}"
    )
    cards = SubElement(body, "div", {"class": "cards"})
    _card(
        cards, "", count(counts.read), f"read from {count(len(summary.inputs))} input{'s' * (len(summary.inputs) != 1)}"
    )
    _card(cards, "", count(counts.scored), f"scored, {count(counts.repeats)} of them repeats")
    for decision in ("flag", "review", "allow", "abstain"):
        number = counts.decisions.get(decision, 0)
        _card(cards, decision, count(number), f"{decision}, {percent(number / max(1, counts.scored))} of the scored")
    _card(cards, "", count(counts.rejected), f"rejected, {percent(counts.rejected / max(1, counts.read))} of the read")
    if counts.skipped:
        _card(cards, "", count(counts.skipped), "skipped by sample or condition")


def _card(cards: Element, style: str, number: str, text: str) -> None:
    card = SubElement(cards, "div", {"class": f"card {style}".strip()})
    SubElement(card, "b").text = number
    SubElement(card, "span").text = text


def _over_time(body: Element, summary: Summary) -> None:
    bins = summary.timeline
    if bins is None:
        section(body, "Over time", "No scored request has a time, so there is nothing to show over time.")
        return
    axis, width = _axis(bins), _width(bins.width)
    left_out = f"{count(summary.untimed)} requests have no time" if summary.untimed else ""
    if bins.outside:
        left_out += f"{'; ' if left_out else ''}{count(bins.outside)} lie far outside of the time that is shown"
    note = f"Requests {width}, UTC." + (f" Not shown: {left_out}." if left_out else "")
    decisions = {one: Series(one, one, bins.counts[:, number].astype(float)) for number, one in enumerate(DECISIONS)}
    stacked = [decisions[one] for one in _STACK]
    made = section(body, "Decisions over time", note)
    made.append(charts.columns(stacked, axis, count, "requests over time by decision"))
    legend(made, stacked, _totals(stacked))
    made = section(body, "Flagged and reviewed over time", "The same without the allowed ones, on a scale of its own.")
    made.append(charts.columns(stacked[:2], axis, count, "flagged and reviewed requests over time"))
    legend(made, stacked[:2], _totals(stacked[:2]))
    _techniques(body, summary, bins, axis)
    _capabilities(body, summary, bins, axis)


def _techniques(body: Element, summary: Summary, bins: Bins, axis: Axis) -> None:
    first = len(DECISIONS)
    series = [
        Series(shown(one), f"c{number % 10}", bins.counts[:, first + number].astype(float))
        for number, one in enumerate(summary.techniques)
    ]
    series = [one for one in series if one.values.any()]
    made = section(body, "Techniques over time", "The technique that fits best, of flagged and reviewed requests.")
    made.append(charts.columns(series, axis, count, "flagged and reviewed requests over time by technique"))
    legend(made, series, _totals(series))


def _capabilities(body: Element, summary: Summary, bins: Bins, axis: Axis) -> None:
    first = len(DECISIONS) + len(summary.techniques)
    judged = bins.counts[:, :first].copy()
    judged = judged[:, [DECISIONS.index(one) for one in ("allow", "review", "flag")]].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        series = [
            Series(shown(one), f"c{number % 10}", bins.counts[:, first + number] / judged)
            for number, one in enumerate(summary.capabilities)
        ]
    text = f"The share of judged requests that target a capability (probability from {TARGETED}), whoever asks."
    made = section(body, "Capabilities over time", text)
    made.append(charts.lines(series, axis, lambda share: percent(share, 1), "capabilities over time"))
    legend(made, series, ["" for _ in series])


def _scores(body: Element, manifest: RunManifest, summary: Summary) -> None:
    text = (
        "Judged requests by extraction probability, on a scale of log-odds. The thresholds are those of the run; the rows "
        "keep the raw scores, so others can be tried without scoring again."
    )
    made = section(body, "Scores", text)
    edges = [f"probability {1 / (1 + np.exp(-low)):.3g} to {1 / (1 + np.exp(-low - 0.25)):.3g}" for low in EDGES[:-1]]
    axis = Axis(edges, [(_place_of(one), f"{100 * one:g} %") for one in _ODDS])
    bars = [Series("requests", "plain", summary.histogram.astype(float))]
    chart = charts.columns(bars, axis, count, "histogram of extraction probabilities")
    named = [(_place_of(manifest.thresholds[one]), one) for one in ("review", "flag")]
    marks = [(place, f"{one} from {manifest.thresholds[one]:.3f}", one) for place, one in named]
    charts.marks(chart, marks, len(edges))
    made.append(chart)
    pair = SubElement(body, "div", {"class": "pair"})
    made = section(pair, "Techniques", "Of flagged and reviewed requests.")
    rows = [(one, count(flag), count(review)) for one, (flag, review) in _most_first(summary.techniques)]
    table(made, (Column("technique"), Column("flagged", "n"), Column("reviewed", "n")), rows)
    made = section(pair, "Capabilities", f"Requests with a probability from {TARGETED}.")
    rows = [(one, count(judged), count(flag)) for one, (judged, flag) in _most_first(summary.capabilities)]
    table(made, (Column("capability"), Column("judged", "n"), Column("of them flagged", "n")), rows)


def _unscored(body: Element, summary: Summary) -> None:
    pair = SubElement(body, "div", {"class": "pair"})
    made = section(pair, "Not judged", "Requests that abstain, by reason. Their scores mean nothing.")
    rows = [(one, count(number)) for one, number in sorted(summary.abstentions.items(), key=_by_number)]
    table(made, (Column("reason"), Column("requests", "n")), rows)
    made = section(
        pair, "Rejected", "Rows that could not be scored, by reason; the folder rejects says where they are."
    )
    rows = [(one, count(number)) for one, number in sorted(summary.counts.rejects.items(), key=_by_number)]
    table(made, (Column("reason"), Column("rows", "n")), rows)


def _inputs(body: Element, summary: Summary) -> None:
    ordered = sorted(summary.inputs.items(), key=lambda one: (-one[1].decisions.get("flag", 0), one[0]))
    rest = ordered[_MOST_INPUTS:]
    text = f"The {_MOST_INPUTS} with the most flagged requests of {count(len(ordered))}." if rest else ""
    made = section(body, "Inputs", *([text] if text else []), long=True)
    heads = (Column("input"), Column("read", "n"), Column("scored", "n"), Column("rejected", "n"))
    rows: list[tuple[Cell, ...]] = [(name(one, 100), *_input(own)) for one, own in ordered[:_MOST_INPUTS]]
    table(made, (*heads, Column("reviewed", "n"), Column("flagged", "n"), Column("share flagged", "n")), rows)


def _input(own: Counts) -> tuple[str, ...]:
    flagged = own.decisions.get("flag", 0)
    numbers = (own.read, own.scored, own.rejected, own.decisions.get("review", 0), flagged)
    return (*map(count, numbers), percent(flagged / max(1, own.scored)))


def _origin(body: Element, manifest: RunManifest) -> None:
    made = section(body, "What made this", "All of it decides what a row's output is, but for the calls.", long=True)
    rows: list[tuple[str, Element]] = [
        ("fingerprint", name(manifest.fingerprint)),
        ("stillwatch", name(manifest.stillwatch)),
    ]
    rows += [(key, name(str(value), 200)) for key, value in manifest.identity.items()]
    for session in manifest.sessions[-10:]:
        seconds = (session.ended - session.started).total_seconds()
        text = f"{session.started:%Y-%m-%d %H:%M} UTC, {seconds:,.0f} s, {count(session.read)} rows, {session.state}"
        rows.append(("call", name(text, 200)))
    table(made, (Column("what"), Column("value")), rows)


def _most_first(pairs: Mapping[str, tuple[int, int]]) -> list[tuple[str, tuple[int, int]]]:
    return sorted(pairs.items(), key=lambda one: (*(-number for number in one[1]), one[0]))


def _by_number(one: tuple[str, int]) -> tuple[int, str]:
    return -one[1], one[0]


def _totals(series: Sequence[Series]) -> list[str]:
    return [count(one.values.sum()) for one in series]


def _place_of(probability: float) -> float:
    inside = min(max(probability, 1e-9), 1 - 1e-9)
    odds = float(np.log(inside / (1 - inside)))
    return float(np.clip((odds - EDGES[0]) / (EDGES[1] - EDGES[0]), 0, len(EDGES) - 1))


def _axis(bins: Bins) -> Axis:
    starts = [bins.start + place * bins.width for place in range(len(bins.counts))]
    names = [moment(one, "%Y-%m-%d %H:%M") for one in starts]
    days = [(float(place), moment(one, "%d %b %Y")) for place, one in enumerate(starts) if one % DAY == 0]
    hours = [(float(place), moment(one, "%d %b %H:%M")) for place, one in enumerate(starts)]
    return Axis(names, charts.spread(days if len(days) > 4 else hours))


def _width(width: int) -> str:
    for unit, text in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if width >= unit:
            return f"per {text}" if width == unit else f"per {width // unit:,} {text}s"
    raise ValueError("no bin is narrower than a minute")
