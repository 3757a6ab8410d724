"""The command line's verbs for labelled examples: examples add, list; the others are in files of their own."""

from typing import TYPE_CHECKING, Annotated

import typer

from classifier import exchanging
from classifier.console import console, read_settings
from classifier.options import JsonOption, ServerCommand, ServerOption

if TYPE_CHECKING:
    from stillwatch.v1 import examples_pb2

examples_app = typer.Typer(help="Add, list and import labelled examples.", no_args_is_help=True)


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verbs of this module."""
    exchanging.add_verbs(examples_app)
    app.add_typer(examples_app, name="examples")


@examples_app.command("add", cls=ServerCommand)
def examples_add(
    text: Annotated[str, typer.Argument(help="The prompt.")],
    label: Annotated[str, typer.Option(help="extraction or benign.")],
    technique: Annotated[str, typer.Option(help="The technique of an extraction example.")] = "",
    capability: Annotated[list[str] | None, typer.Option(help="A capability that it targets; may be repeated.")] = None,
    language: Annotated[str, typer.Option(help='A language code such as "en".')] = "",
    source: Annotated[str, typer.Option(help="Where the prompt comes from; anything but seed.")] = "",
    author: Annotated[str, typer.Option(help="Who adds it.")] = "",
    note: Annotated[str, typer.Option(help="Free text.")] = "",
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Add one example. Name the running server, if there is one: it then knows the example at once."""
    from classifier.curation import example_row

    row = {"text": text, "label": label, "technique": technique or None, "capabilities": capability or []}
    row |= {"language": language, "source": source, "author": author, "note": note}
    _show_examples(_add([example_row(row)], server), json=json)


@examples_app.command("list", cls=ServerCommand)
def examples_list(
    label: Annotated[str | None, typer.Option(help="Only extraction or benign examples.")] = None,
    source: Annotated[str, typer.Option(help="Only examples of this source.")] = "",
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """List examples, oldest first."""
    from classifier.curation import open_examples

    with open_examples(read_settings(), server) as examples_of:
        _show_examples(examples_of.list(label, source, limit), json=json)


def _add(examples: "list[examples_pb2.Example]", server: str | None) -> "list[examples_pb2.Example]":
    from classifier.curation import open_examples

    with open_examples(read_settings(), server) as examples_of:
        return examples_of.add(examples)


def _show_examples(examples: "list[examples_pb2.Example]", *, json: bool) -> None:
    from classifier import terminal

    if json:
        for example in examples:
            typer.echo(terminal.as_json(example))
    else:
        terminal.print_examples(console(), examples)
