"""The command line's verbs that bring examples in and out: examples import, examples export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classifier.acting import ActorOption, actor_of, label_of, state_of
from classifier.console import read_settings, say
from classifier.options import JsonOption, ServerCommand, ServerOption
from index.example import State

if TYPE_CHECKING:
    from classifier.transfer.importing import Counts
    from classifier.transfer.reading import Rejection

FormatOption = Annotated[str | None, typer.Option(help="jsonl, csv or parquet, where the name's suffix does not tell.")]


def add_verbs(app: typer.Typer) -> None:
    """Give the group of the example verbs those of this module."""
    app.command("import", cls=ServerCommand)(import_examples)
    app.command("export", cls=ServerCommand)(export_examples)


def import_examples(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".jsonl, .csv, both also .gz; .parquet.")],
    source: Annotated[str, typer.Option(help="The source of rows that name none; else the file's name.")] = "",
    licence: Annotated[str, typer.Option(help="The licence of rows that name none.")] = "",
    state: Annotated[str | None, typer.Option(help="pending or active: of every row, whatever it says.")] = None,
    format: FormatOption = None,
    rejects: Annotated[Path | None, typer.Option(help="Write a line of JSON for each row that is not stored.")] = None,
    include_rows: Annotated[bool, typer.Option("--include-rows", help="With the rows themselves.")] = False,
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Import examples: the good rows are stored, the others are named with their reasons, and the exit code is 3."""
    from classifier.transfer.command import import_files

    if include_rows and rejects is None:
        raise typer.BadParameter("needs --rejects", param_hint="--include-rows")
    counts, first = import_files(
        files,
        read_settings(),
        server,
        source=source,
        state=None if state is None else state_of(state, State.PENDING, State.ACTIVE),
        actor=actor_of(actor),
        format=_format(format),
        rejects=rejects,
        include_rows=include_rows,
        licence=licence,
    )
    _tell(counts, first, rejects, json=json)
    if counts.rejected:
        raise typer.Exit(3)


def export_examples(
    file: Annotated[Path, typer.Argument(help=".jsonl, .csv, both also .gz or .zst; .parquet.")],
    format: FormatOption = None,
    state: Annotated[str | None, typer.Option(help="pending, active or revoked; else pending and active.")] = None,
    source: Annotated[str, typer.Option(help="Only examples of this source; else all but the bundle's own.")] = "",
    label: Annotated[str | None, typer.Option(help="Only extraction or benign examples.")] = None,
    as_of: Annotated[int | None, typer.Option(help="As they were at this revision of the store.", min=0)] = None,
    server: ServerOption = None,
) -> None:
    """Export examples, oldest first, with their texts, labels, states and licences."""
    from classifier.transfer.command import export_file
    from classifier.transfer.exporting import Wanted

    wanted = Wanted(
        label=None if label is None else label_of(label),
        state=None if state is None else state_of(state, *State),
        source=source,
        as_of=as_of,
    )
    count = export_file(file, read_settings(), server, wanted, _format(format))
    typer.echo(f"{count:,} examples are in {file}")


def _format(given: str | None) -> str | None:
    if given not in (None, "jsonl", "csv", "parquet"):
        raise typer.BadParameter("must be jsonl, csv or parquet", param_hint="--format")
    return given


def _tell(counts: "Counts", first: "list[Rejection]", rejects: Path | None, *, json: bool) -> None:
    from json import dumps

    from classifier.visible import visible

    for rejection in first:
        say(visible(f"{rejection.file}, row {rejection.row}: {rejection.reason}: {rejection.detail}"))
    if counts.rejected > len(first):
        say(f"and {counts.rejected - len(first):,} more" + ("" if rejects else ": --rejects FILE names them all"))
    if counts.unknown:
        say(f"passed over the columns {', '.join(sorted(counts.unknown))}: docs/interchange.md names the known ones")
    if json:
        typer.echo(dumps({"stored": counts.stored, "added": counts.added, "rejects": counts.rejects}))
        return
    rejected = f", {counts.rejected:,} rows are rejected" if counts.rejected else ""
    typer.echo(f"{counts.stored:,} examples are stored, {counts.added:,} of them new{rejected}")
