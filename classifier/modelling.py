"""The command line's verbs for models: train, evaluate, and models list, show, diff, promote and rollback."""

import json as jsons
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classifier.console import console, read_settings, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from classifier.models import ModelDifference, ModelRow, Moved
    from classifier.promotion import Promotion

_SHOWN = 10
"""Training examples of one kind that a table names; --json names all."""
_MOST_CHARS = 2_000
_FIGURES = (("AUROC", "extraction_auroc"), ("recall 1%", "extraction_recall_at_1pct_fpr"))

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
ActorOption = Annotated[str | None, typer.Option(help="Who does it, for the log; else the name of the user.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the log.")]
models_app = typer.Typer(help="List, show, compare, promote and roll back bundles.", no_args_is_help=True)


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verbs of this module."""
    app.command()(train)
    app.command()(evaluate)
    app.add_typer(models_app, name="models")


def train(
    output: Annotated[Path | None, typer.Option(help="The folder to write head, calibration and encoder into.")] = None,
    from_store: Annotated[
        bool, typer.Option("--from-store", help="Train on the example store and write a candidate bundle.")
    ] = False,
    revision: Annotated[
        int | None, typer.Option(help="The store's revision to train on; else its last one.", min=1)
    ] = None,
    base: Annotated[str, typer.Option(help="The bundle whose encoder the candidate keeps.")] = "current",
    new_encoder: Annotated[
        bool, typer.Option("--new-encoder", help="Make the compact encoder anew from the seed corpus, too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Shuffles the cross-validation's folds.")] = 0,
) -> None:
    """Fit, calibrate and export the head (needs the evaluate extra).

    With --output on the seed corpus, for `stillwatch bundle build`; with --from-store on the examples that were active
    at a revision of the store, as a candidate bundle that is not current until it is promoted.
    """
    from classifier.train.command import train as run
    from classifier.train.command import train_from_store

    if from_store == (output is not None):
        raise typer.BadParameter("give either --output or --from-store")
    if not from_store and (revision is not None or base != "current"):
        raise typer.BadParameter("--revision and --base go with --from-store")
    if from_store and new_encoder:
        raise typer.BadParameter("--new-encoder goes with --output")
    settings = read_settings()
    if output is not None:
        from classifier.runtime import threads_of

        threads = threads_of(settings)
        card = run(output, settings.model_cache, threads=threads, seed=seed, new_encoder=new_encoder, progress=say)
        _print_figures(card.report)
        return
    from classifier.bundle import read_manifest
    from index.store import open_store

    store = open_store(settings.store_address)
    try:
        folder = train_from_store(store, revision, settings, base=base, seed=seed, progress=say)
    finally:
        store.close()
    _print_figures(read_manifest(folder)[0].head.report)
    typer.echo(folder)


def evaluate(
    file: Annotated[
        Path, typer.Argument(help="Rows {text, extraction, capabilities, source, group, lang}, .jsonl[.gz].")
    ],
    output: Annotated[Path, typer.Option(help="The folder for the report.")] = Path("evaluation"),
    bundle: Annotated[str, typer.Option(help="Which bundle, as `stillwatch models list` names it.")] = "current",
    against: Annotated[
        str | None, typer.Option(help="Compare it with this bundle: the report that a promotion asks for.")
    ] = None,
    budget: Annotated[
        str, typer.Option(help="With --against: the share of ordinary rows that may be flagged.")
    ] = "0.5%",
    draws: Annotated[int, typer.Option(help="Bootstrap resamples.", min=10, max=100_000)] = 1_000,
    evasions: Annotated[
        bool, typer.Option("--evasions", help="Measure evasions, rewordings and long context as well.")
    ] = False,
    suspects: Annotated[
        Path | None, typer.Option(help="Ids of rows believed to be mislabelled, one a line: figures without them, too.")
    ] = None,
) -> None:
    """Measure a bundle on labelled prompts, beside three baselines, or against another one (needs the evaluate extra)."""
    from classifier.train.command import compare_bundles, evaluate_file

    settings = read_settings()
    if against is None:
        named = None if bundle == "current" else bundle
        written = evaluate_file(
            file, output, settings, bundle=named, draws=draws, evasions=evasions, suspects=suspects, progress=say
        )
    else:
        from classifier.budget import parse_budget

        if evasions or suspects is not None:
            raise typer.BadParameter("--evasions and --suspects do not go with --against")
        share = parse_budget(budget)
        report, written = compare_bundles(
            file, output, settings, bundle, against, budget=share, draws=draws, progress=say
        )
        typer.echo(f"{report.verdict.value}: {'; '.join(report.grounds)}")
    for path in written:
        typer.echo(path)


@models_app.command("list")
def models_list(json: JsonOption = False) -> None:
    """List the bundles of this home, the newest first."""
    from classifier.models import list_models

    rows = list_models(read_settings().bundles)
    if json:
        _print_json(*rows)
        return
    table = _table("", "bundle", "written", "trained on", "corpus", "review", "flag", *(head for head, _ in _FIGURES))
    for row in rows:
        if row.problem:
            _add(table, "", row.name, _when(row.created), row.problem)
            continue
        figures = [_figure((row.figures or {}).get(name)) for _, name in _FIGURES]
        cells = (_when(row.created), _corpus(row), row.corpus_sha256[:12], f"{row.review:.4g}", f"{row.flag:.4g}")
        _add(table, "*" if row.current else "", row.name, *cells, *figures)
    console().print(table)


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="The bundle, as `stillwatch models list` names it.")] = "current",
    json: JsonOption = False,
) -> None:
    """Show what a bundle was trained on and measured at, and how it came to be current."""
    from classifier.models import show_model
    from classifier.promotion import read_log

    settings = read_settings()
    row, manifest = show_model(settings.bundles, name)
    log = [one for one in read_log(settings.bundles) if row.name in (one.from_name, one.to_name)]
    if json:
        told = {"techniques": manifest.head.techniques, "capabilities": manifest.head.capabilities}
        entries = [one.model_dump(mode="json") for one in log]
        _print_json(asdict(row) | told | {"files": manifest.files, "promotions": entries})
        return
    pairs = [
        ("bundle", f"{row.version}{', the current one' if row.current else ''}"),
        ("manifest", row.manifest_sha256),
        ("written", _when(row.created)),
        ("trained on", f"{_corpus(row)}, {row.corpus_sha256}"),
        ("encoder", f"{manifest.encoder}, {manifest.precision}"),
        ("review from", f"{row.review:.6g}"),
        ("flag from", f"{row.flag:.6g}"),
        ("techniques", ", ".join(manifest.head.techniques)),
        ("capabilities", ", ".join(manifest.head.capabilities)),
        *((figure, f"{value:.4f}") for figure, value in (row.figures or {}).items()),
        *((one.step.value, _told(one)) for one in log),
    ]
    _print_pairs(pairs)


@models_app.command("diff")
def models_diff(
    before: Annotated[str, typer.Argument(help="A bundle.")],
    after: Annotated[str, typer.Argument(help="Another one.")] = "current",
    json: JsonOption = False,
) -> None:
    """Show in what two bundles differ: thresholds, figures, labels, training examples (by hash), files."""
    from classifier.models import diff_models

    found = diff_models(read_settings().bundles, before, after)
    if json:
        _print_json(found)
    else:
        _print_difference(found)


@models_app.command("promote")
def models_promote(
    name: Annotated[str, typer.Argument(help="The candidate, as `stillwatch models list` names it.")],
    report: Annotated[
        Path, typer.Option(help="comparison.json of `stillwatch evaluate --bundle ... --against current`.")
    ],
    actor: ActorOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> None:
    """Make a bundle the current one, by a report that compares exactly it with exactly the current one."""
    from classifier.promotion import promote
    from classifier.runtime import threads_of

    settings = read_settings()
    found = promote(settings.bundles, name, report, actor=actor or _user(), reason=reason, threads=threads_of(settings))
    _print_move(found, json=json)


@models_app.command("rollback")
def models_rollback(actor: ActorOption = None, reason: ReasonOption = "", json: JsonOption = False) -> None:
    """Make the bundle current that was so before; once more goes back further."""
    from classifier.promotion import roll_back

    _print_move(roll_back(read_settings().bundles, actor=actor or _user(), reason=reason), json=json)


def _print_difference(found: "ModelDifference") -> None:
    pairs = [
        ("before", f"{found.before.version}, {_corpus(found.before)}"),
        ("after", f"{found.after.version}, {_corpus(found.after)}"),
        *((f"{name} from", _change(*both)) for name, both in found.thresholds.items()),
        *((name, _change(*both)) for name, both in found.figures.items()),
        ("labels added", ", ".join(found.labels_added) or "none"),
        ("labels removed", ", ".join(found.labels_removed) or "none"),
        ("files that differ", ", ".join(found.files) or "none"),
    ]
    kinds = (("added", found.added), ("removed", found.removed), ("relabelled", found.relabelled))
    _print_pairs([*pairs, *((f"examples {kind}", _counted(moved)) for kind, moved in kinds)])
    if not any(moved for _, moved in kinds):
        return
    table = _table("", "content hash", "source", "before", "after")
    for kind, moved in kinds:
        for one in moved[:_SHOWN]:
            _add(table, kind, one.content_hash[:20], one.source, one.before, one.after)
        if len(moved) > _SHOWN:
            _add(table, kind, f"and {len(moved) - _SHOWN:,} more: see --json")
    console().print(table)


def _counted(moved: "Sequence[Moved]") -> str:
    from classifier.models import by_source

    if not moved:
        return "none"
    sources = by_source(moved)
    named = ", ".join(f"{count:,} of {source or 'no source'}" for source, count in sources[:_SHOWN])
    return f"{len(moved):,}: {named}{', ...' if len(sources) > _SHOWN else ''}"


def _print_move(found: "Promotion", *, json: bool) -> None:
    if json:
        typer.echo(found.model_dump_json())
    else:
        typer.echo(f"{found.to_name} is current now; before it was {found.from_name}")
        typer.echo("running servers follow by themselves, or by  stillwatch reload --server ...")


def _print_figures(figures: dict[str, float]) -> None:
    for name, value in figures.items():
        typer.echo(f"{name:32} {value:10.4f}")


def _print_json(*found: Any) -> None:
    for one in found:
        row = one if isinstance(one, dict) else asdict(one)
        typer.echo(jsons.dumps(row, ensure_ascii=True, default=_as_text))


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _table(*heads: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _add(table: Any, *cells: str) -> None:
    """Add a row of plain text: what stands in it is neither markup nor a terminal's control."""
    from rich.text import Text

    from classifier.batch.names import shown

    table.add_row(*(Text(shown(cell, _MOST_CHARS)) for cell in cells))


def _print_pairs(pairs: "Iterable[tuple[str, str]]") -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        _add(table, name, value)
    console().print(table)


def _corpus(row: "ModelRow") -> str:
    what = "seed" if row.training_revision is None else f"store revision {row.training_revision}"
    return f"{what}, {row.corpus_size:,}"


def _change(before: float, after: float) -> str:
    return f"{before:.4g}" if before == after else f"{before:.4g} -> {after:.4g} ({after - before:+.4g})"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _told(one: "Promotion") -> str:
    who = f" by {one.actor}" if one.actor else ""
    why = f": {one.reason}" if one.reason else ""
    report = f", report {one.report[:12]}" if one.report else ""
    return f"{_when(one.at)}{who}, {one.from_name} -> {one.to_name}{report}{why}"


def _user() -> str:
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError):
        return "unknown"
