"""The page's building blocks: elements whose text is escaped when they are written, so that no name can be markup."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement

from classifier.batch.charts import Series
from classifier.batch.names import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Cell = str | Element


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its head and the class of its cells ("n": numbers, "id", "time")."""

    head: str
    style: str = ""


def section(parent: Element, title: str, *texts: str, long: bool = False) -> Element:
    """A part of the page with its title and what must be known to read it."""
    made = SubElement(parent, "section", {"class": "long"} if long else {})
    SubElement(made, "h2").text = title
    for text in texts:
        SubElement(made, "p").text = text
    return made


def table(parent: Element, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """A table; where there is no row it says so."""
    around = SubElement(SubElement(parent, "div", {"class": "wide"}), "table")
    head = SubElement(SubElement(around, "thead"), "tr")
    for column in columns:
        SubElement(head, "th", {"class": column.style} if column.style == "n" else {}).text = column.head
    body = SubElement(around, "tbody")
    for cells in rows:
        line = SubElement(body, "tr")
        for column, cell in zip(columns, cells, strict=True):
            made = SubElement(line, "td", {"class": column.style} if column.style else {})
            if isinstance(cell, str):
                made.text = shown(cell, 200)
            else:
                made.append(cell)
    if not len(body):
        SubElement(SubElement(body, "tr"), "td", {"colspan": str(len(columns))}).text = "none"


def legend(parent: Element, series: Iterable[Series], notes: Iterable[str]) -> None:
    """The colours of a chart, with a note to each."""
    around = SubElement(parent, "div", {"class": "legend"})
    for one, note in zip(series, notes, strict=True):
        entry = SubElement(around, "span")
        box = SubElement(entry, "svg", {"viewBox": "0 0 10 10", "aria-hidden": "true"})
        SubElement(box, "rect", {"class": one.style, "width": "10", "height": "10", "rx": "2"})
        SubElement(entry, "span").text = f"{one.name} {note}"


def name(text: str, most: int = 64) -> Element:
    """A name from the log, kept from changing the direction of what stands around it."""
    made = Element("bdi")
    made.text = shown(text, most) or "(none)"
    return made


def count(number: float) -> str:
    """A number of requests."""
    return f"{number:,.0f}"


def percent(share: float, digits: int = 2) -> str:
    """A share."""
    return f"{100 * share:.{digits}f} %"


def moment(microseconds: int | None, form: str = "%Y-%m-%d %H:%M") -> str:
    """A time in UTC; one that no calendar holds as a number."""
    if microseconds is None:
        return "no time"
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).strftime(form)
    except OverflowError:
        return f"{microseconds / 1e6:.4g} s after 1970"
