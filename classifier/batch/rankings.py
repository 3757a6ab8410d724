"""The page's tables of the accounts and templates that stand out."""

from xml.etree.ElementTree import Element

from classifier.batch import charts
from classifier.batch.elements import Column, count, moment, name, percent, section, table
from classifier.batch.groups import Group
from classifier.batch.summary import LEAST_ROWS, LISTED, Summary, Top
from classifier.batch.template import template

_NO_WORDS = template("")


def add_rankings(body: Element, summary: Summary) -> None:
    """Add the tables of a run's accounts and templates to its page.

    Args:
        body: The page's body.
        summary: The run's sums.
    """
    nameless = f" {count(summary.nameless)} requests name no account." if summary.nameless else ""
    note = "Shares are of an account's scored requests, with Wilson's 95 % interval."
    _accounts(body, "Accounts with the most flagged requests", note + nameless, summary.accounts_by_flagged)
    text = (
        f"Accounts with at least {LEAST_ROWS} requests, by the lower limit of the interval, so that few requests do not come "
        "first by chance."
    )
    _accounts(body, "Accounts with the highest flagged share", text, summary.accounts_by_share)
    text = (
        "A template is a fingerprint that prompts share which fill the slots of one frame differently. The request is the one "
        "with the highest score: look its id up in your own log to read the prompt."
    )
    _templates(body, "Templates with the most flagged requests", text, summary.templates_by_flagged, "flagged")
    text = "The largest templates, flagged or not: a campaign may hide in what is allowed."
    _templates(body, "Templates with the most requests", text, summary.templates_by_rows, "rows")


def _accounts(body: Element, title: str, text: str, top: Top) -> None:
    made = section(body, title, text + _missing(top, "accounts", "flagged"), long=True)
    heads = (
        Column("account"),
        Column("requests", "n"),
        Column("flagged", "n"),
        Column("reviewed", "n"),
        Column("share flagged", "n"),
        Column(""),
        Column("templates", "n"),
        Column("technique", "word"),
        Column("first seen", "time"),
        Column("last seen", "time"),
    )
    rows = []
    for group in top.groups:
        low, high = (f"{100 * one:.1f}" for one in group.interval)
        cells = (
            name(group.key, 40),
            count(group.rows),
            count(group.flagged),
            count(group.decisions["review"]),
            f"{percent(group.share, 1)} ({low} to {high})",
            charts.interval(group.share, *group.interval),
            _others(group),
            group.technique,
            moment(group.first),
            moment(group.last),
        )
        rows.append(cells)
    table(made, heads, rows)


def _templates(body: Element, title: str, text: str, top: Top, measure: str) -> None:
    made = section(body, title, text + _missing(top, "templates", measure), long=True)
    heads = (
        Column("template", "id"),
        Column("requests", "n"),
        Column("accounts", "n"),
        Column("flagged", "n"),
        Column("share flagged", "n"),
        Column("technique", "word"),
        Column("first seen", "time"),
        Column("last seen", "time"),
        Column("a request"),
    )
    rows = []
    for group in top.groups:
        file, row, request = group.example
        example = name(request, 40) if request else name(f"{file}, row {row}")
        key = f"{group.key} (no words)" if group.key == _NO_WORDS else group.key
        cells = (
            name(key),
            count(group.rows),
            _others(group),
            count(group.flagged),
            percent(group.share, 1),
            group.technique,
            moment(group.first),
            moment(group.last),
            example,
        )
        rows.append(cells)
    table(made, heads, rows)


def _others(group: Group) -> str:
    return f"{'' if group.others.is_exact else '≈ '}{count(group.others.count)}"


def _missing(top: Top, what: str, measure: str) -> str:
    held = f" {count(len(top.groups))} of {count(top.total)} {what} are shown." if top.total > LISTED else ""
    most = top.unseen[measure]
    if not top.unseen["rows"]:
        return held
    return (
        f" There are more {what} than are held in memory: the figures shown are exact, but one with at most {count(most)} "
        f"{'flagged requests' if measure == 'flagged' else 'requests'} may be missing."
    )
