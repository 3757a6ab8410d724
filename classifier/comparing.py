"""The command line's verbs over finished runs: rescore diff, rescore report."""

import json as jsons
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from classifier.console import console

if TYPE_CHECKING:
    from rich.console import Console

    from classifier.batch.diff import Change, Difference
    from classifier.batch.moves import Moves

_DECISIONS = ("allow", "review", "flag", "abstain")
_app = typer.Typer(add_completion=False)


class RescoreCommand(TyperCommand):
    """The command rescore, whose first word may also be a verb of its own: any other first word is an input."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Hand the call over to the verb, if one is named."""
        verbs: Any = typer.main.get_command(_app)
        if args and args[0] in verbs.commands:
            return verbs.commands[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@_app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="RUN_A", help="The folder of the earlier run.")],
    after: Annotated[Path, typer.Argument(metavar="RUN_B", help="The folder of the later run, over the same inputs.")],
    output: Annotated[Path | None, typer.Option(help="Write the changed rows to this Parquet file.")] = None,
    top: Annotated[int, typer.Option(help="How many accounts, templates and so on are shown.", min=1, max=10_000)] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print all of it as one line of JSON.")] = False,
) -> None:
    """Show which decisions changed between two runs, in sum and by technique, file, account, template and example."""
    compare = _batch("diff").compare
    found = compare(before, after, output, listed=top)
    if json:
        said = asdict(found) | {"matrix": [[*pair, number] for pair, number in found.matrix.items()]}
        typer.echo(jsons.dumps(said, ensure_ascii=True))
    else:
        _print(console(), found, output)


@_app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]) -> None:
    """Write a run's page, report.html, anew; of a run that was stopped it shows what is finished."""
    typer.echo(write_page(run))


def write_page(run: Path) -> Path:
    """Write a run's page.

    Args:
        run: The folder of a run.

    Returns:
        The page.

    Raises:
        MissingExtra: When a package of the batch extra is not installed.
        RunRefused: When the folder holds no run, or a damaged one.
    """
    page: Path = _batch("report").write_report(run)
    return page


def _batch(name: str) -> Any:
    from importlib import import_module

    from classifier.errors import MissingExtra

    try:
        return import_module(f"classifier.batch.{name}")
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a package", "batch") from None


def _print(to: "Console", found: "Difference", output: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    for note in found.notes:
        to.print(Text(f"note: {note}"))
    to.print(
        f"[bold]{found.changed:,}[/] of {found.compared:,} decisions changed "
        f"({found.changed / max(1, found.compared):.3%}), {found.by_threshold:,} of them without a change of score"
    )
    for number, run in ((found.only_before, "A"), (found.only_after, "B")):
        if number:
            to.print(f"{number:,} requests are in run {run} only")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("A \\ B")
    for one in _DECISIONS:
        table.add_column(one, justify="right")
    for first in _DECISIONS:
        cells = [f"{found.matrix.get((first, second), 0):,}" for second in _DECISIONS]
        table.add_row(Text(first, "bold"), *cells)
    to.print(table)
    to.print(_moves("scores", found.moves))
    if found.changed:
        to.print(_moves("scores of changed decisions", found.moves_of_changed))
    for name, changes in found.groups.items():
        if found.changed:
            to.print(_grouped(name, changes, found.unseen[name]))
    if output is not None:
        to.print(Text(f"the changed rows are in {output}"))


def _moves(what: str, moves: "Moves") -> str:
    if not moves.judged:
        return f"{what}: no request was judged by both runs"
    if moves.unmoved == moves.judged:
        return f"{what}: all {moves.judged:,} are the same"
    sizes = ", ".join(f"{float(share):.1%} within {size:.4f}" for share, size in moves.quantiles.items())
    return (
        f"{what}: {moves.unmoved:,} of {moves.judged:,} are the same, {moves.up:,} rose, {moves.down:,} fell; "
        f"mean size {moves.mean:.4f}, {sizes}, largest {moves.largest:.4f}"
    )


def _grouped(name: str, changes: "tuple[Change, ...]", unseen: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    from classifier.batch.names import shown

    title = {"example": "example that came near in B", "file": "input"}.get(name, name)
    missing = f" (one with at most {unseen:,} changes may be missing)" if unseen else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"\nby {title}{missing}", min_width=40)
    for head in ("\nchanged", "\nnewly flagged", "\nno longer flagged", "\nother"):
        table.add_column(head, justify="right")
    for one in changes:
        numbers = (one.changed, *(one.kinds[kind] for kind in ("flagged", "unflagged", "other")))
        table.add_row(Text(shown(one.key, 80) or "(none)"), *(f"{number:,}" for number in numbers))
    return table
