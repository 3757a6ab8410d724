"""The command line's verbs for a running server: status and reload."""

from typing import TYPE_CHECKING, Annotated

import typer

from classifier.console import console
from classifier.options import ServerCommand

if TYPE_CHECKING:
    from stillwatch.v1 import admin_pb2

_RELOAD_TIMEOUT = 600.0
"""Seconds: with a new encoder the examples are encoded again, beside the traffic."""

ServerOption = Annotated[str, typer.Option("--server", help="The server (host:port).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verbs of this module."""
    app.command(cls=ServerCommand)(status)
    app.command(cls=ServerCommand)(reload)


def status(server: ServerOption, json: JsonOption = False) -> None:
    """Say what a server works with: bundle, examples, thresholds, and what came of its last reload."""
    from classifier.client import Client

    with Client(server) as client:
        found = client.get_status()
    if json:
        from classifier.terminal import as_json

        typer.echo(as_json(found))
        return
    rows = [
        ("server", f"stillwatch {found.server_version}, up {_clock(found.uptime.seconds)}"),
        ("bundle", found.provenance.bundle_version),
        ("examples", f"{found.extraction_examples:,} extraction, {found.benign_examples:,} benign"),
        ("index revision", str(found.provenance.index_revision)),
        ("review from", f"{found.provenance.review_threshold:.6g}"),
        ("flag from", f"{found.provenance.flag_threshold:.6g}"),
        ("reloads", f"{found.reloads} swapped, {found.refused_reloads} refused"),
    ]
    if found.HasField("last_reload"):
        rows += _rows(found.last_reload)
    if found.reload_in_progress:
        rows.append(("now", "a reload is under way"))
    _print(rows)


def reload(server: ServerOption, json: JsonOption = False) -> None:
    """Make a server take over the current bundle, examples and settings; an unsound bundle is refused."""
    from classifier.client import Client

    with Client(server, timeout=_RELOAD_TIMEOUT) as client:
        found = client.reload()
    if json:
        from classifier.terminal import as_json

        typer.echo(as_json(found))
    else:
        _print([("bundle", found.report.bundle_version), *_rows(found.report)])


def _rows(report: "admin_pb2.ReloadReport") -> list[tuple[str, str]]:
    from stillwatch.v1 import admin_pb2

    outcome = admin_pb2.ReloadOutcome.Name(report.outcome).removeprefix("RELOAD_OUTCOME_").lower()
    trigger = admin_pb2.ReloadTrigger.Name(report.trigger).removeprefix("RELOAD_TRIGGER_").lower()
    seconds = report.duration.ToTimedelta().total_seconds()
    when = report.start_time.ToJsonString()
    rows = [("last reload", f"{outcome}, by {trigger}, at {when}, in {seconds:.2f} s")]
    if report.message:
        rows.append(("refused", f"{report.reason}: {report.message}"))
    if report.moved_canaries:
        names = ", ".join(report.moved_canaries)
        rows.append(("warning", f"added examples turn clear prompts to the wrong side ({names}): look for mislabelled"))
    if report.needs_restart:
        rows.append(("at restart", f"changed settings that are only read at start: {', '.join(report.needs_restart)}"))
    return rows


def _print(rows: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    console().print(table)


def _clock(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02}:{minutes:02}:{seconds:02}" if days else f"{hours:02}:{minutes:02}:{seconds:02}"
