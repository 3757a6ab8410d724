"""The command line: verbs that each call one function.

Exit codes: 0 done; 1 an error, said in one line; 2 wrong usage; 3 some prompts could not be scored;
130 a run was stopped by Ctrl-C.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classifier import __version__, curating, modelling, operating, rescoring, reviewing
from classifier.console import console, fail, read_settings, say
from classifier.options import JsonOption, ServerCommand, ServerOption

if TYPE_CHECKING:
    from stillwatch.v1 import classifier_pb2

    from classifier.prompts import NamedPrompt

app = typer.Typer(
    help="Stillwatch tells prompts that harvest a model's answers as training data from ordinary ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 an error, 2 wrong usage, 3 some prompts could not be scored, 130 stopped.",
)
bundle_app = typer.Typer(help="Build and show bundles.", no_args_is_help=True)
tokens_app = typer.Typer(help="Make bearer tokens.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")
curating.add_verbs(app)
modelling.add_verbs(app)
operating.add_verbs(app)
rescoring.add_verbs(app)
reviewing.add_verbs(app)
app.add_typer(tokens_app, name="tokens")


def main() -> None:
    """Run the command line; a foreseen error becomes one line and exit code 1."""
    from classifier.errors import StillwatchError
    from index.errors import IndexRoomError

    try:
        app()
    except (StillwatchError, IndexRoomError) as error:
        fail(str(error))
    except UnicodeEncodeError:
        fail("an argument or a row holds text that is not valid Unicode: mend it")
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        fail(f"{error.filename or 'a file'} cannot be used ({error.strerror}): check the place and its rights")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"stillwatch {__version__}")
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = None,
) -> None:
    """Serve gRPC until SIGTERM."""
    import asyncio
    import gc

    gc.disable()  # until the server has settled: all that is loaded stays, and looking through it takes time
    from classifier.serve.log import configure_logging
    from classifier.serve.server import serve as run

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = read_settings().model_copy(update=given)
    configure_logging(settings.log_format, settings.log_level, settings.log_lines_per_second)
    asyncio.run(run(settings, lambda address: typer.echo(f"stillwatch is serving on {address}", err=True)))


@app.command(cls=ServerCommand)
def score(
    text: Annotated[
        str | None, typer.Argument(help="The prompt; without it, --file or standard input is read.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file: .jsonl[.gz] holds a prompt a line, others are one.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--jsonl", help="Read JSON Lines: {text}, {prompt} or request bodies.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Score only the first prompts.", min=1)] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Score prompts, here or on a server."""
    from classifier import terminal
    from classifier.prompts import read_prompts

    prompts = islice(read_prompts(text, file, sys.stdin.buffer, lines=lines), limit)
    results = _results(prompts, server)
    failed = 0
    if json:
        for result in results:
            failed += result.WhichOneof("outcome") == "status"
            typer.echo(terminal.as_json(result))
    else:
        found = list(results)
        failed = sum(result.WhichOneof("outcome") == "status" for result in found)
        if len(found) == 1 and not failed:
            terminal.print_verdict(console(), found[0])
        elif len(found) == 1:
            fail(found[0].status.message)
        else:
            terminal.print_results(console(), found)
    if failed:
        raise typer.Exit(3)


@app.command()
def explain(
    text: Annotated[
        str | None, typer.Argument(help="The prompt; without it, --file or standard input is read.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file that holds one prompt.")] = None,
) -> None:
    """Say why a prompt scores as it does: strongest part, words, build, nearest examples with their text."""
    from classifier import terminal
    from classifier.conversation import body_text
    from classifier.explain import explain as run
    from classifier.prompts import read_prompts
    from classifier.runtime import open_runtime

    (prompt,) = read_prompts(text, file, sys.stdin.buffer, lines=False)
    content = prompt.content if isinstance(prompt.content, str) else body_text(prompt.content)
    with open_runtime(read_settings()) as runtime:
        terminal.print_explanation(console(), run(content, runtime))


@app.command()
def calibrate(
    file: Annotated[
        Path, typer.Argument(help="Benign prompts of your own traffic, .jsonl[.gz], as `score` reads them.")
    ],
    budget: Annotated[str, typer.Option(help="The share of benign prompts that may be flagged: 0.1% or 0.001.")],
    review_budget: Annotated[
        str | None, typer.Option(help="The share that may be reviewed or flagged; else four times the budget.")
    ] = None,
) -> None:
    """Set the thresholds on your own benign traffic; a new bundle with them becomes the current one."""
    from classifier.budget import calibrate as run
    from classifier.budget import parse_budget

    def report(done: int, total: int) -> None:
        say(f"scored {done:,} of {total:,} rows")

    share = parse_budget(budget)
    review_share = None if review_budget is None else parse_budget(review_budget)
    found = run(file, read_settings(), share, review_share, progress=report)
    for name, cutoff in (("flag", found.flag), ("review", found.review)):
        measured = f"{cutoff.exceeding:,} of {cutoff.total:,} rows at or over it, {cutoff.rate:.4%}"
        typer.echo(
            f"{name:6} from {cutoff.threshold:.6g}: {measured} (95% interval {cutoff.low:.4%} to {cutoff.high:.4%})"
        )
    typer.echo(f"{found.abstained:,} rows were not judged, {found.rejected:,} could not be scored")
    typer.echo(found.bundle)


@app.command(cls=ServerCommand)
def doctor(server: ServerOption = None) -> None:
    """Check that this machine can score: bundle, encoder, store; and a server, when one is named."""
    from classifier.doctor import check

    healthy = True
    for found in check(read_settings(), server):
        healthy &= found.good
        typer.echo(f"{'ok  ' if found.good else 'FAIL'}  {found.name:10} {found.detail}")
    if not healthy:
        raise typer.Exit(1)


@app.command(cls=ServerCommand)
def health(server: ServerOption = None) -> None:
    """Ask a server whether it serves, as a container's health check does; without --server the one on this machine."""
    from classifier.probe import reach

    typer.echo(reach(server or f"127.0.0.1:{read_settings().port}"))


@bundle_app.command("build")
def bundle_build(
    head: Annotated[
        Path | None, typer.Option(help="The folder that `stillwatch train` wrote; else the default head.")
    ] = None,
    precision: Annotated[str, typer.Option(help="int8 or fp32.")] = "int8",
) -> None:
    """Build a bundle from the published weights, a head and the seed corpus, and point "current" at it."""
    from classifier.export.build import DEFAULT_HEAD, build
    from classifier.runtime import threads_of

    if precision not in ("int8", "fp32"):
        raise typer.BadParameter("must be int8 or fp32", param_hint="--precision")
    settings = read_settings()
    folder = build(
        settings.bundles,
        settings.model_cache,
        head=head or DEFAULT_HEAD,
        precision=precision,
        threads=threads_of(settings),
        progress=say,
    )
    typer.echo(folder)


@bundle_app.command("show")
def bundle_show(
    folder: Annotated[Path | None, typer.Argument(help="The bundle; without it, the current one.")] = None,
) -> None:
    """Print a bundle's manifest."""
    from classifier.bundle import read_manifest

    manifest, version = read_manifest(folder or read_settings().bundle)
    typer.echo(f"# {version}")
    typer.echo(manifest.model_dump_json(indent=2, exclude_none=True))


@tokens_app.command("new")
def tokens_new(
    name: Annotated[str, typer.Argument(help="Who will hold it; examples that it adds have this author.")],
    scope: Annotated[
        list[str], typer.Option(help="classify, examples:read, examples:write, examples:accept or admin; repeatable.")
    ],
    tokens_per_minute: Annotated[int | None, typer.Option(help="Its prompt tokens, by estimate.", min=0)] = None,
    requests_per_second: Annotated[float | None, typer.Option(help="Its requests.", min=0)] = None,
) -> None:
    """Make a token: it is shown once, on standard error; its lines for the tokens file go to standard output."""
    from classifier.tokens import new_token, scopes

    quota = {"tokens_per_minute": tokens_per_minute, "requests_per_second": requests_per_second}
    token, lines = new_token(name, scopes(scope), **quota)
    say(token)
    typer.echo(lines)


def _results(prompts: "Iterable[NamedPrompt]", server: str | None) -> "Iterator[classifier_pb2.BatchResult]":
    if server is None:
        from classifier.local import score_locally

        yield from score_locally(prompts, read_settings())
        return
    from classifier.remote import score_remotely

    yield from score_remotely(prompts, server)


if __name__ == "__main__":
    main()
