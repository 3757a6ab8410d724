"""The command line's verb for logs: rescore."""

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classifier.comparing import RescoreCommand, write_page
from classifier.console import console, read_settings, say

if TYPE_CHECKING:
    from classifier.batch.manifest import RunManifest

_INTERRUPTED = 130
_STYLES = {"allow": "green", "review": "yellow", "flag": "bold red", "abstain": "magenta"}


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verbs of this module."""
    app.command(cls=RescoreCommand)(rescore)


def rescore(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Files, directories, globs or URLs: JSON Lines, CSV, Parquet."),
    ],
    output: Annotated[
        Path, typer.Option(help="The folder for scores, rejects and run.json; a run goes on in its own.")
    ],
    format: Annotated[str | None, typer.Option(help="jsonl, csv or parquet, where no suffix tells.")] = None,
    shape: Annotated[str | None, typer.Option(help="What a row is, such as litellm; else it is recognised.")] = None,
    map: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=PATH", help="Where a field is, such as prompt=request.text.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help='Only such rows: "account = a", "key != b", "time >= 2026-01-05".')
    ] = None,
    sample: Annotated[float, typer.Option(help="Only this share of the rows.", min=0.0, max=1.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Only so many rows, over all calls.", min=1)] = None,
    max_rejected: Annotated[
        float, typer.Option(help="The share of rows that may be damaged before the run ends.", min=0.0, max=1.0)
    ] = 0.05,
    rows_per_part: Annotated[int, typer.Option(help="Rows of one part of the output.", min=1, max=1_000_000)] = 50_000,
    max_row_bytes: Annotated[int, typer.Option(help="A longer row is rejected.", min=1_024, max=2**30)] = 16 * 2**20,
    embeddings: Annotated[str | None, typer.Option(help="Write embeddings, as float16 or float32.")] = None,
    include_prompt: Annotated[bool, typer.Option("--include-prompt", help="Write the prompts.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray: on many cores or machines.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster; else one is started here.")] = None,
    workers: Annotated[int | None, typer.Option(help="Ray's workers; else one for each core.", min=1)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run's manifest as one line of JSON.")] = False,
) -> None:
    """Score logs again under the current bundle and examples; a run that was ended anyhow goes on where it was.

    Over finished runs: `stillwatch rescore diff RUN_A RUN_B` shows what changed, `stillwatch rescore report RUN` writes
    a run's page anew. An input of such a name is read as ./diff.
    """
    from classifier.batch.command import Request, rescore_logs

    request = Request(
        inputs=tuple(inputs),
        output=output,
        format=format,
        shape=shape,
        fields=tuple(map or ()),
        where=tuple(where or ()),
        sample=sample,
        seed=seed,
        limit=limit,
        max_rejected=max_rejected,
        rows_per_part=rows_per_part,
        max_row_bytes=max_row_bytes,
        embeddings=embeddings,
        include_prompt=include_prompt,
        engine=engine,
        ray_address=ray_address,
        workers=workers,
    )
    found = rescore_logs(request, read_settings(), lambda text: say(f"note: {text}"))
    if found.state != "stopped":
        write_page(output)
    if found.state == "stopped":
        parts = sum(one.parts for one in found.inputs)
        say(f"stopped: {parts:,} parts with {found.counts.read:,} rows are kept; run the same command again to go on")
    try:
        if json:
            typer.echo(jsons.dumps(found.model_dump(mode="json"), ensure_ascii=True))
        else:
            _print(found, output)
    except (BrokenPipeError, SystemExit):  # nobody reads it any more; rich ends the process by itself
        if found.state != "stopped":
            raise
    if found.state == "stopped":
        raise typer.Exit(_INTERRUPTED)


def _print(found: "RunManifest", output: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    counts, session = found.counts, found.sessions[-1]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    table.add_row("read", f"{counts.read:,}", f"from {len(found.inputs):,} inputs; the run is {found.state}")
    if counts.skipped:
        table.add_row("skipped", f"{counts.skipped:,}", "by --sample or --where")
    table.add_row("scored", f"{counts.scored:,}", f"{counts.repeats:,} of them repeats, which cost nothing")
    if counts.untimed:
        table.add_row("  without time", f"{counts.untimed:,}", "none was given, or none that can be read")
    for name, number in counts.decisions.items():
        share = f"{number / max(1, counts.scored):.2%}"
        table.add_row(Text(f"  {name}", _STYLES[name]), f"{number:,}", share)
    table.add_row("rejected", f"{counts.rejected:,}", f"see {output}/rejects" if counts.rejected else "")
    for name, number in counts.rejects.items():
        table.add_row(f"  {name}", f"{number:,}", "")
    seconds = (session.ended - session.started).total_seconds()
    table.add_row("rate", f"{session.rate:,.0f}/s", f"{session.read:,} rows in {seconds:,.1f} s, this call")
    table.add_row("by", "", f"bundle {found.bundle_version}, index revision {found.index_revision}")
    table.add_row("output", "", Text(str(output)))
    if found.state != "stopped":
        table.add_row("page", "", Text(str(output / "report.html")))
    console().print(table)
